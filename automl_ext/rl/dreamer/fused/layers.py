"""What networks are made of, without autograd: dense layers and the GRU's gates, and their gradients.

On CPUs in float32 the compiled library does them (``csrc/dense``): a layer's bias and ELU, and in the gradient ELU's
slope, while a tile of the product is in registers. For other dtypes, on other devices and with the backend
``reference`` it is torch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext import _native

if _native.is_loaded():
    from automl_ext import _C  # type: ignore[attr-defined,unused-ignore]


def compiled(x: Tensor) -> bool:
    """Whether the library takes tensors like ``x``."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and _native.use_native(x)


def dense(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None, elu: bool = False
) -> Tensor:
    """x Wᵀ + b + add, after ELU if asked for: x [N, inputs], weight [outputs, inputs] → [N, outputs]."""
    if compiled(x):
        return _C.dense_product(x, weight.t(), bias, add, None, elu)
    y = F.linear(x, weight, bias)
    y = y if add is None else y.add_(add)
    return F.elu_(y) if elu else y


def dense_backward(gradient: Tensor, weight: Tensor, y: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """gradient W + add, the gradient of a layer's inputs; where these are y = ELU(z), that of z."""
    if compiled(gradient):
        return _C.dense_product(gradient, weight, None, add, y)
    of_inputs = gradient @ weight
    of_inputs = of_inputs if add is None else of_inputs.add_(add)
    return of_inputs if y is None else of_inputs.mul_(y.clamp_max(0).add_(1))


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """gradientᵀ x, [N, outputs] and [N, inputs] → [outputs, inputs]."""
    if compiled(gradient):
        return _C.dense_product(gradient.t(), x)
    return gradient.t() @ x


def gru_gates(of_input: Tensor, of_state: Tensor, state: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """What a GRU does after its two products, as :func:`torch.nn.GRUCell`; it overwrites ``of_state``.

    Args:
        of_input, of_state: the products, [N, 3 n], of reset, update and new.
        state: [N, n].
        out: where the next state goes, [N, n].

    Returns:
        For the gradient: ``of_state``, with the gates in the place of their two thirds, and new.
    """
    if compiled(state):
        return _C.gru_gates(of_input, of_state, state, out)
    n = state.shape[1]
    of_state[:, : 2 * n].add_(of_input[:, : 2 * n]).sigmoid_()
    reset, update, new_of_state = of_state.split(n, 1)
    new = torch.addcmul(of_input[:, 2 * n :], reset, new_of_state).tanh_()
    torch.lerp(new, state, update, out=out)
    return of_state, new


def gru_gates_backward(gradient: Tensor, gates: Tensor, new: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """From the next state's gradient that of the two products, and that of the state beside its product's.

    Returns:
        [N, 4 n]: of new by the state, of reset, of update, of new by the input. The last three are the gradient of
        ``of_input``; the first three that of ``of_state``, but with new before the two others.
        [N, n].
    """
    if compiled(gradient):
        return _C.gru_gates_backward(gradient, gates, new, state)
    reset, update, new_of_state = gates.split(new.shape[1], 1)
    to_state = gradient * update
    of_new = (gradient - to_state) * (1 - new.square())
    of_reset = of_new * new_of_state * reset * (1 - reset)
    of_update = gradient * (state - new) * update * (1 - update)
    return torch.cat([of_new * reset, of_reset, of_update, of_new], 1), to_state
