// CPU entry functions of the GRU cell.

#include "mlp.h"
#include "mlp_entry.h"

namespace automl_ext::gru_cpu {
namespace {

constexpr const char* kOp = "gru_cell";
using Bias = OptionalTensor;

// Checks dtype, device and shape; returns the tensor, or a copy with contiguous rows.
Tensor checked(const char* name, const Tensor& y, IntList shape, const Tensor& like) {
  check_device(kOp, name, y, like);
  CHECK_TYPE(y.scalar_type() == like.scalar_type(), kOp, ": ", name, ": expected ", like.scalar_type(), " as x, got ",
             y.scalar_type());
  CHECK_VALUE(abi::equal(y.sizes(), shape), kOp, ": ", name, ": expected shape ", shape, ", got ", y.sizes());
  return y.stride(-1) == 1 || y.size(-1) <= 1 ? y : contiguous(y);
}

struct Cell {
  int64_t rows, inputs, n;
  Tensor x, h;  // matrices with contiguous rows
  Tensor w_ih, w_hh;

  Cell(const Tensor& input, const Tensor& state, const Tensor& input_weight, const Tensor& state_weight) {
    CHECK_VALUE(input.dim() > 0 && state.dim() > 0, kOp, ": x: expected shape [..., inputs], got ", input.sizes());
    inputs = input.size(-1), n = state.size(-1);
    std::vector<int64_t> shape = input.sizes().vec();
    shape.back() = n;
    h = matrix(checked("h", state, shape, input));
    x = matrix(input.stride(-1) == 1 || inputs <= 1 ? input : contiguous(input));
    rows = x.size(0);
    w_ih = checked("w_ih", input_weight, {3 * n, inputs}, input);
    w_hh = checked("w_hh", state_weight, {3 * n, n}, input);
  }

 private:
  static Tensor matrix(const Tensor& y) {
    if (y.dim() == 2) return y;
    int64_t rows = 1;
    for (int64_t i = 0; i + 1 < y.dim(); ++i) rows *= y.size(i);
    return reshape(y, {rows, y.size(-1)});
  }
};

// y = x Wᵀ + b for all rows of x.
template <class T>
void linear(const Tensor& x, const Tensor& w, const T* bias, T* y) {
  const auto& kernels = mlp_kernels_of<T>();
  const int64_t inputs = w.size(1), outputs = w.size(0);
  const Scratch packed(kernels.packed_size(inputs, outputs) * sizeof(T));
  T* const at = static_cast<T*>(packed.get());
  kernels.pack(w.const_data_ptr<T>(), w.stride(0), inputs, outputs, at);
  const MlpProduct<T> p = {
      x.const_data_ptr<T>(), at, y, inputs, outputs, x.stride(0), 1, 0, outputs, bias, true, false};
  parallel_rows(x.size(0), inputs * outputs / 16, [&](int64_t begin, int64_t end) { kernels.multiply(p, begin, end); });
}

// y (+)= g W for g [rows, count] with rows g_row apart and W with `count` rows.
template <class T>
void input_gradient(const T* g, int64_t g_row, int64_t count, const T* w, int64_t w_row, int64_t inputs, T* y, bool add,
                    int64_t rows) {
  const MlpProduct<T> p = {g, w, y, count, inputs, g_row, 1, w_row, inputs, nullptr, false, add};
  parallel_rows(rows, inputs * count / 16,
                [&](int64_t begin, int64_t end) { mlp_kernels_of<T>().multiply(p, begin, end); });
}

// w = gᵀ x for g [rows, count], and b = the sum of the rows of g.
template <class T>
void weight_gradient(const T* g, int64_t g_row, int64_t count, const Tensor& x, T* w, T* b) {
  const int64_t inputs = x.size(1), rows = x.size(0);
  const MlpProduct<T> p = {g,     x.const_data_ptr<T>(), w,      rows,    inputs, 1,
                           g_row, x.stride(0),           inputs, nullptr, false,  false};
  parallel_rows(count, inputs * rows / 16, [&](int64_t begin, int64_t end) {
    mlp_kernels_of<T>().multiply(p, begin, end);
    if (b) mlp_kernels_of<T>().sum_rows(g, g_row, rows, b, begin, end);
  });
}

// kept: [rows, 4 n], reset and update gates and the state's part of the candidate for all rows, then the candidates.
template <class T>
void forward(const Cell& c, const T* b_ih, const T* b_hh, T* next, T* kept) {
  const Scratch scratch(c.rows * 3 * c.n * sizeof(T));
  T* const input_gates = static_cast<T*>(scratch.get());
  linear<T>(c.x, c.w_ih, b_ih, input_gates);
  linear<T>(c.h, c.w_hh, b_hh, kept);
  const GruStep<T> step = {input_gates,  c.h.const_data_ptr<T>(), kept, kept + 3 * c.rows * c.n, next, c.n,
                           c.h.stride(0)};
  parallel_rows(c.rows, 3 * c.n, [&](int64_t begin, int64_t end) { mlp_kernels_of<T>().gru(step, begin, end); });
}

template <class T>
void backward(const Cell& c, const T* grad, const T* kept, bool needs_inputs, bool needs_parameters, T* x, T* h,
              T* w_ih, T* w_hh, T* b_ih, T* b_hh) {
  const int64_t n = c.n, rows = c.rows, gates_row = 4 * n;
  const Scratch gates(rows * gates_row * sizeof(T)), state(needs_inputs ? 0 : rows * n * sizeof(T));
  T *const g = static_cast<T*>(gates.get()), *const grad_state = needs_inputs ? h : static_cast<T*>(state.get());
  const GruStepBackward<T> step = {grad,       kept, kept + 3 * rows * n, c.h.const_data_ptr<T>(), g,
                                   grad_state, n,    c.h.stride(0)};
  parallel_rows(rows, 3 * n, [&](int64_t begin, int64_t end) { mlp_kernels_of<T>().gru_backward(step, begin, end); });
  const T *const wi = c.w_ih.const_data_ptr<T>(), *const wh = c.w_hh.const_data_ptr<T>();
  const int64_t wi_row = c.w_ih.stride(0), wh_row = c.w_hh.stride(0);
  if (needs_inputs) {  // columns 0 to 2 n and 3 n to 4 n are the gradients of the input's product
    input_gradient(g, gates_row, 2 * n, wi, wi_row, c.inputs, x, false, rows);
    input_gradient(g + 3 * n, gates_row, n, wi + 2 * n * wi_row, wi_row, c.inputs, x, true, rows);
    input_gradient(g, gates_row, 3 * n, wh, wh_row, n, h, true, rows);
  }
  if (!needs_parameters) return;
  weight_gradient(g, gates_row, 2 * n, c.x, w_ih, b_ih);
  weight_gradient(g + 3 * n, gates_row, n, c.x, w_ih + 2 * n * c.inputs, b_ih ? b_ih + 2 * n : nullptr);
  weight_gradient(g, gates_row, 3 * n, c.h, w_hh, b_hh);
}

std::tuple<Tensor, Tensor> trained(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh,
                                   const Bias& b_ih, const Bias& b_hh) {
  const Cell cell(x, h, w_ih, w_hh);
  CHECK_VALUE(b_ih.has_value() == b_hh.has_value(), kOp, ": b_hh: expected both biases or neither, got one");
  Tensor bias_i, bias_h;
  if (b_ih) {
    bias_i = contiguous(checked("b_ih", *b_ih, {3 * cell.n}, x));
    bias_h = contiguous(checked("b_hh", *b_hh, {3 * cell.n}, x));
  }
  Tensor next = empty(h.sizes(), x), kept = empty({cell.rows, 4 * cell.n}, x);
  by_type(x, [&](auto t) {
    using T = decltype(t);
    forward<T>(cell, b_ih ? bias_i.const_data_ptr<T>() : nullptr, b_ih ? bias_h.const_data_ptr<T>() : nullptr,
               next.mutable_data_ptr<T>(), kept.mutable_data_ptr<T>());
  });
  return {next, kept};
}

Tensor gru_cell(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh, const Bias& b_ih,
                const Bias& b_hh) {
  if (!has_kernel(x))
    return call_op(
        "automl_ext::_gru_cell_composite", "",
        {from_tensor(x), from_tensor(h), from_tensor(w_ih), from_tensor(w_hh), from_tensor(b_ih), from_tensor(b_hh)});
  return std::get<0>(trained(x, h, w_ih, w_hh, b_ih, b_hh));
}

std::vector<Tensor> gru_cell_backward(const Tensor& grad, const Tensor& x, const Tensor& h, const Tensor& w_ih,
                                      const Tensor& w_hh, const Tensor& kept, bool has_biases, bool needs_inputs,
                                      bool needs_parameters) {
  const Cell cell(x, h, w_ih, w_hh);
  const Tensor g = contiguous(checked("grad", grad, h.sizes(), x));
  const Tensor saved = contiguous(checked("kept", kept, {cell.rows, 4 * cell.n}, x));
  std::vector<Tensor> result;
  if (needs_inputs) result = {empty(x.sizes(), x), empty(h.sizes(), x)};
  const size_t first = result.size();
  if (needs_parameters) {
    result.insert(result.end(), {empty(w_ih.sizes(), x), empty(w_hh.sizes(), x)});
    if (has_biases) result.insert(result.end(), {empty({3 * cell.n}, x), empty({3 * cell.n}, x)});
  }
  by_type(x, [&](auto t) {
    using T = decltype(t);
    const auto at = [&](bool present, size_t i) { return present ? result[i].mutable_data_ptr<T>() : nullptr; };
    const bool biases = needs_parameters && has_biases;
    backward<T>(cell, g.const_data_ptr<T>(), saved.const_data_ptr<T>(), needs_inputs, needs_parameters,
                at(needs_inputs, 0), at(needs_inputs, 1), at(needs_parameters, first), at(needs_parameters, first + 1),
                at(biases, first + 2), at(biases, first + 3));
  });
  return result;
}

}  // namespace
}  // namespace automl_ext::gru_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // x [..., inputs], h [..., n], w_ih [3 n, inputs], w_hh [3 n, n], b_ih and b_hh [3 n].
  m.def("gru_cell(Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh) -> Tensor");
  m.def("_gru_cell_composite(Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh) -> Tensor");
  m.def(
      "_gru_cell_trained(Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh) "
      "-> (Tensor next, Tensor kept)");
  // Returns the gradients of x and h, if needed, and of the weights and biases, if needed.
  m.def(
      "_gru_cell_backward(Tensor grad, Tensor x, Tensor h, Tensor w_ih, Tensor w_hh, Tensor kept, bool has_biases, "
      "bool needs_inputs, bool needs_parameters) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::gru_cpu;
  implement<gru_cell>(m, "gru_cell", true);
  implement<trained>(m, "_gru_cell_trained", true);
  implement<gru_cell_backward>(m, "_gru_cell_backward", true);
}
