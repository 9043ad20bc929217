// Launches of mixed-op aggregation: one launch per chunk of at most kMixedOpInputs inputs.
#include "mixed_op_cuda.h"

#include <algorithm>

#include "../common/cuda/launch.cuh"
#include "mixed_op_kernels.cuh"

namespace automl_ext {
namespace {

// Inputs [begin, end) of a call. Arrays that a pass does not use are null.
MixedOpInputs chunk_of(const void* const* inputs, void* const* grad_inputs, const int64_t* positions, int64_t begin,
                       int64_t end) {
  MixedOpInputs chunk = {};
  chunk.count = int(end - begin);
  for (int64_t i = begin; i < end; ++i) {
    chunk.x[i - begin] = inputs ? inputs[i] : nullptr;
    chunk.dx[i - begin] = grad_inputs ? grad_inputs[i] : nullptr;
    chunk.position[i - begin] = positions[i];
  }
  return chunk;
}

// Returns true if all arrays are 16-byte aligned, so that they can be read in packs.
bool aligned(const MixedOpInputs& chunk, const void* other) {
  uintptr_t bits = reinterpret_cast<uintptr_t>(other);
  for (int k = 0; k < chunk.count; ++k)
    bits |= reinterpret_cast<uintptr_t>(chunk.x[k]) | reinterpret_cast<uintptr_t>(chunk.dx[k]);
  return bits % 16 == 0;
}

// Calls launch(T(), W()) with the element types of the inputs and of the weights.
template <class Launch>
void for_dtypes(DType dtype, DType weights_dtype, const Launch& launch) {
  for_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    if (weights_dtype == dtype)
      launch(T(), T());
    else
      launch(T(), Compute<T>());
  });
}

// Calls run(begin, end) for each chunk of the inputs.
template <class Run>
void for_chunks(int64_t inputs, const Run& run) {
  for (int64_t begin = 0; begin < inputs; begin += kMixedOpInputs)
    run(begin, std::min<int64_t>(inputs, begin + kMixedOpInputs));
}

}  // namespace

int64_t mixed_op_scratch(DType dtype, int64_t inputs, int64_t n) {
  const bool half = dtype == kBFloat16 || dtype == kFloat16;
  return half && inputs > kMixedOpInputs ? n * int64_t(sizeof(float)) : 0;
}

// One double per input and tile, and a total per weight where there are several chunks. The number of tiles is the
// largest possible, that of unaligned arrays.
int64_t mixed_op_backward_scratch(int64_t inputs, int64_t weights, int64_t n) {
  const int64_t tiles = n / (kMixedOpThreads * kBackwardPacks) + 2;
  const int64_t dots = std::min<int64_t>(inputs, kMixedOpInputs) * tiles;
  return (dots + (inputs > kMixedOpInputs ? weights : 0)) * int64_t(sizeof(double));
}

void launch_mixed_op(DType dtype, DType weights_dtype, const void* const* inputs, const int64_t* positions,
                     int64_t inputs_count, const void* weights, void* y, int64_t n, void* scratch, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtypes(dtype, weights_dtype, [&](auto element, auto weight) {
    using T = decltype(element);
    using W = decltype(weight);
    using C = Compute<T>;
    // Partial sums between chunks: in y for float and double, in scratch for half types.
    C* const sums = static_cast<C*>(sizeof(T) == sizeof(C) ? y : scratch);
    for_chunks(inputs_count, [&](int64_t begin, int64_t end) {
      const MixedOpInputs chunk = chunk_of(inputs, nullptr, positions, begin, end);
      const MixedOpTiles<T, kForwardPacks> tiles(n, aligned(chunk, y));
      KERNEL_LAUNCH((mixed_op_forward<T, W>), resident_grid(tiles.count, kForwardBlocks), kMixedOpThreads, 0, stream,
                    chunk, static_cast<const W*>(weights), begin ? sums : nullptr, end < inputs_count ? sums : nullptr,
                    static_cast<T*>(y), tiles);
    });
  });
}

void launch_mixed_op_backward(DType dtype, DType weights_dtype, const void* grad, const void* const* inputs,
                              const int64_t* positions, int64_t inputs_count, const void* weights,
                              int64_t weights_count, MixedOpGradients gradients, int64_t n, void* scratch,
                              void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  for_dtypes(dtype, weights_dtype, [&](auto element, auto weight) {
    using T = decltype(element);
    using W = decltype(weight);
    const bool weights_need = gradients.weights;
    double* const totals = static_cast<double*>(scratch);
    double* const dots = totals + (inputs_count > kMixedOpInputs ? weights_count : 0);
    for_chunks(inputs_count, [&](int64_t begin, int64_t end) {
      const MixedOpInputs chunk = chunk_of(weights_need ? inputs : nullptr, gradients.inputs, positions, begin, end);
      const MixedOpTiles<T, kBackwardPacks> tiles(n, aligned(chunk, grad));
      if (n)
        KERNEL_LAUNCH((mixed_op_backward<T, W>), grid_of(tiles.count), kMixedOpThreads, 0, stream, chunk,
                      static_cast<const T*>(grad), static_cast<const W*>(weights), weights_need ? dots : nullptr,
                      tiles);
      if (weights_need)
        KERNEL_LAUNCH((mixed_op_weights_backward<W>), grid_of(weights_count), kMixedOpThreads, 0, stream, chunk, dots,
                      tiles.count, weights_count, begin ? totals : nullptr, end < inputs_count ? totals : nullptr,
                      static_cast<W*>(gradients.weights));
    });
  });
}

}  // namespace automl_ext
