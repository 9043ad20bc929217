// CPU entry functions of attention with entmax-1.5 weights.
#include <tuple>
#include <vector>

#include "../common/kernel_library.h"
#include "attention.h"

namespace automl_ext::attention_cpu {
namespace {

constexpr const char* kOp = "entmax15_attention";
using Trained = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;  // out, τ, counts, places, roots

int64_t threads() {
  uint32_t count = 1;
  abi::check(torch_get_num_threads(&count));
  return count;
}

// x with adjacent elements of a row, in place if possible.
Tensor with_rows(const Tensor& x) { return x.size(-1) <= 1 || x.stride(-1) == 1 ? x : contiguous(x); }

// The offset in elements of each head, in the order of the dims before the last two.
std::vector<int64_t> offsets(const Tensor& x, IntList batch) {
  int64_t count = 1;
  for (const int64_t size : batch) count *= size;
  std::vector<int64_t> all(count, 0);
  int64_t repeat = 1;
  for (size_t i = batch.size(); i-- > 0; repeat *= batch[i])
    for (int64_t h = 0; h < count; ++h) all[h] += h / repeat % batch[i] * x.stride(int64_t(i));
  return all;
}

// A checked call.
struct Call {
  Tensor q, k, v, mask;
  DType dtype;
  AttentionSizes sizes = {};
  int64_t heads = 1, key_heads = 1, group = 1;
  std::vector<int64_t> q_at, k_at, v_at, mask_at;
  const AttentionKernels::Functions& kernels;

  Call(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& attn_mask, bool is_causal,
       double scale)
      : q(with_rows(query)),
        k(with_rows(key)),
        v(with_rows(value)),
        dtype(dtype_of(query, kOp, "query")),
        kernels(attention_kernels().of[dtype]) {
    check_shapes();
    sizes.queries = q.size(-2), sizes.keys = k.size(-2), sizes.width = q.size(-1), sizes.value_width = v.size(-1);
    sizes.q_row = q.stride(-2), sizes.k_row = k.stride(-2), sizes.v_row = v.stride(-2);
    sizes.scale = scale, sizes.causal = is_causal;
    constexpr int64_t kWidestWithout = 32;  // up to here, products take too little of the time for a gain
    sizes.tiles = has_tiles() && dtype != kFloat64 && sizes.width > kWidestWithout;
    CHECK_VALUE(sizes.keys < std::numeric_limits<int32_t>::max(), kOp, ": key: expected fewer than 2^31 keys, got ",
                sizes.keys);
    const auto batch = batch_of(q), key_batch = batch_of(k);
    for (const int64_t size : batch) heads *= size;
    for (const int64_t size : key_batch) key_heads *= size;
    group = q.dim() > 2 && k.size(-3) ? q.size(-3) / k.size(-3) : 1;
    q_at = offsets(q, batch), k_at = offsets(k, key_batch), v_at = offsets(v, key_batch);
    sizes.mask = kNoMask;
    if (attn_mask) read_mask(*attn_mask, batch);
  }

  int64_t blocks() const { return (sizes.queries + kAttentionBlock - 1) / kAttentionBlock; }
  bool few() const { return sizes.queries < kAttentionFewQueries; }
  ScalarType computed() const { return dtype == kFloat64 ? ScalarType::Double : ScalarType::Float; }
  int64_t compute_size() const { return dtype == kFloat64 ? 8 : 4; }
  // The shape of a result with rows of n elements.
  std::vector<int64_t> shape(int64_t n) const {
    std::vector<int64_t> all(q.sizes().begin(), q.sizes().end());
    all.back() = n;
    return all;
  }
  std::vector<int64_t> row_shape() const { return {q.sizes().begin(), q.sizes().end() - 1}; }

  AttentionHead head(int64_t h) const {
    const auto at = [](const Tensor& x, int64_t offset) {
      return static_cast<const char*>(x.const_data_ptr()) + offset * x.element_size();
    };
    AttentionHead head = {};
    const int64_t of_key = h / group;
    head.q = at(q, q_at[h]), head.k = at(k, k_at[of_key]), head.v = at(v, v_at[of_key]);
    if (sizes.mask != kNoMask) head.mask = at(mask, mask_at[h]);
    return head;
  }

 private:
  static IntList batch_of(const Tensor& x) { return x.sizes().slice(0, x.dim() - 2); }

  void check_shapes() const {
    for (const auto& [name, x] : {std::pair("query", &q), {"key", &k}, {"value", &v}}) {
      check_device(kOp, name, *x, q);
      CHECK_TYPE(x->scalar_type() == q.scalar_type(), kOp, ": ", name, ": expected ", q.scalar_type(),
                 " as query, got ", x->scalar_type());
      CHECK_VALUE(x->dim() == q.dim() && x->dim() >= 2, kOp, ": ", name, ": expected shape [..., length, width] and ",
                  q.dim(), " dimensions as query, got ", x->sizes());
    }
    CHECK_VALUE(k.size(-1) == q.size(-1), kOp, ": key: expected the width of query, ", q.size(-1), ", got ", k.sizes());
    CHECK_VALUE(abi::equal(k.sizes().slice(0, k.dim() - 1), v.sizes().slice(0, v.dim() - 1)), kOp,
                ": value: expected the shape of key except for the last dimension, got ", v.sizes(), " and ",
                k.sizes());
    for (int64_t i = 0; i + 2 < q.dim(); ++i) {
      const bool is_head = i + 3 == q.dim();
      const bool fits = is_head && k.size(i) ? q.size(i) % k.size(i) == 0 : q.size(i) == k.size(i);
      CHECK_VALUE(fits, kOp,
                  ": key: expected the batch dimensions of query, or a number of heads that divides its, got ",
                  k.sizes(), " and ", q.sizes());
    }
  }

  void read_mask(const Tensor& given, IntList batch) {
    check_device(kOp, "attn_mask", given, q);
    const bool flags = given.scalar_type() == ScalarType::Bool;
    CHECK_TYPE(flags || given.scalar_type() == q.scalar_type() || given.scalar_type() == ScalarType::Float, kOp,
               ": attn_mask: expected a Bool, Float or ", q.scalar_type(), " tensor, got ", given.scalar_type());
    mask = flags ? given : to_dtype(given, computed());
    const int64_t missing = q.dim() - mask.dim();
    const std::vector<int64_t> wanted = shape(sizes.keys);
    bool fits = missing >= 0;
    for (int64_t i = 0; fits && i < mask.dim(); ++i) fits = mask.size(i) == 1 || mask.size(i) == wanted[i + missing];
    CHECK_VALUE(fits, kOp, ": attn_mask: expected a shape that broadcasts to ", IntList(wanted), ", got ",
                given.sizes());
    const auto stride = [&](int64_t i) {
      return i < missing || mask.size(i - missing) == 1 ? 0 : mask.stride(i - missing);
    };
    mask_at.assign(heads, 0);
    int64_t repeat = 1;
    for (int64_t i = int64_t(batch.size()); i-- > 0; repeat *= batch[i])
      for (int64_t h = 0; h < heads; ++h) mask_at[h] += h / repeat % batch[i] * stride(i);
    sizes.mask_row = stride(q.dim() - 2), sizes.mask_key = stride(q.dim() - 1);
    sizes.mask = flags ? kFlags : kAdded;
  }
};

// Blocks of queries whose numbers of visible keys grow: the order in which threads get about the same work.
int64_t balanced(int64_t i, int64_t blocks, bool causal) { return !causal ? i : i % 2 ? blocks - 1 - i / 2 : i / 2; }

// A pointer into a result, or null without one.
struct Place {
  char* at = nullptr;
  int64_t bytes = 0;  // per query
  Place() = default;
  Place(const Tensor& x, int64_t rows) : at(static_cast<char*>(x.mutable_data_ptr())) {
    bytes = rows ? x.numel() / rows * x.element_size() : 0;
  }
  template <class T = void>
  T* of(int64_t row) const {
    return reinterpret_cast<T*>(at ? at + row * bytes : nullptr);
  }
};
struct Saved {
  Place tau, counts, places, roots;
  void set(AttentionHead& head, int64_t row) const {
    head.tau = tau.of(row), head.counts = counts.of<int32_t>(row);
    head.places = places.of<int32_t>(row), head.roots = roots.of(row);
  }
};

void run_forward(const Call& call, const Tensor& out, const Saved& saved) {
  const AttentionSizes& s = call.sizes;
  const Place results(out, call.heads * s.queries);
  const int64_t blocks = call.blocks(), group = call.group, most = std::max<int64_t>(1, s.keys);
  const int64_t packed_bytes = call.few() ? 0 : call.kernels.packed_bytes(s) / 64 * 64 + 64;
  // Keys are packed for a few heads at a time, so that they are in the cache when they are read.
  constexpr int64_t kPackedBytes = 256 << 10;
  const int64_t fitting = std::max<int64_t>(1, threads() * kPackedBytes / std::max<int64_t>(1, packed_bytes));
  const int64_t together = call.few() ? call.key_heads : std::min(call.key_heads, fitting);
  const Scratch keys(packed_bytes * together);
  constexpr int64_t kPackedKeys = 1024;
  const int64_t parts = (s.keys + kPackedKeys - 1) / kPackedKeys;
  for (int64_t first = 0; first < call.key_heads; first += together) {
    const int64_t some = std::min(together, call.key_heads - first);
    const auto packed = [&](int64_t i) { return static_cast<char*>(keys.get()) + i * packed_bytes; };
    if (packed_bytes)
      parallel_rows(some * parts, std::min(kPackedKeys, most) * s.width, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t key = i % parts * kPackedKeys;
          call.kernels.pack(s, call.head((first + i / parts) * group).k, key, std::min(s.keys, key + kPackedKeys),
                            packed(i / parts));
        }
      });
    const int64_t cost = std::min(s.queries, kAttentionBlock) * most * (s.width + 8) / 16;
    parallel_rows(some * group * blocks, cost, [&](int64_t begin, int64_t end) {
      const Scratch scratch(call.kernels.scratch_bytes(s, false));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t h = first * group + i / blocks, block = balanced(i % blocks, blocks, s.causal);
        AttentionHead head = call.head(h);
        if (packed_bytes) head.packed = packed(i / blocks / group);
        head.out = results.of(h * s.queries);
        saved.set(head, h * s.queries);
        call.kernels.forward(s, head, block, block + 1, scratch.get());
      }
    });
  }
}

bool is_empty(const Call& call) { return call.heads * call.sizes.queries == 0; }

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& mask,
                 bool is_causal, double scale) {
  Call call(query, key, value, mask, is_causal, scale);
  const Tensor out = empty(call.shape(call.sizes.value_width), query);
  call.sizes.out_row = call.sizes.value_width;
  if (!is_empty(call)) run_forward(call, out, {});
  return out;
}

Trained attention_trained(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& mask,
                          bool is_causal, double scale) {
  Call call(query, key, value, mask, is_causal, scale);
  const Tensor out = empty(call.shape(call.sizes.value_width), query);
  call.sizes.out_row = call.sizes.value_width;
  const Tensor tau = empty(call.row_shape(), call.computed(), query);
  const Tensor counts = empty(call.row_shape(), ScalarType::Int, query);
  const Tensor places = empty(call.shape(kAttentionSaved), ScalarType::Int, query);
  const Tensor roots = empty(call.shape(kAttentionSaved), call.computed(), query);
  const int64_t rows = call.heads * call.sizes.queries;
  if (!is_empty(call)) run_forward(call, out, {{tau, rows}, {counts, rows}, {places, rows}, {roots, rows}});
  return {out, tau, counts, places, roots};
}

// The number of parts of the queries of a key head whose gradients of keys and values are summed apart, so that several
// threads can work on few heads. It does not depend on the number of threads, so that neither do the results.
int64_t slices_of(const Call& call) {
  constexpr int64_t kTasks = 16, kFewestBlocks = 4, kBytes = 24 << 20;
  const int64_t of_head = call.sizes.keys * (call.sizes.width + call.sizes.value_width) * call.compute_size();
  const int64_t by_tasks = kTasks / std::max<int64_t>(1, call.key_heads);
  const int64_t by_blocks = call.group * call.blocks() / kFewestBlocks;
  const int64_t by_bytes = 1 + kBytes / std::max<int64_t>(1, of_head * call.key_heads);
  return std::max<int64_t>(1, std::min({by_tasks, by_blocks, by_bytes}));
}

std::tuple<Tensor, Tensor, Tensor> attention_backward(const Tensor& grad, const Tensor& query, const Tensor& key,
                                                      const Tensor& value, const OptionalTensor& mask, bool is_causal,
                                                      double scale, const Tensor& tau, const Tensor& counts,
                                                      const Tensor& places, const Tensor& roots) {
  Call call(query, key, value, mask, is_causal, scale);
  AttentionSizes& s = call.sizes;
  const auto check = [&](const char* name, const Tensor& given, IntList shape, ScalarType dtype) {
    check_device("entmax15_attention backward", name, given, query);
    CHECK_TYPE(given.scalar_type() == dtype, "entmax15_attention backward: ", name, ": expected ", dtype, ", got ",
               given.scalar_type());
    CHECK_VALUE(abi::equal(given.sizes(), shape), "entmax15_attention backward: ", name, ": expected shape ", shape,
                ", got ", given.sizes());
  };
  check("grad", grad, call.shape(s.value_width), query.scalar_type());
  check("tau", tau, call.row_shape(), call.computed());
  check("counts", counts, call.row_shape(), ScalarType::Int);
  check("places", places, call.shape(kAttentionSaved), ScalarType::Int);
  check("roots", roots, call.shape(kAttentionSaved), call.computed());
  const Tensor g = with_rows(grad), t = contiguous(tau), c = contiguous(counts), p = contiguous(places),
               r = contiguous(roots);
  s.grad_row = g.stride(-2), s.dq_row = s.width;
  const std::vector<int64_t> grad_at = offsets(g, g.sizes().slice(0, g.dim() - 2));
  const Tensor dq = empty(query.sizes(), query), dk = zeros(key.sizes(), key.scalar_type(), key),
               dv = zeros(value.sizes(), value.scalar_type(), value);
  if (is_empty(call) || s.keys == 0) {
    abi::check(aoti_torch_zero_(dq.handle()));
    return {dq, dk, dv};
  }
  const int64_t rows = call.heads * s.queries, key_rows = call.key_heads * s.keys;
  const Saved saved = {{t, rows}, {c, rows}, {p, rows}, {r, rows}};
  const Place to_q(dq, rows), to_k(dk, key_rows), to_v(dv, key_rows);
  // Sums of a slice, unless they can be in the result.
  const int64_t slices = slices_of(call), blocks = call.blocks(), items = call.group * blocks;
  const bool in_place = query.scalar_type() == call.computed();
  const int64_t apart = slices - in_place, of_k = s.keys * s.width, of_v = s.keys * s.value_width;
  const ScalarType computed = call.computed();
  const Tensor sums_k = zeros({call.key_heads, apart, of_k}, computed, key),
               sums_v = zeros({call.key_heads, apart, of_v}, computed, value);
  const Place apart_k(sums_k, call.key_heads * apart), apart_v(sums_v, call.key_heads * apart);
  std::atomic<bool> valid = true;
  const int64_t cost = items * std::min(s.queries, kAttentionBlock) * s.keys / slices;
  parallel_rows(call.key_heads * slices, cost, [&](int64_t begin, int64_t end) {
    const Scratch scratch(call.kernels.scratch_bytes(s, true));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t of_key = i / slices, slice = i % slices;
      AttentionGradients to = {};
      if (in_place && slice == 0) {
        to.k = to_k.of(of_key * s.keys), to.v = to_v.of(of_key * s.keys);
      } else {
        const int64_t part = of_key * apart + slice - in_place;
        to.k = apart_k.of(part), to.v = apart_v.of(part);
      }
      for (int64_t item = slice * items / slices, stop = (slice + 1) * items / slices; item < stop;) {
        const int64_t member = item / blocks, block = item % blocks, count = std::min(blocks - block, stop - item);
        const int64_t h = of_key * call.group + member;
        AttentionHead head = call.head(h);
        saved.set(head, h * s.queries);
        to.grad = static_cast<const char*>(g.const_data_ptr()) + grad_at[h] * g.element_size();
        to.q = to_q.of(h * s.queries);
        if (!call.kernels.backward(s, head, to, block, block + count, scratch.get())) valid = false;
        item += count;
      }
    }
  });
  CHECK_VALUE(valid, "entmax15_attention backward: places: expected what the forward pass returned");
  if (apart)
    parallel_rows(call.key_heads, apart * (of_k + of_v), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        call.kernels.add_up(apart_k.of(i * apart), of_k, apart, to_k.of(i * s.keys), of_k, in_place);
        call.kernels.add_up(apart_v.of(i * apart), of_v, apart, to_v.of(i * s.keys), of_v, in_place);
      }
    });
  return {dq, dk, dv};
}

}  // namespace
}  // namespace automl_ext::attention_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // query [..., L, d], key [..., S, d], value [..., S, d_v] with equal dims before the last two, except that the number of
  // heads, dim −3, of query may be a multiple of that of key. attn_mask broadcasts to [..., L, S]: bool, or added to the
  // scores.
  m.def(
      "entmax15_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask, bool is_causal, float scale) -> "
      "Tensor");
  // Called if a gradient is needed. The other results: see attention.h.
  m.def(
      "_entmax15_attention_trained(Tensor query, Tensor key, Tensor value, Tensor? attn_mask, bool is_causal, float "
      "scale) "
      "-> (Tensor out, Tensor tau, Tensor counts, Tensor places, Tensor roots)");
  m.def(
      "_entmax15_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor? attn_mask, "
      "bool is_causal, float scale, Tensor tau, Tensor counts, Tensor places, Tensor roots) -> (Tensor, Tensor, "
      "Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::attention_cpu;
  implement<attention>(m, "entmax15_attention", true);
  implement<attention_trained>(m, "_entmax15_attention_trained", true);
  implement<attention_backward>(m, "_entmax15_attention_backward", true);
}
