// Converts at::Tensor to what the kernels take: dtypes, and rows along a dim as raw pointers. Also parallel loops.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "dtype.h"

namespace automl_ext {

inline DType dtype_of(const at::Tensor& x, const char* op, const char* name) {
  switch (x.scalar_type()) {
    case at::kDouble: return kFloat64;
    case at::kFloat: return kFloat32;
    case at::kBFloat16: return kBFloat16;
    case at::kHalf: return kFloat16;
    default:
      TORCH_CHECK_TYPE(false, op, ": ", name, ": expected a float64, float32, bfloat16 or float16 tensor, got ",
                       x.scalar_type());
  }
}

inline void check_device(const char* op, const char* name, const at::Tensor& x, const at::Tensor& like) {
  TORCH_CHECK_VALUE(x.device() == like.device(), op, ": ", name, ": expected a tensor on ", like.device(),
                    ", got one on ", x.device(), "; use .to('", like.device(), "')");
}

// Checks that x has the device, dtype and shape of `like`.
inline void check_like(const char* op, const char* name, const at::Tensor& x, const at::Tensor& like) {
  check_device(op, name, x, like);
  TORCH_CHECK_TYPE(x.scalar_type() == like.scalar_type(), op, ": ", name, ": expected a ", like.scalar_type(),
                   " tensor, got ", x.scalar_type());
  TORCH_CHECK_VALUE(x.sizes() == like.sizes(), op, ": ", name, ": expected shape ", like.sizes(), ", got ", x.sizes());
}

// A tensor as contiguous rows along `dim`, which is moved last.
struct Rows {
  at::Tensor data;
  int64_t length;  // of a row
  int64_t count;

  Rows(const at::Tensor& x, int64_t dim)
      : data((x.dim() == 0      ? x.reshape({1})
              : is_last(x, dim) ? x
                                : x.movedim(dim, -1))
                 .contiguous()),
        length(data.size(-1)),
        count(length ? data.numel() / length : 0) {}

  static bool is_last(const at::Tensor& x, int64_t dim) { return at::maybe_wrap_dim(dim, x.dim()) == x.dim() - 1; }
};

// Returns rows in the shape of `like`, contiguous.
inline at::Tensor from_rows(const at::Tensor& rows, const at::Tensor& like, int64_t dim) {
  if (like.dim() == 0) return rows.reshape({});
  return Rows::is_last(like, dim) ? rows : rows.movedim(-1, dim).contiguous();
}

// Scratch memory of one thread, aligned to cache lines, because a vector across two lines takes two accesses.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : lines_(new Line[bytes / sizeof(Line) + 1]) {}
  void* get() const { return lines_.get(); }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  std::unique_ptr<Line[]> lines_;
};

// Runs body(begin, end) in parallel over [0, count) items of `cost` elements each. Does nothing without items, and does
// small work on the calling thread.
template <class Body>
void parallel_rows(int64_t count, int64_t cost, const Body& body) {
  constexpr int64_t kGrain = 32768;  // fewer elements are faster on one thread
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cost));
  if (count == 0) return;
  if (count <= grain)
    body(int64_t(0), count);
  else
    at::parallel_for(0, count, grain, body);
}

}  // namespace automl_ext
