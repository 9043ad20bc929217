"""A multilayer perceptron in one call, the module that replaces its ``nn.Sequential``, and the cell of a GRU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext import _native
from automl_ext.ops._checks import (
    autocast_enabled,
    check_bool,
    check_count,
    check_float_tensor,
    describe,
    is_sequence,
    shown,
    wrong_device,
)

# Name: the function and the module of each activation. The compiled op gets its position in this list.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], type[nn.Module]]] = {
    "tanh": (torch.tanh, nn.Tanh),
    "relu": (torch.relu, nn.ReLU),
    "elu": (F.elu, nn.ELU),
    "gelu": (F.gelu, nn.GELU),
    "silu": (F.silu, nn.SiLU),
}
_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    activation: str = "tanh",
    *,
    activate_last: bool = False,
    stacked_x: bool = False,
) -> Tensor:
    """Apply linear layers with an activation between them: ``x → act(x W₁ᵀ + b₁) → … → … Wₙᵀ + bₙ``.

    Several networks of equal shape run as one if their parameters are stacked, for example the two critics of an agent.
    Networks that differ in their last layer share one call for their hidden layers, with ``activate_last=True``, and
    apply their last layers separately.

    In float32, the error relative to the largest value is at most 1e-6 for inputs and weights of usual size. On a CPU,
    results are bitwise equal for any number of threads.

    Args:
        x: [..., inputs].
        weights: one [outputs, inputs] per layer, or [E, outputs, inputs] for E networks.
        biases: one [outputs] per layer, or [E, outputs] for E networks. None: no layer has a bias.
        activation: ``"tanh"``, ``"relu"``, ``"elu"`` (with α = 1), ``"gelu"`` (exact, with erf) or ``"silu"``.
        activate_last: whether the activation follows the last layer too.
        stacked_x: whether x is [E, ..., inputs], with a different input for each of the E networks. Otherwise all
            networks get the same x.

    Returns:
        [..., outputs], or [E, ..., outputs] for E networks.

    Raises:
        ValueError: no layers, an unknown activation, or shapes or devices that do not fit together.
        TypeError: an argument is not a float tensor, or dtypes differ. Under autocast, they may differ.
    """
    if _native.calls_directly(x):
        try:  # the kernel checks its arguments too, faster
            shifts = () if biases is None else tuple(biases) or (None,)  # for the kernel, an empty tuple is None
            y: Tensor = _native.autograd.mlp(x, weights, shifts, _CODES[activation], activate_last, stacked_x)
            return y
        except Exception:
            _check_mlp(x, weights, biases, activation, activate_last, stacked_x)
            raise
    _check_mlp(x, weights, biases, activation, activate_last, stacked_x)
    if _native.use_native(x):
        code = _CODES[activation]
        y = torch.ops.automl_ext.mlp.default(x, list(weights), list(biases or ()), code, activate_last, stacked_x)
        return y
    return mlp_reference(x, weights, biases, ACTIVATIONS[activation][0], activate_last, stacked_x)


def mlp_reference(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    activation: Callable[[Tensor], Tensor],
    activate_last: bool,
    stacked_x: bool,
) -> Tensor:
    stack = weights[0].ndim == 3
    y = x
    if stack:  # [E, N, inputs]
        separate = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1]) if stacked_x else _matrix(x)
        y = separate.expand(len(weights[0]), -1, -1)
    for i, weight in enumerate(weights):
        bias = None if biases is None else biases[i]
        if not stack:
            y = F.linear(y, weight, bias)
        elif bias is None:
            y = torch.bmm(y, weight.mT)
        else:
            y = torch.baddbmm(bias.unsqueeze(1), y, weight.mT)
        if activate_last or i + 1 < len(weights):
            y = activation(y)
    if not stack:
        return y
    return y.reshape(len(weights[0]), *(x.shape[1:-1] if stacked_x else x.shape[:-1]), y.shape[-1])


def _matrix(x: Tensor) -> Tensor:
    """Return [..., n] as [N, n]. A size of −1 would be ambiguous for n = 0."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _check_mlp(
    x: object, weights: object, biases: object, activation: object, activate_last: object, stacked_x: object
) -> None:
    """Raise the error for invalid arguments of :func:`mlp`."""
    check_float_tensor(x, "x", "mlp")
    x = cast(Tensor, x)
    if not isinstance(activation, str):
        raise TypeError(f"mlp: activation: expected a str, got {describe(activation)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"mlp: activation: expected one of {', '.join(ACTIVATIONS)}, got {shown(activation)}")
    check_bool(activate_last, "activate_last", "mlp")
    check_bool(stacked_x, "stacked_x", "mlp")
    layers = _tensors(weights, "weights", x)
    if not layers:
        raise ValueError("mlp: weights: expected at least one layer, got none")
    if layers[0].ndim not in (2, 3):
        raise ValueError(
            f"mlp: weights[0]: expected shape [outputs, inputs] or [E, outputs, inputs], got {tuple(layers[0].shape)}"
        )
    networks = tuple(layers[0].shape[:-2])  # (E,), or () without a stack
    if stacked_x and (not networks or x.ndim < 2 or x.shape[0] != networks[0]):
        raise ValueError(
            f"mlp: stacked_x: expected x of shape [E, ..., inputs] and weights [E, outputs, inputs], "
            f"got {tuple(x.shape)} and {tuple(layers[0].shape)}"
        )
    inputs = _last(x)
    for i, weight in enumerate(layers):
        if weight.ndim != len(networks) + 2 or weight.shape[:-2] != networks or weight.shape[-1] != inputs:
            expected = [*networks, "outputs", inputs]
            raise ValueError(f"mlp: weights[{i}]: expected shape [{_joined(expected)}], got {tuple(weight.shape)}")
        inputs = weight.shape[-2]
    if biases is None:
        return
    shifts = _tensors(biases, "biases", x)
    if len(shifts) != len(layers):
        raise ValueError(f"mlp: biases: expected as many as weights ({len(layers)}), got {len(shifts)}")
    for i, (bias, weight) in enumerate(zip(shifts, layers, strict=True)):
        if bias.shape != weight.shape[:-1]:
            raise ValueError(f"mlp: biases[{i}]: expected shape {tuple(weight.shape[:-1])}, got {tuple(bias.shape)}")


def _joined(shape: Iterable[object]) -> str:
    return ", ".join(map(str, shape))


def _last(x: Tensor) -> int:
    if x.ndim == 0:
        raise ValueError("mlp: x: expected shape [..., inputs], got a tensor without dimensions")
    return int(x.shape[-1])


def _tensors(values: object, name: str, x: Tensor) -> list[Tensor]:
    """Return a sequence of float tensors in the dtype and on the device of x."""
    if isinstance(values, Tensor) or not is_sequence(values):
        raise TypeError(f"mlp: {name}: expected a sequence of tensors, got {describe(values)}")
    tensors = list(cast(Iterable[Tensor], values))
    for i, value in enumerate(tensors):
        _check_like(value, f"{name}[{i}]", x, "mlp")
    return tensors


def _check_like(value: object, name: str, x: Tensor, op: str) -> None:
    """Raise unless ``value`` is a float tensor in the dtype and on the device of x."""
    check_float_tensor(value, name, op)
    value = cast(Tensor, value)
    if value.device != x.device:
        raise wrong_device(value, name, op, x)
    if value.dtype != x.dtype and not autocast_enabled(x):
        raise TypeError(f"{op}: {name}: expected {x.dtype} as x, got {value.dtype}")


def gru_cell(
    x: Tensor,
    h: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """Compute the next state of a gated recurrent unit, as :class:`torch.nn.GRUCell` does.

    The rows of the weights are in the order reset, update, candidate. With r = σ(W_ir x + b_ir + W_hr h + b_hr), z =
    σ(W_iz x + b_iz + W_hz h + b_hz) and n = tanh(W_in x + b_in + r (W_hn h + b_hn)), the result is (1 − z) n + z h (Cho
    et al. 2014).

    Args:
        x: [..., inputs].
        h: the state, [..., n].
        w_ih: [3 n, inputs].
        w_hh: [3 n, n].
        b_ih, b_hh: [3 n]; both or neither.

    Returns:
        The next state, [..., n].

    Raises:
        ValueError: shapes or devices do not fit together, or only one bias is given.
        TypeError: an argument is not a float tensor, or dtypes differ. Under autocast, they may differ.
    """
    if _native.calls_directly(x):
        try:
            y: Tensor = _native.autograd.gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
            return y
        except Exception:
            _check_gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
            raise
    _check_gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
    if _native.use_native(x):
        y = torch.ops.automl_ext.gru_cell.default(x, h, w_ih, w_hh, b_ih, b_hh)
        return y
    return gru_cell_reference(x, h, w_ih, w_hh, b_ih, b_hh)


def gru_cell_reference(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> Tensor:
    # Not torch.gru_cell: it has no batching rule in forward mode.
    reset_x, update_x, new_x = F.linear(x, w_ih, b_ih).chunk(3, -1)
    reset_h, update_h, new_h = F.linear(h, w_hh, b_hh).chunk(3, -1)
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
    return new + update * (h - new)


def _check_gru_cell(x: object, h: object, w_ih: object, w_hh: object, b_ih: object, b_hh: object) -> None:
    """Raise the error for invalid arguments of :func:`gru_cell`."""
    check_float_tensor(x, "x", "gru_cell")
    x = cast(Tensor, x)
    for name, value in (("h", h), ("w_ih", w_ih), ("w_hh", w_hh), ("b_ih", b_ih), ("b_hh", b_hh)):
        if value is not None or not name.startswith("b"):
            _check_like(value, name, x, "gru_cell")
    if (b_ih is None) != (b_hh is None):
        raise ValueError("gru_cell: b_hh: expected both biases or neither, got one")
    h = cast(Tensor, h)
    for name, value in (("x", x), ("h", h)):
        if value.ndim == 0:
            raise ValueError(f"gru_cell: {name}: expected at least one dimension, got a tensor without dimensions")
    if h.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"gru_cell: h: expected shape [{_joined([*x.shape[:-1], 'n'])}], got {tuple(h.shape)}")
    n, inputs = h.shape[-1], x.shape[-1]
    for name, value, shape in (
        ("w_ih", w_ih, (3 * n, inputs)),
        ("w_hh", w_hh, (3 * n, n)),
        ("b_ih", b_ih, (3 * n,)),
        ("b_hh", b_hh, (3 * n,)),
    ):
        if value is not None and tuple(cast(Tensor, value).shape) != shape:
            raise ValueError(f"gru_cell: {name}: expected shape {shape}, got {tuple(cast(Tensor, value).shape)}")


def _settings(module: nn.Module | None) -> tuple[type, dict[str, object]]:
    """Return the type of an activation and the settings that change its values."""
    public = {} if module is None else {k: v for k, v in vars(module).items() if not k.startswith("_")}
    return type(module), {k: v for k, v in public.items() if k not in ("training", "inplace")}


def _check_size(value: object, name: str) -> int:
    """Return the size of a layer."""
    size = check_count(value, name, "FusedMLP")
    if size >= 2**63:
        raise ValueError(f"FusedMLP: {name}: expected an int of 64 bits, got {shown(size)}")
    return size


class FusedMLP(nn.Sequential):
    """A multilayer perceptron, computed by one call of :func:`mlp`.

    It contains the modules of the ``nn.Sequential`` that it replaces, so its ``state_dict``, its initialization and its
    use of random numbers are the same. The forward pass reads their parameters and does not call them, unless one of
    them has a hook: then they run one by one. Layers whose weight is computed (a parametrization, pruning) are refused.
    A module may only be replaced by one of the same type and settings, and none can be added or removed;
    ``nn.Sequential(*network)`` and slices are plain containers of the same modules.

    Args:
        inputs: number of inputs.
        hidden: number of units of each hidden layer.
        outputs: number of outputs.
        activation: as in :func:`mlp`.

    Raises:
        ValueError: a size below 1, or an unknown activation.
        TypeError: a size is not an int, or the activation is not a str.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: str = "tanh") -> None:
        if not isinstance(activation, str):
            raise TypeError(f"FusedMLP: activation: expected a str, got {describe(activation)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"FusedMLP: activation: expected one of {', '.join(ACTIVATIONS)}, got {shown(activation)}")
        if not is_sequence(hidden):
            raise TypeError(f"FusedMLP: hidden: expected a sequence of ints, got {describe(hidden)}")
        named = [("inputs", inputs), *((f"hidden[{i}]", units) for i, units in enumerate(hidden)), ("outputs", outputs)]
        sizes = [_check_size(size, name) for name, size in named]
        modules: list[nn.Module] = []
        for before, after in pairwise(sizes):
            modules += [nn.Linear(before, after), ACTIVATIONS[activation][1]()]
        super().__init__(*modules[:-1])
        self.activation = activation

    @classmethod
    def from_sequential(cls, network: nn.Sequential) -> FusedMLP:
        """Return a FusedMLP of the modules of ``network``: both share their parameters.

        Args:
            network: ``nn.Linear`` layers with a bias, and the same activation after each but the last. An activation
                with ``inplace=True`` is treated as one without.

        Raises:
            TypeError: ``network`` is not an ``nn.Sequential``, or contains other modules.
            ValueError: the layers' sizes do not fit together.
        """
        if not isinstance(network, nn.Sequential):
            raise TypeError(f"FusedMLP: network: expected an nn.Sequential, got {describe(network)}")
        modules = list(network)
        first = _settings(modules[1]) if len(modules) > 1 else None
        name = next((name for name, (_, kind) in ACTIVATIONS.items() if _settings(kind()) == first), None)
        inputs: int | None = None
        for i in range(max(1, len(modules) + 1 - len(modules) % 2)):  # an even number lacks its last layer
            module = modules[i] if i < len(modules) else None
            if i % 2:
                if name is None or _settings(module) != first:
                    expected = " or ".join(repr(kind()) for _, kind in ACTIVATIONS.values())
                    expected = expected if name is None else repr(modules[1])
                    raise TypeError(f"FusedMLP: network[{i}]: expected {expected}, got {module!r}")
                continue
            if type(module) is not nn.Linear or module.bias is None:
                got = "the end" if module is None else repr(module)
                raise TypeError(f"FusedMLP: network[{i}]: expected a Linear with a bias, got {got}")
            if inputs not in (None, module.in_features):
                raise ValueError(f"FusedMLP: network[{i}]: expected {inputs} inputs, got {module!r}")
            inputs = module.out_features
        fused = cls.__new__(cls)
        nn.Sequential.__init__(fused, *modules)
        fused.activation = name or next(iter(ACTIVATIONS))
        return fused.train(network.training)

    def __getitem__(self, index: Any) -> Any:
        """Return a module, or an ``nn.Sequential`` of several."""
        return nn.Sequential(*self)[index] if isinstance(index, slice) else super().__getitem__(index)

    def __setattr__(self, name: str, value: Any) -> None:
        """Replace a module by one of the same type and, but for the sizes of a layer, the same settings."""
        if "activation" in self.__dict__ and (isinstance(value, nn.Module) or name in self._modules):
            old = self._modules.get(name)
            if old is None:
                self._refuse()
            linear = isinstance(old, nn.Linear)
            # A copy by nn.parallel.replicate gets its bias later.
            changed = getattr(value, "bias", value) is None if linear else repr(value) != repr(old)
            if type(value) is not type(old) or changed:
                expected = "Linear with a bias" if linear else repr(old)
                raise TypeError(f"FusedMLP: module {name}: expected another {expected}, got {value!r}")
        super().__setattr__(name, value)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        if "activation" in self.__dict__:
            self._refuse()
        super().add_module(name, module)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("FusedMLP: its modules are fixed; change nn.Sequential(*network) instead")

    append = insert = extend = pop = __delitem__ = __iadd__ = __imul__ = _refuse  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., outputs] from x, [..., inputs]."""
        modules = cast(list[nn.Module], list(self._modules.values()))
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules):
            y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return y
        layers = modules[::2]
        # A look-up in the dictionary is faster than that of a module's attribute.
        try:
            weights = cast(list[Tensor], [layer._parameters["weight"] for layer in layers])
            biases = cast(list[Tensor], [layer._parameters["bias"] for layer in layers])
        except KeyError as error:
            raise TypeError(
                f"FusedMLP: a layer's {error.args[0]} is computed, not a parameter; use nn.Sequential(*network)"
            ) from None
        return mlp(x, weights, biases, self.activation)  # no parameter is None
