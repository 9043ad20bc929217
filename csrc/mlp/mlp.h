// CPU kernels of multilayer perceptrons and GRU cells in float32 and float64.
#pragma once
#include <cstdint>

#include "../instruction_sets/choice.h"

namespace automl_ext {

// In the order of ACTIVATIONS in automl_ext/ops/networks.py.
enum Activation : int { kTanh, kRelu, kElu, kGelu, kSilu, kActivations };

// The slope of an activation is computed from its output, except for GELU and SiLU, whose forward pass writes it.
inline bool keeps_slope(int64_t activation) { return activation == kGelu || activation == kSilu; }

// C = A·B + bias, or C += A·B if `add`. A is [rows, inner] with any strides. B is [inner, columns] with contiguous rows.
// If `packed`, it was written by pack().
template <class T>
struct MlpProduct {
  const T *a, *b;
  T* c;
  int64_t inner, columns;
  int64_t a_row, a_inner, b_row, c_row;  // strides
  const T* bias;                         // may be null
  bool packed, add;
};

// The gates of a GRU, computed from its two products: input_gates = W_ih x + b_ih and hidden_gates = W_hh h + b_hh,
// both [rows, 3 n] in the order of torch.nn.GRUCell: reset, update, candidate. The first two thirds of hidden_gates are
// overwritten by the reset and update gates. All arrays but state are contiguous.
template <class T>
struct GruStep {
  const T *input_gates, *state;
  T *hidden_gates, *candidate, *next;
  int64_t n, state_row;
};

// Gradients of a GruStep. grad_gates is [rows, 4 n]: the gradients of the three thirds of hidden_gates, then of the
// candidate third of input_gates, whose other thirds have the same gradients as those of hidden_gates. grad_state is the
// gradient of the state without the path through hidden_gates. All arrays but state are contiguous.
template <class T>
struct GruStepBackward {
  const T *grad_next, *hidden_gates, *candidate, *state;
  T *grad_gates, *grad_state;
  int64_t n, state_row;
};

template <class T>
struct MlpKernelsOf {
  // The number of elements that pack() writes.
  int64_t (*packed_size)(int64_t inner, int64_t columns);
  // Packs B = Wᵀ for W [columns, inner] with contiguous rows.
  void (*pack)(const T* w, int64_t w_row, int64_t inner, int64_t columns, T* packed);
  // Packs B [inner, columns] with contiguous rows.
  void (*pack_rows)(const T* b, int64_t b_row, int64_t inner, int64_t columns, T* packed);
  void (*multiply)(const MlpProduct<T>&, int64_t begin, int64_t end);  // rows [begin, end)
  // The same with B = Wᵀ read from W, b_row its stride, for a few rows: saves packing. A must have contiguous rows.
  void (*multiply_transposed)(const MlpProduct<T>&, int64_t begin, int64_t end);
  // multiply() for A = Gᵀ, G with contiguous rows, faster for long sums. scratch: gradient_scratch(end − begin) elements.
  int64_t (*gradient_scratch)(int64_t rows);
  void (*multiply_gradient)(const MlpProduct<T>&, int64_t begin, int64_t end, T* scratch);
  // y = f(y) for n elements. Writes the derivative to slope unless it is null.
  void (*activate)(int activation, T* y, T* slope, int64_t n);
  // grad *= f', where kept is the slope for the activations that keep it, else f.
  void (*multiply_slope)(int activation, T* grad, const T* kept, int64_t n);
  // sums[j] = Σ_i x[i, j] for columns [begin, end).
  void (*sum_rows)(const T* x, int64_t x_row, int64_t rows, T* sums, int64_t begin, int64_t end);
  void (*gru)(const GruStep<T>&, int64_t begin, int64_t end);
  void (*gru_backward)(const GruStepBackward<T>&, int64_t begin, int64_t end);
};

struct MlpKernels {
  MlpKernelsOf<float> f32;
  MlpKernelsOf<double> f64;
};

DECLARE_KERNELS(MlpKernels, mlp)

template <class T>
const MlpKernelsOf<T>& mlp_kernels_of();
template <>
inline const MlpKernelsOf<float>& mlp_kernels_of<float>() {
  return mlp_kernels().f32;
}
template <>
inline const MlpKernelsOf<double>& mlp_kernels_of<double>() {
  return mlp_kernels().f64;
}

}  // namespace automl_ext
