// What the entry functions of the kernels use: checks, results, rows along a dim as raw pointers, parallel loops. On torch's
// stable interface, so that one binary works with every torch from 2.10 on.
#pragma once
#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/headeronly/core/MemoryFormat.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <memory>

#include "abi.h"
#include "columns.h"
#include "dtype.h"
#include "errors.h"

namespace automl_ext {

using abi::Device;
using abi::IntList;
using abi::OptionalTensor;
using abi::ScalarType;
using abi::Tensor;
using abi::TensorList;

// ---- Checks

inline DType dtype_of(const Tensor& x, const char* op, const char* name) {
  switch (x.scalar_type()) {
    case ScalarType::Double: return kFloat64;
    case ScalarType::Float: return kFloat32;
    case ScalarType::BFloat16: return kBFloat16;
    case ScalarType::Half: return kFloat16;
    default:
      fail<pybind11::type_error>(op, ": ", name, ": expected a float64, float32, bfloat16 or float16 tensor, got ",
                                 x.scalar_type());
  }
}

inline void check_device(const char* op, const char* name, const Tensor& x, const Tensor& like) {
  CHECK_VALUE(x.device() == like.device(), op, ": ", name, ": expected a tensor on ", like.device(), ", got one on ",
              x.device(), "; use .to('", like.device(), "')");
}

// Checks that x has the device, dtype and shape of `like`.
inline void check_like(const char* op, const char* name, const Tensor& x, const Tensor& like) {
  check_device(op, name, x, like);
  CHECK_TYPE(x.scalar_type() == like.scalar_type(), op, ": ", name, ": expected a ", like.scalar_type(),
             " tensor, got ", x.scalar_type());
  CHECK_VALUE(abi::equal(x.sizes(), like.sizes()), op, ": ", name, ": expected shape ", like.sizes(), ", got ",
              x.sizes());
}

inline bool is_floating_point(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double || x.scalar_type() == ScalarType::Float ||
         x.scalar_type() == ScalarType::BFloat16 || x.scalar_type() == ScalarType::Half;
}

// Returns true if the elements of x fill a block of memory, in any order of the dims.
inline bool is_dense(const Tensor& x) {
  if (x.is_contiguous()) return true;
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t i = 0; i < x.dim(); ++i)
    if (x.size(i) != 1) dims.emplace_back(x.stride(i), x.size(i));
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// ---- New tensors. The functions of this group cost tens of nanoseconds, those of the next one microseconds.

inline Tensor empty_strided(IntList sizes, const int64_t* strides, ScalarType dtype, Device device) {
  AtenTensorHandle handle;
  abi::check(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides, int32_t(dtype), device.type,
                                      device.index, &handle));
  return Tensor::own(handle);
}

// Contiguous, on the device of `like`.
inline Tensor empty(IntList sizes, ScalarType dtype, const Tensor& like) {
  constexpr size_t kFew = 8;
  int64_t few[kFew];
  std::vector<int64_t> many(sizes.size() > kFew ? sizes.size() : 0);
  int64_t *const strides = many.empty() ? few : many.data(), stride = 1;
  for (size_t i = sizes.size(); i-- > 0; stride *= std::max<int64_t>(1, sizes[i])) strides[i] = stride;
  return empty_strided(sizes, strides, dtype, like.device());
}
inline Tensor empty(IntList sizes, const Tensor& like) { return empty(sizes, like.scalar_type(), like); }
inline Tensor zeros(IntList sizes, ScalarType dtype, const Tensor& like) {
  Tensor result = empty(sizes, dtype, like);
  abi::check(aoti_torch_zero_(result.handle()));
  return result;
}

// ---- Ops of torch

namespace stable = torch::stable::detail;

inline StableIValue from_tensor(const Tensor& x) { return stable::from(x.copy()); }
inline StableIValue from_tensor(const OptionalTensor& x) {
  return stable::from(x ? std::optional<AtenTensorHandle>(x->copy()) : std::nullopt);
}
inline StableIValue from_tensors(TensorList all) {
  std::vector<AtenTensorHandle> handles;
  for (const Tensor& x : all) handles.push_back(x.copy());
  return stable::from(std::move(handles));
}

// Calls an op that returns one tensor. Tensors are passed by from_tensor(), other arguments by stable::from().
inline Tensor call_op(const char* name, const char* overload, std::initializer_list<StableIValue> arguments) {
  std::vector<StableIValue> stack(arguments);
  abi::check(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return Tensor::own(stable::to<AtenTensorHandle>(stack[0]));
}

inline Tensor contiguous(const Tensor& x) {
  if (x.is_contiguous()) return x;
  return call_op("aten::contiguous", "", {from_tensor(x), stable::from(torch::headeronly::MemoryFormat::Contiguous)});
}
inline Tensor reshape(const Tensor& x, std::vector<int64_t> sizes) {
  return call_op("aten::reshape", "", {from_tensor(x), stable::from(std::move(sizes))});
}
inline Tensor move_dim(const Tensor& x, int64_t source, int64_t target) {
  return call_op("aten::movedim", "int", {from_tensor(x), stable::from(source), stable::from(target)});
}
inline Tensor to_dtype(const Tensor& x, ScalarType dtype) {
  if (x.scalar_type() == dtype) return x;
  return call_op(
      "aten::to", "dtype",
      {from_tensor(x), stable::from(dtype), stable::from(false), stable::from(false), stable::from(std::nullopt)});
}
// Like x, with its strides if it is dense.
inline Tensor empty_like(const Tensor& x) {
  if (is_dense(x)) return empty_strided(x.sizes(), x.strides().data(), x.scalar_type(), x.device());
  const StableIValue none = stable::from(std::nullopt);
  return call_op("aten::empty_like", "", {from_tensor(x), none, none, none, none, none});
}
inline void copy_to(const Tensor& target, const Tensor& source) {
  abi::check(aoti_torch_copy_(target.handle(), source.handle(), /*non_blocking=*/0));
}

// ---- Rows

// A tensor as rows along `dim`, which is moved last. The elements of a row are side by side, in a copy if necessary, unless
// the kernel reads such columns.
struct Rows {
  Tensor data;
  int64_t length;  // of a row
  int64_t count;
  int64_t inner = 1;  // the distance of a row's elements: the memory of data is that of [count / inner, length, inner]

  Rows(const Tensor& x, int64_t dim, const Columns& columns = {}) : data(x.dim() == 0 ? reshape(x, {1}) : x) {
    if (!is_last(data, dim)) {
      if (x.size(dim) <= columns.longest) inner = adjacent_columns(x, dim);
      if (inner < columns.fewest || inner > std::numeric_limits<int32_t>::max()) inner = 1;
      data = move_dim(inner == 1 ? x : contiguous(x), dim, -1);
    }
    if (inner == 1) data = contiguous(data);
    length = data.size(-1);
    count = length ? data.numel() / length : 0;
  }
  // A result for each element, in the order of `data`.
  Tensor results() const { return inner == 1 ? empty(data.sizes(), data) : empty_like(data); }

  static bool is_last(const Tensor& x, int64_t dim) {
    x.size(dim);  // fails if there is no such dim
    return dim == -1 || dim == x.dim() - 1;
  }
  static int64_t adjacent_columns(const Tensor& x, int64_t dim) {
    int64_t columns = 1;
    for (int64_t i = dim < 0 ? dim + x.dim() : dim; ++i < x.dim();) columns *= x.size(i);
    return columns;
  }
};

// Returns results of rows in the shape of `like`, contiguous.
inline Tensor from_rows(Tensor rows, const Tensor& like, int64_t dim) {
  if (like.dim() == 0) return reshape(rows, {});
  return Rows::is_last(like, dim) ? rows : contiguous(move_dim(rows, -1, dim));
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

// Runs body(begin, end) in parallel over [begin, end) on torch's threads. No exception may pass through torch's C interface:
// the first one is thrown at the end.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  struct Context {
    const Body& body;
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
    std::exception_ptr error;
  } context{body};
  const auto run = [](int64_t first, int64_t last, void* pointer) {
    auto& context = *static_cast<Context*>(pointer);
    try {
      context.body(first, last);
    } catch (...) {
      if (!context.failed.test_and_set()) context.error = std::current_exception();
    }
  };
  abi::check(torch_parallel_for(begin, end, grain, run, &context));
  if (context.error) std::rethrow_exception(context.error);
}

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
    parallel_for(0, count, grain, body);
}

}  // namespace automl_ext
