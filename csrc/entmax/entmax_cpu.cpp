// CPU entry functions of entmax-1.5 and sparsemax.

#include <optional>
#include <tuple>

#include "../common/kernel_library.h"
#include "entmax.h"
#include "entmax_entry.h"

namespace automl_ext::entmax_cpu {
namespace {

using EntmaxTrained = std::tuple<Tensor, Tensor>;  // p and support

constexpr int64_t kCheckedRows = 64;
constexpr const char* kNotASupport = ": support: expected what the forward pass returned";

EntmaxTrained forward(const Tensor& x, int64_t dim, const EntmaxKernels::Forward* table, const char* op, bool trained) {
  Tensor support;
  if (trained) {
    const int64_t length = x.dim() ? x.size(dim) : 1, bytes = entmax_support_bytes(length, x.element_size());
    support = bytes ? empty({x.numel() / length, bytes}, ScalarType::Byte, x) : empty({0}, ScalarType::Byte, x);
  }
  Tensor p = entmax_forward(op, x, dim, [&](DType dtype, const Rows& rows, void* out) {
    void* const supports = trained && support.numel() ? support.mutable_data_ptr() : nullptr;
    parallel_rows(rows.count, rows.length, [&](int64_t begin, int64_t end) {
      const Scratch scratch(entmax_scratch_bytes(rows.length));
      table[dtype](rows.data.const_data_ptr(), out, supports, rows.length, begin, end, scratch.get());
    });
  });
  return {p, support};
}

// Returns true if x has the layout of supports. The values are not checked.
bool is_support(const Tensor& x, int64_t bytes) {
  return x.device().is_cpu() && x.is_strided() && x.scalar_type() == ScalarType::Byte && x.numel() == bytes &&
         x.is_contiguous() && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % alignof(EntmaxSupport<double>) == 0;
}

// Returns true if the supports of rows [begin, end) keep the kernel inside these rows.
bool supports_fit(DType dtype, const void* supports, int64_t n, int64_t begin, int64_t end) {
  const auto fit = [&](auto element) {
    return entmax_supports_fit(static_cast<const EntmaxSupport<decltype(element)>*>(supports) + begin, end - begin, n);
  };
  switch (dtype) {
    case kFloat64: return fit(double());
    case kFloat32: return fit(float());
    default: return fit(uint16_t());  // two bytes, as both half-precision types
  }
}

Tensor backward(const Tensor& grad, const Tensor& p, int64_t dim, const OptionalTensor& support,
                const EntmaxKernels::Backward* table, const char* op) {
  return entmax_backward(op, grad, p, dim, [&](DType dtype, const Rows& g, const Rows& y, void* dx) {
    const bool given = support && support->numel();
    const int64_t bytes = y.count * entmax_support_bytes(y.length, p.element_size());
    CHECK_VALUE(!given || is_support(*support, bytes), op, kNotASupport, ", got ", support->sizes());
    const void* const supports = given ? support->const_data_ptr() : nullptr;
    parallel_rows(y.count, y.length, [&](int64_t begin, int64_t end) {
      // In blocks, so that the checked supports are still in the cache when the kernel reads them.
      const int64_t block = given ? kCheckedRows : end - begin;
      for (int64_t row = begin; row < end; row += block) {
        const int64_t stop = std::min(end, row + block);
        CHECK_VALUE(!given || supports_fit(dtype, supports, y.length, row, stop), op, kNotASupport,
                    ", got indices outside the rows");
        table[dtype](g.data.const_data_ptr(), y.data.const_data_ptr(), supports, dx, y.length, row, stop);
      }
    });
  });
}

Tensor entmax15(const Tensor& x, int64_t dim) {
  return std::get<0>(forward(x, dim, entmax_kernels().entmax15, "entmax15", false));
}
Tensor sparsemax(const Tensor& x, int64_t dim) {
  return std::get<0>(forward(x, dim, entmax_kernels().sparsemax, "sparsemax", false));
}
EntmaxTrained entmax15_trained(const Tensor& x, int64_t dim) {
  return forward(x, dim, entmax_kernels().entmax15, "entmax15", true);
}
EntmaxTrained sparsemax_trained(const Tensor& x, int64_t dim) {
  return forward(x, dim, entmax_kernels().sparsemax, "sparsemax", true);
}
Tensor entmax15_backward(const Tensor& grad, const Tensor& p, int64_t dim, const OptionalTensor& support) {
  return backward(grad, p, dim, support, entmax_kernels().entmax15_backward, "entmax15");
}
Tensor sparsemax_backward(const Tensor& grad, const Tensor& p, int64_t dim, const OptionalTensor& support) {
  return backward(grad, p, dim, support, entmax_kernels().sparsemax_backward, "sparsemax");
}

}  // namespace
}  // namespace automl_ext::entmax_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // x has any shape; the result has probabilities along dim, in the shape of x.
  m.def("entmax15(Tensor x, int dim) -> Tensor");
  // Called if a gradient is needed. support: the non-zero entries of the rows of p, as bytes for _backward only; [0] for short
  // rows and on a GPU.
  m.def("_entmax15_trained(Tensor x, int dim) -> (Tensor p, Tensor support)");
  m.def("_entmax15_backward(Tensor grad, Tensor p, int dim, Tensor? support=None) -> Tensor");
  m.def("sparsemax(Tensor x, int dim) -> Tensor");
  m.def("_sparsemax_trained(Tensor x, int dim) -> (Tensor p, Tensor support)");
  m.def("_sparsemax_backward(Tensor grad, Tensor p, int dim, Tensor? support=None) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::entmax_cpu;
  implement<entmax15>(m, "entmax15", true);
  implement<entmax15_trained>(m, "_entmax15_trained", true);
  implement<entmax15_backward>(m, "_entmax15_backward", true);
  implement<sparsemax>(m, "sparsemax", true);
  implement<sparsemax_trained>(m, "_sparsemax_trained", true);
  implement<sparsemax_backward>(m, "_sparsemax_backward", true);
}
