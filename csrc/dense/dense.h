// Dense layers in float32: what the kernels offer.
#pragma once
#include <cstdint>

namespace automl_ext {

// C = f(A·B + bias + add), all [rows, columns], A [rows, inner] and B [inner, columns] of any strides. f is ELU where
// `elu`; where `elu_of` is there it multiplies by the slope that ELU had when it made these values.
struct DenseProduct {
  const float *a, *b;
  float* c;
  int64_t rows, inner, columns;
  int64_t a_row, a_inner, b_inner, b_column, c_row;  // strides
  const float *bias, *add, *elu_of;                  // each may be null
  int64_t add_row, elu_of_row;
  bool elu;
};

// What a GRU does after its two products, of_input and of_state [rows, 3 n] (reset, update, new). of_state's first two
// thirds become the gates.
struct GruGates {
  const float *of_input, *state;
  float *of_state, *newly, *next;
  int64_t rows, n;
  int64_t of_input_row, of_state_row, state_row, next_row;  // newly [rows, n] is contiguous
};

// Its gradient: found [rows, 4 n] of new by the state, reset, update, new by the input; to_state [rows, n] beside that
// through the products. Both and newly are contiguous.
struct GruGatesBackward {
  const float *gradient, *gates, *newly, *state;
  float *found, *to_state;
  int64_t rows, n;
  int64_t gradient_row, gates_row, state_row;
};

struct DenseKernels {
  // Floats that packed() fills; 0 where B's columns are next to each other and it is read as it is.
  int64_t (*packed_size)(const DenseProduct&);
  void (*pack)(const DenseProduct&, float* packed);
  void (*multiply)(const DenseProduct&, const float* packed, int64_t begin, int64_t end);  // rows
  void (*gru_gates)(const GruGates&, int64_t begin, int64_t end);
  void (*gru_gates_backward)(const GruGatesBackward&, int64_t begin, int64_t end);
};

// The kernels of the chosen instruction set. Defined in instruction_sets/kernels.cpp.
const DenseKernels& dense_kernels();

}  // namespace automl_ext
