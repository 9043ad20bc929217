// CPU entry functions of multilayer perceptrons.

#include "mlp.h"
#include "mlp_entry.h"

namespace automl_ext::mlp_cpu {
namespace {

constexpr const char* kOp = "mlp";
constexpr int64_t kBlock = 84;  // rows of a block, whose activation follows its product: whole tiles of all kernels
// Packing a weight for the forward pass transposes it, which takes as long as the sums across lanes of scalar products if
// there is one row for this number of inputs.
constexpr int64_t kInputsPerRow = 10;
constexpr int64_t kFewRows = 28;  // up to this number of rows, copies for the backward pass take longer than they save

// x, or a copy whose last dim is contiguous.
Tensor with_rows(const Tensor& x) { return x.stride(-1) == 1 || x.size(-1) <= 1 ? x : contiguous(x); }

// The sizes and the tensors of a call. All networks of a stack have the same sizes.
struct Call {
  struct Layer {
    Tensor weight, bias;
    int64_t inputs, outputs, weight_row, weight_network, bias_network;
    const void *weights, *biases;  // null without biases
  };
  Tensor x;
  std::vector<Layer> all;
  int64_t networks = 1, rows = 1, x_row = 0, x_network = 0, activation;
  bool stack, stacked_x, activate_last, needs_slopes;
  int64_t kept = 0;  // number of elements that are kept for the gradient, for each network and row

  Call(const Tensor& input, TensorList all_weights, TensorList all_biases, int64_t f, bool last, bool separate)
      : activation(f), stacked_x(separate), activate_last(last), needs_slopes(keeps_slope(f)) {
    CHECK_VALUE(!all_weights.empty(), kOp, ": weights: expected at least one layer, got none");
    CHECK_VALUE(all_biases.empty() || all_biases.size() == all_weights.size(), kOp,
                ": biases: expected as many as weights (", all_weights.size(), "), got ", all_biases.size());
    CHECK_VALUE(0 <= f && f < kActivations, kOp, ": activation: expected a code below ", int(kActivations), ", got ",
                f);
    CHECK_VALUE(input.dim() > 0, kOp, ": x: expected shape [..., inputs], got a tensor without dimensions");
    stack = all_weights[0].dim() == 3;
    networks = stack ? all_weights[0].size(0) : 1;
    CHECK_VALUE(!separate || (stack && input.dim() > 1 && input.size(0) == networks), kOp,
                ": stacked_x: expected x [E, ..., inputs] and weights [E, outputs, inputs], got ", input.sizes(),
                " and ", all_weights[0].sizes());
    int64_t inputs = input.size(-1);
    all.reserve(all_weights.size());
    for (size_t i = 0; i < all_weights.size(); ++i) {
      const Tensor& w = all_weights[i];
      check_tensor(w, "weights", input);
      CHECK_VALUE(w.dim() == 2 + stack && w.size(-1) == inputs && (!stack || w.size(0) == networks), kOp, ": weights[",
                  i, "]: expected shape [", stack ? std::to_string(networks) + ", " : "", "outputs, ", inputs,
                  "], got ", w.sizes());
      Layer layer = {with_rows(w), {}, inputs, w.size(-2), 0, 0, 0, nullptr, nullptr};
      inputs = layer.outputs;
      layer.weights = layer.weight.const_data_ptr();
      const auto strides = layer.weight.strides();
      layer.weight_row = strides[stack], layer.weight_network = stack ? strides[0] : 0;
      all.push_back(std::move(layer));
      if (all_biases.empty()) continue;
      const Tensor& b = all_biases[i];
      check_tensor(b, "biases", input);
      CHECK_VALUE(b.dim() == 1 + stack && b.size(-1) == inputs && (!stack || b.size(0) == networks), kOp, ": biases[",
                  i, "]: expected shape ", w.sizes().slice(0, w.dim() - 1), ", got ", b.sizes());
      all.back().bias = with_rows(b);
      all.back().biases = all.back().bias.const_data_ptr();
      all.back().bias_network = stack ? all.back().bias.stride(0) : 0;
    }
    for (int64_t i = 0; i < layers(); ++i) {
      if (i + 1 < layers()) kept += outputs(i);
      if (needs_slopes && activated(i)) kept += outputs(i);
    }
    read_x(input);
  }

  int64_t layers() const { return int64_t(all.size()); }
  int64_t inputs(int64_t i) const { return all[i].inputs; }
  int64_t outputs(int64_t i) const { return all[i].outputs; }
  bool activated(int64_t i) const { return activate_last || i + 1 < layers(); }
  template <class T>
  const T* weight(int64_t i, int64_t network) const {
    return static_cast<const T*>(all[i].weights) + network * all[i].weight_network;
  }
  template <class T>
  const T* bias(int64_t i, int64_t network) const {
    return all[i].biases ? static_cast<const T*>(all[i].biases) + network * all[i].bias_network : nullptr;
  }
  int64_t weight_row(int64_t i) const { return all[i].weight_row; }
  template <class T>
  const T* input(int64_t network) const {
    return x.const_data_ptr<T>() + network * x_network;
  }
  // The shape of the result.
  std::vector<int64_t> sizes() const {
    std::vector<int64_t> all;
    if (stack) all.push_back(networks);
    for (int64_t i = stacked_x; i + 1 < x.dim(); ++i) all.push_back(x.size(i));
    all.push_back(outputs(layers() - 1));
    return all;
  }

 private:
  static void check_tensor(const Tensor& y, const char* name, const Tensor& like) {
    check_device(kOp, name, y, like);
    CHECK_TYPE(y.scalar_type() == like.scalar_type(), kOp, ": ", name, ": expected ", like.scalar_type(), " as x, got ",
               y.scalar_type());
  }
  // Sets rows and strides. A matrix with contiguous rows is read in place, other strides are copied.
  void read_x(const Tensor& input) {
    x = input.dim() <= 2 + stacked_x ? with_rows(input) : contiguous(input);
    for (int64_t i = stacked_x; i + 1 < x.dim(); ++i) rows *= x.size(i);
    x_row = x.dim() == 2 + stacked_x ? x.stride(-2) : x.size(-1);
    x_network = stacked_x ? x.stride(0) : 0;
  }
};

// Calls body(begin, end) for blocks of rows, in parallel. Blocks do not depend on the number of threads.
template <class Body>
void parallel_blocks(int64_t rows, int64_t multiplications, const Body& body) {
  parallel_rows((rows + kBlock - 1) / kBlock, kBlock * multiplications / 16, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) body(block * kBlock, std::min((block + 1) * kBlock, rows));
  });
}

// Memory for one packed weight.
template <class T>
Scratch packed_scratch(const Call& call) {
  const auto& kernels = mlp_kernels_of<T>();
  int64_t most = 0;
  for (int64_t i = 0; i < call.layers(); ++i)
    most = std::max({most, kernels.packed_size(call.inputs(i), call.outputs(i)),
                     kernels.packed_size(call.outputs(i), call.inputs(i))});
  return Scratch(most * sizeof(T));
}

// What the forward pass keeps of a network: outputs of layers, [rows, outputs] each, and slopes of activations.
template <class T>
struct Kept {
  std::vector<T*> outputs, slopes;  // null where there is nothing

  Kept(const Call& call, T* at) {
    for (int64_t i = 0; i < call.layers(); ++i) {
      const auto take = [&](bool present) {
        T* const here = present ? at : nullptr;
        if (present) at += call.rows * call.outputs(i);
        return here;
      };
      outputs.push_back(take(i + 1 < call.layers()));
      slopes.push_back(take(call.needs_slopes && call.activated(i)));
    }
  }
};

// keep: null, or where to write what the gradient needs, for all networks.
template <class T>
void forward(const Call& call, T* y, T* keep) {
  const auto& kernels = mlp_kernels_of<T>();
  const int64_t layers = call.layers(), rows = call.rows;
  if (rows == 0) return;
  int64_t widest = 0;
  for (int64_t i = 0; i + 1 < layers; ++i) widest = std::max(widest, call.outputs(i));
  const Scratch hidden(keep ? 0 : 2 * rows * widest * sizeof(T)), packed = packed_scratch<T>(call);
  for (int64_t network = 0; network < call.networks; ++network, y += rows * call.outputs(layers - 1)) {
    std::optional<Kept<T>> kept;
    if (keep) kept.emplace(call, keep + network * rows * call.kept);
    const T* x = call.input<T>(network);
    int64_t x_row = call.x_row;
    for (int64_t i = 0; i < layers; ++i) {
      const int64_t inputs = call.inputs(i), outputs = call.outputs(i);
      T* const out = i + 1 == layers ? y
                     : keep          ? kept->outputs[i]
                                     : static_cast<T*>(hidden.get()) + i % 2 * rows * widest;
      T* const slope = keep ? kept->slopes[i] : nullptr;
      MlpProduct<T> p = {x,
                         call.weight<T>(i, network),
                         out,
                         inputs,
                         outputs,
                         x_row,
                         1,
                         call.weight_row(i),
                         outputs,
                         call.bias<T>(i, network),
                         rows * kInputsPerRow > inputs,
                         false};
      if (p.packed) {
        T* const to = static_cast<T*>(packed.get());
        kernels.pack(p.b, p.b_row, inputs, outputs, to);
        p.b = to;
      }
      const auto multiply = p.packed ? kernels.multiply : kernels.multiply_transposed;
      parallel_blocks(rows, inputs * outputs, [&](int64_t begin, int64_t end) {
        multiply(p, begin, end);
        if (call.activated(i))
          kernels.activate(int(call.activation), out + begin * outputs, slope ? slope + begin * outputs : nullptr,
                           (end - begin) * outputs);
      });
      x = out, x_row = outputs;
    }
  }
}

// Where the gradients of one network are written; x is null if it needs none, weights are empty if they need none.
template <class T>
struct Gradients {
  T* x;
  bool add_x;  // to the gradients of the networks before
  std::vector<T*> weights, biases;
};

// The gradients of weights and biases of layer i, from the gradient of its products, grad [rows, outputs], and its inputs x.
template <class T>
void parameter_gradients(const Call& call, int64_t i, const T* grad, const T* x, int64_t x_row,
                         const Gradients<T>& to) {
  const auto& kernels = mlp_kernels_of<T>();
  const int64_t inputs = call.inputs(i), outputs = call.outputs(i), rows = call.rows;
  const MlpProduct<T> p = {grad, x, to.weights[i], rows, inputs, 1, outputs, x_row, inputs, nullptr, false, false};
  parallel_rows(outputs, rows * inputs / 16, [&](int64_t begin, int64_t end) {
    if (rows > kFewRows && outputs > kFewRows) {
      const Scratch copies(kernels.gradient_scratch(end - begin) * sizeof(T));
      kernels.multiply_gradient(p, begin, end, static_cast<T*>(copies.get()));
    } else {
      kernels.multiply(p, begin, end);
    }
    if (!to.biases.empty()) kernels.sum_rows(grad, outputs, rows, to.biases[i], begin, end);
  });
}

// grad: of the result, [rows, outputs]. y: the result; read only if the last layer is activated and keeps no slope.
template <class T>
void backward(const Call& call, int64_t network, const T* grad, const T* y, T* keep, const Gradients<T>& to) {
  const auto& kernels = mlp_kernels_of<T>();
  const int64_t layers = call.layers(), rows = call.rows;
  const Kept<T> kept(call, keep);
  int64_t widest = call.activate_last ? call.outputs(layers - 1) : 0;
  for (int64_t i = 0; i + 1 < layers; ++i) widest = std::max(widest, call.outputs(i));
  const Scratch grads(2 * rows * widest * sizeof(T)), packed = packed_scratch<T>(call);
  const auto buffer = [&](int64_t i) { return static_cast<T*>(grads.get()) + i % 2 * rows * widest; };
  // The gradient before the activation of layer i, from that after it; rows [begin, end).
  const auto apply_slope = [&](int64_t i, T* g, int64_t begin, int64_t end) {
    const T* const values = kept.slopes[i] ? kept.slopes[i] : i + 1 < layers ? kept.outputs[i] : y;
    const int64_t width = call.outputs(i);
    kernels.multiply_slope(int(call.activation), g + begin * width, values + begin * width, (end - begin) * width);
  };
  if (call.activate_last) {
    T* const g = buffer(layers - 1);
    std::copy(grad, grad + rows * call.outputs(layers - 1), g);
    apply_slope(layers - 1, g, 0, rows);
    grad = g;
  }
  for (int64_t i = layers - 1; i >= 0; --i) {
    const int64_t inputs = call.inputs(i), outputs = call.outputs(i);
    if (!to.weights.empty())
      parameter_gradients(call, i, grad, i > 0 ? kept.outputs[i - 1] : call.input<T>(network),
                          i > 0 ? inputs : call.x_row, to);
    if (i == 0 && !to.x) break;
    T* const out = i > 0 ? buffer(i - 1) : to.x;
    MlpProduct<T> p = {grad, call.weight<T>(i, network), out,    outputs, inputs,        outputs,
                       1,    call.weight_row(i),         inputs, nullptr, rows > kBlock, i == 0 && to.add_x};
    if (p.packed) {
      T* const copy = static_cast<T*>(packed.get());
      kernels.pack_rows(p.b, p.b_row, outputs, inputs, copy);
      p.b = copy;
    }
    parallel_blocks(rows, inputs * outputs, [&](int64_t begin, int64_t end) {
      kernels.multiply(p, begin, end);
      if (i > 0) apply_slope(i - 1, out, begin, end);
    });
    grad = out;
  }
}

Tensor mlp(const Tensor& x, TensorList weights, TensorList biases, int64_t activation, bool activate_last,
           bool stacked_x) {
  if (!has_kernel(x))
    return call_op("automl_ext::_mlp_composite", "",
                   {from_tensor(x), from_tensors(weights), from_tensors(biases), stable::from(activation),
                    stable::from(activate_last), stable::from(stacked_x)});
  const Call call(x, weights, biases, activation, activate_last, stacked_x);
  Tensor y = empty(call.sizes(), x);
  by_type(x, [&](auto t) { forward<decltype(t)>(call, y.mutable_data_ptr<decltype(t)>(), nullptr); });
  return y;
}

std::tuple<Tensor, Tensor> mlp_trained(const Tensor& x, TensorList weights, TensorList biases, int64_t activation,
                                       bool activate_last, bool stacked_x) {
  const Call call(x, weights, biases, activation, activate_last, stacked_x);
  Tensor y = empty(call.sizes(), x), kept = empty({call.networks * call.rows * call.kept}, x);
  by_type(x, [&](auto t) {
    using T = decltype(t);
    forward<T>(call, y.mutable_data_ptr<T>(), kept.mutable_data_ptr<T>());
  });
  return {y, kept};
}

std::vector<Tensor> mlp_backward(const Tensor& grad, const Tensor& x, TensorList weights, const Tensor& kept,
                                 const OptionalTensor& y, int64_t activation, bool activate_last, bool stacked_x,
                                 bool has_biases, bool needs_x, bool needs_parameters) {
  const Call call(x, weights, {}, activation, activate_last, stacked_x);
  const auto sizes = call.sizes();
  const auto check = [&](const char* name, const Tensor& given, IntList shape) {
    check_device("mlp backward", name, given, x);
    CHECK_TYPE(given.scalar_type() == x.scalar_type(), "mlp backward: ", name, ": expected ", x.scalar_type(), ", got ",
               given.scalar_type());
    CHECK_VALUE(abi::equal(given.sizes(), shape), "mlp backward: ", name, ": expected shape ", shape, ", got ",
                given.sizes());
  };
  check("grad", grad, sizes);
  check("kept", kept, {call.networks * call.rows * call.kept});
  const bool reads_y = activate_last && !call.needs_slopes;
  CHECK_VALUE(!reads_y || y, "mlp backward: y: expected the result, got none");
  if (reads_y) check("y", *y, sizes);
  const Tensor g = contiguous(grad), outputs = reads_y ? contiguous(*y) : Tensor(), saved = contiguous(kept);
  std::vector<Tensor> result;
  if (needs_x) result.push_back(call.networks ? empty(x.sizes(), x) : zeros(x.sizes(), x.scalar_type(), x));
  const size_t first = result.size();
  if (needs_parameters) {
    for (const auto& w : weights) result.push_back(empty(w.sizes(), x));
    if (has_biases)
      for (const auto& w : weights) result.push_back(empty(w.sizes().slice(0, w.dim() - 1), x));
  }
  by_type(x, [&](auto t) {
    using T = decltype(t);
    const int64_t of_result = call.rows * call.outputs(call.layers() - 1), of_x = call.rows * x.size(-1);
    for (int64_t network = 0; network < call.networks; ++network) {
      Gradients<T> to = {};
      if (needs_x) to.x = result[0].mutable_data_ptr<T>() + (stacked_x ? network * of_x : 0);
      to.add_x = !stacked_x && network > 0;
      for (size_t i = first; i < result.size(); ++i) {
        T* const at = result[i].mutable_data_ptr<T>() + network * (result[i].numel() / call.networks);
        (i < first + weights.size() ? to.weights : to.biases).push_back(at);
      }
      backward<T>(call, network, g.const_data_ptr<T>() + network * of_result,
                  reads_y ? outputs.const_data_ptr<T>() + network * of_result : nullptr,
                  const_cast<T*>(saved.const_data_ptr<T>()) + network * call.rows * call.kept, to);
    }
  });
  return result;
}

}  // namespace
}  // namespace automl_ext::mlp_cpu

STABLE_TORCH_LIBRARY_FRAGMENT(automl_ext, m) {
  // x is [..., inputs], or [E, ..., inputs] with stacked_x; weights are [outputs, inputs] or [E, outputs, inputs]; biases are
  // [outputs] or [E, outputs], as many as weights or none. activation: see csrc/mlp/mlp.h.
  m.def(
      "mlp(Tensor x, Tensor[] weights, Tensor[] biases, int activation, bool activate_last, bool stacked_x) -> Tensor");
  // By torch's own ops, for other dtypes than those of the kernels.
  m.def(
      "_mlp_composite(Tensor x, Tensor[] weights, Tensor[] biases, int activation, bool activate_last, bool stacked_x) "
      "-> Tensor");
  // Called if a gradient is needed. kept: outputs and slopes of the layers, for _backward only.
  m.def(
      "_mlp_trained(Tensor x, Tensor[] weights, Tensor[] biases, int activation, bool activate_last, bool stacked_x) "
      "-> (Tensor y, Tensor kept)");
  // y is read if activate_last, unless the activation keeps its slope. Returns the gradients of x, the weights and the
  // biases, without those that are not needed.
  m.def(
      "_mlp_backward(Tensor grad, Tensor x, Tensor[] weights, Tensor kept, Tensor? y, int activation, bool "
      "activate_last, "
      "bool stacked_x, bool has_biases, bool needs_x, bool needs_parameters) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(automl_ext, CPU, m) {
  using namespace automl_ext;
  using namespace automl_ext::mlp_cpu;
  implement<mlp>(m, "mlp", true);
  implement<mlp_trained>(m, "_mlp_trained", true);
  implement<mlp_backward>(m, "_mlp_backward", true);
}
