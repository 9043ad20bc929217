// CPU kernels of dense layers and GRU gates in float32.
#pragma once
#include <cstdint>

namespace automl_ext {

// C = f(A·B + bias + add): C and add are [rows, columns], bias is [columns], A [rows, inner] and B [inner, columns]
// have any strides. f is ELU if `elu` is true. If elu_output is not null, f multiplies by the derivative of ELU,
// computed from its output.
struct DenseProduct {
  const float *a, *b;
  float* c;
  int64_t rows, inner, columns;
  int64_t a_row, a_inner, b_inner, b_column, c_row;  // strides
  const float *bias, *add, *elu_output;              // may be null
  int64_t add_row, elu_output_row;
  bool elu;
};

// The gates of a GRU, computed from its two products: input_gates = W_ih x + b_ih and hidden_gates = W_hh h + b_hh,
// both [rows, 3 n] in the order of torch.nn.GRUCell: reset, update, candidate. The first two thirds of hidden_gates are
// overwritten by the reset and update gates. state is h, next the next state, both [rows, n].
struct GruGates {
  const float *input_gates, *state;
  float *hidden_gates, *candidate, *next;
  int64_t rows, n;
  int64_t input_gates_row, hidden_gates_row, state_row, next_row;  // strides; candidate [rows, n] is contiguous
};

// Gradients of GruGates from grad_next, the gradient of the next state. grad_gates is [rows, 4 n]: the gradients of
// the candidate third of hidden_gates, then of the reset, update and candidate thirds of input_gates. grad_state [rows,
// n] is the gradient of the state without the path through hidden_gates. grad_gates, grad_state and candidate are
// contiguous.
struct GruGatesBackward {
  const float *grad_next, *gates, *candidate, *state;
  float *grad_gates, *grad_state;
  int64_t rows, n;
  int64_t grad_next_row, gates_row, state_row;
};

struct DenseKernels {
  // The number of floats that pack() writes; 0 if the columns of B are contiguous, because B is then read without
  // packing.
  int64_t (*packed_size)(const DenseProduct&);
  void (*pack)(const DenseProduct&, float* packed);
  void (*multiply)(const DenseProduct&, const float* packed, int64_t begin, int64_t end);  // rows [begin, end)
  void (*gru_gates)(const GruGates&, int64_t begin, int64_t end);
  void (*gru_gates_backward)(const GruGatesBackward&, int64_t begin, int64_t end);
};

// The kernels of the chosen instruction set. Defined in instruction_sets/kernels.cpp.
const DenseKernels& dense_kernels();

}  // namespace automl_ext
