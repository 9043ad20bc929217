// Dense layers and GRU gates against loops in double: partial tiles, strided and transposed matrices.
#include <algorithm>

#include "../instruction_sets/run.h"
#include "../references/numbers.h"

using namespace automl_ext;

namespace {

constexpr float kUntouched = 7;

// A float matrix with padding. Element (i, j) is at first()[i·row + j·column].
struct Matrix {
  std::vector<float> all;
  int64_t row, column;

  Matrix(int64_t rows, int64_t columns, bool transposed, Random& random)
      : all(encoded<float>(random.normals((rows + 1) * (columns + 1) + 3))),
        row(transposed ? 1 : columns + 1),
        column(transposed ? rows + 1 : 1) {}
  const float* first() const { return all.data() + 2; }
  double at(int64_t i, int64_t j) const { return first()[i * row + j * column]; }
};

struct ProductTest {
  const DenseKernels& kernels;
  double worst = 0;

  // with: bits for bias, add, elu, elu_output.
  void check(int64_t rows, int64_t inner, int64_t columns, bool a_transposed, bool b_transposed, int with,
             Random& random) {
    const Matrix a(rows, inner, a_transposed, random), b(inner, columns, b_transposed, random);
    const Matrix bias(1, columns, false, random), add(rows, columns, false, random), y(rows, columns, false, random);
    const int64_t c_row = columns + 2;
    std::vector<float> c(rows * c_row, kUntouched), pieces = c;
    DenseProduct p = {};
    p.a = a.first(), p.a_row = a.row, p.a_inner = a.column, p.b = b.first(), p.b_inner = b.row, p.b_column = b.column;
    p.c = c.data(), p.c_row = c_row, p.rows = rows, p.inner = inner, p.columns = columns;
    if (with & 1) p.bias = bias.first();
    if (with & 2) p.add = add.first(), p.add_row = add.row;
    if (with & 4) p.elu = true;
    if (with & 8) p.elu_output = y.first(), p.elu_output_row = y.row;
    std::vector<float> packed(kernels.packed_size(p), kUntouched);
    float* at = packed.empty() ? nullptr : packed.data();
    if (at) kernels.pack(p, at);
    kernels.multiply(p, at, 0, rows);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < c_row; ++j) {
        const double got = c[i * c_row + j];
        if (j >= columns) {
          CHECK(got == kUntouched, "write past the end of a row: %g", got);
          continue;
        }
        double sum = 0, magnitudes = 0;
        const auto term = [&](double value) { sum += value, magnitudes += std::fabs(value); };
        for (int64_t k = 0; k < inner; ++k) term(a.at(i, k) * b.at(k, j));
        if (with & 1) term(bias.at(0, j));
        if (with & 2) term(add.at(i, j));
        double expected = with & 4 ? (sum > 0 ? sum : std::expm1(sum)) : sum;
        const double slope = with & 8 ? std::fmin(0, y.at(i, j)) + 1 : 1;
        expected *= slope;
        const double roundings = magnitudes * (2 + std::sqrt(double(inner))) + 1;
        const double bound = Element<float>::epsilon * std::fabs(slope) * roundings;
        const double error = std::fabs(got - expected);
        worst = std::fmax(worst, error / bound);
        CHECK(error <= bound, "[%lld, %lld] x [%lld, %lld] at %lld, %lld (with %d): got %.9g, expected %.9g",
              (long long)rows, (long long)inner, (long long)inner, (long long)columns, (long long)i, (long long)j, with,
              got, expected);
      }
    }
    p.c = pieces.data();
    for (int64_t begin = 0, step = 1; begin < rows; begin += step, step += 3)
      kernels.multiply(p, at, begin, std::min(begin + step, rows));
    CHECK(same_bits(c, pieces), "[%lld, %lld, %lld]: the result depends on the row ranges", (long long)rows,
          (long long)inner, (long long)columns);
  }
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void check_near(double got, double expected, double magnitude, const char* what) {
  CHECK(std::fabs(got - expected) <= 8 * Element<float>::epsilon * magnitude, "%s: got %.9g, expected %.9g", what, got,
        expected);
}

void check_gates(const DenseKernels& kernels, int64_t rows, int64_t n, double scale, Random& random) {
  const auto numbers = [&](int64_t count, double by) { return encoded<float>(random.normals(count, by)); };
  const std::vector<float> input_gates = numbers(rows * 3 * n, scale), state = numbers(rows * n, 1);
  const std::vector<float> before = numbers(rows * 3 * n, scale), grad_next = numbers(rows * n, 1);
  std::vector<float> gates = before, candidate(rows * n), next(rows * (n + 1), kUntouched);
  GruGates forward = {input_gates.data(), state.data(), gates.data(), candidate.data(), next.data(), rows, n, 3 * n,
                      3 * n, n, n + 1};
  kernels.gru_gates(forward, 0, rows / 2);
  kernels.gru_gates(forward, rows / 2, rows);
  std::vector<float> grad_gates(rows * 4 * n), grad_state(rows * n);
  GruGatesBackward backward = {grad_next.data(), gates.data(), candidate.data(), state.data(), grad_gates.data(),
                               grad_state.data(), rows, n, n, 3 * n, n};
  kernels.gru_gates_backward(backward, 0, rows / 2);
  kernels.gru_gates_backward(backward, rows / 2, rows);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const auto third = [&](const std::vector<float>& x, int k) { return double(x[i * 3 * n + k * n + j]); };
      const double reset = sigmoid(third(input_gates, 0) + third(before, 0));
      const double update = sigmoid(third(input_gates, 1) + third(before, 1)), recurrent = third(before, 2);
      const double new_value = std::tanh(third(input_gates, 2) + reset * recurrent), h = state[i * n + j];
      const double size = 1 + scale * 8;  // large sums are rounded before the sigmoid
      check_near(third(gates, 0), reset, size, "reset");
      check_near(third(gates, 1), update, size, "update");
      CHECK(third(gates, 2) == recurrent, "the candidate third of hidden_gates was changed");
      check_near(candidate[i * n + j], new_value, size, "candidate");
      check_near(next[i * (n + 1) + j], (1 - update) * new_value + update * h, size * (std::fabs(h) + 2), "next");
      // Gradients, computed from the stored gates.
      const double r = third(gates, 0), u = third(gates, 1), x = candidate[i * n + j], g = grad_next[i * n + j];
      const double grad_candidate = g * (1 - u) * (1 - x * x), large = std::fabs(g);
      const float* row = grad_gates.data() + i * 4 * n + j;
      check_near(row[0], grad_candidate * r, large, "gradient of the candidate by the state");
      check_near(row[n], grad_candidate * recurrent * r * (1 - r), large * std::fabs(recurrent), "gradient of reset");
      check_near(row[2 * n], g * (h - x) * u * (1 - u), large * (std::fabs(h) + 1), "gradient of update");
      check_near(row[3 * n], grad_candidate, large, "gradient of the candidate");
      check_near(grad_state[i * n + j], g * u, large, "gradient of the state");
    }
    CHECK(next[i * (n + 1) + n] == kUntouched, "write past the end of a row");
  }
}

void test(const InstructionSet& set) {
  Random random{1};
  ProductTest product{set.kernels.dense};
  const int64_t sizes[] = {1, 2, 3, 5, 6, 7, 13, 17, 31, 64, 65, 79, 130};
  int with = 0;
  for (const int64_t rows : {1, 2, 3, 6, 7, 11, 29})
    for (const int64_t inner : {0, 1, 3, 4, 18, 67})
      for (const int64_t columns : sizes)
        for (const int layout : {0, 1, 2, 3})
          product.check(rows, inner, columns, layout & 1, layout & 2, with++ % 16, random);
  std::printf("product: worst error %.2f of the bound\n", product.worst);
  for (const int64_t n : sizes)
    for (const double scale : {1.0, 60.0}) check_gates(set.kernels.dense, 5, n, scale, random);
}

}  // namespace

int main() { return run(test); }
