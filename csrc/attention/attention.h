// Attention with entmax-1.5 weights: the interface of the CPU kernels.
//
//   z = (scale·q·kᵀ + mask)/2;  s = max(z − τ, 0) with Σs² = 1;  out = Σ s²·v
//
// docs/development/attention.md describes the algorithm.
#pragma once
#include <cstdint>

#include "../common/dtype.h"
#include "../instruction_sets/choice.h"

namespace automl_ext {

constexpr int64_t kAttentionBlock = 48;  // queries that are processed together
// Entries of a saved support, on average over the queries of a block; automl_ext/ops/_register_attention.py has this number.
constexpr int64_t kAttentionSaved = 64;
// Fewer queries read the keys in place, without packing them.
constexpr int64_t kAttentionFewQueries = 6;

enum AttentionMask : int { kNoMask, kFlags, kAdded };

// Strides are in elements. The elements of a row of all tensors but the mask are adjacent.
struct AttentionSizes {
  int64_t queries, keys, width, value_width;
  int64_t q_row, k_row, v_row;
  int64_t out_row, grad_row, dq_row;
  int64_t mask_row, mask_key;
  double scale;
  bool causal;
  bool tiles;  // scores by AMX (attention_tiles.inc)
  AttentionMask mask;
};

// One query head with its key head. T is the type in memory, C that of the computation: double for double, else float.
struct AttentionHead {
  const void *q, *k, *v;  // T
  const void* mask;       // bool for kFlags, C for kAdded
  const void* packed;     // what pack() has written, or null for few queries
  void* out;              // T [queries, value_width]
  // For the gradient; null in a forward pass that saves nothing. τ is NaN for a row with a NaN or +inf score, and +inf for a
  // row without a visible key. count: the size of the support of a query. The supports of a block of queries are saved one
  // after the other, from index first_query·kAttentionSaved on. If they do not fit, the counts are −1 − size.
  void* tau;        // C [queries]
  int32_t* counts;  // [queries]
  int32_t* places;  // [queries·kAttentionSaved]: keys
  void* roots;      // C, the same size: s
};

struct AttentionGradients {
  const void* grad;  // T [queries, value_width]
  void* q;           // T [queries, width]
  void *k, *v;       // C [keys, width] and [keys, value_width]: the gradients are added to them
};

struct AttentionKernels {
  struct Functions {
    int64_t (*packed_bytes)(const AttentionSizes&);
    // Packs the keys [begin, end); begin is a multiple of 64.
    void (*pack)(const AttentionSizes&, const void* k, int64_t begin, int64_t end, void* packed);
    int64_t (*scratch_bytes)(const AttentionSizes&, bool backward);  // of one thread
    // For blocks of queries [begin, end).
    void (*forward)(const AttentionSizes&, const AttentionHead&, int64_t begin, int64_t end, void* scratch);
    // The same. Returns false if a saved support is impossible. packed is not read.
    bool (*backward)(const AttentionSizes&, const AttentionHead&, const AttentionGradients&, int64_t begin, int64_t end,
                     void* scratch);
    // to = Σ from + i·stride over `count` arrays of n elements; with `add`, to += the same.
    void (*add_up)(const void* from, int64_t stride, int64_t count, void* to, int64_t n, bool add);
  };
  Functions of[kDTypes];
};

DECLARE_KERNELS(AttentionKernels, attention)

}  // namespace automl_ext
