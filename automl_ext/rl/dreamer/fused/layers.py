"""Dense layers and GRU gates without autograd: forward passes and gradients.

The compiled library (``csrc/dense``) computes them in float32 on the CPU. It fuses a layer's bias and ELU, and the
slope of ELU in the gradient, into the matrix product. PyTorch computes them for other dtypes, on other devices and with
the backend ``reference``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext import _native

if _native.is_loaded():
    from automl_ext import _C  # type: ignore[attr-defined,unused-ignore]


def compiled(x: Tensor) -> bool:
    """Return whether the compiled library computes with tensors like ``x``."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and _native.use_native(x)


def dense(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None, elu: bool = False
) -> Tensor:
    """Compute x Wᵀ + bias + add, followed by ELU if ``elu``.

    Args:
        x: [N, inputs].
        weight: W, [outputs, inputs].
        bias: [outputs].
        add: [N, outputs].

    Returns:
        [N, outputs].
    """
    if compiled(x):
        return _C.dense_product(x, weight.t(), bias, add, None, elu)
    y = F.linear(x, weight, bias)
    y = y if add is None else y.add_(add)
    return F.elu_(y) if elu else y


def dense_backward(gradient: Tensor, weight: Tensor, y: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """Compute the gradient of a dense layer's inputs, gradient W + add.

    Args:
        gradient: gradient of the outputs, [N, outputs].
        weight: W, [outputs, inputs].
        y: the inputs, if they are the outputs of ELU, y = ELU(z). The result is then the gradient of z.
        add: gradient of the inputs from other paths, [N, inputs].
    """
    if compiled(gradient):
        return _C.dense_product(gradient, weight, None, add, y)
    grad_inputs = gradient @ weight
    grad_inputs = grad_inputs if add is None else grad_inputs.add_(add)
    return grad_inputs if y is None else grad_inputs.mul_(y.clamp_max(0).add_(1))


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Compute a dense layer's weight gradient, gradientᵀ x: [N, outputs] and [N, inputs] → [outputs, inputs]."""
    if compiled(gradient):
        return _C.dense_product(gradient.t(), x)
    return gradient.t() @ x


def gru_gates(from_input: Tensor, from_state: Tensor, state: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the next state of a GRU from its two matrix products, as :func:`torch.nn.GRUCell` does.

    ``from_state`` is overwritten.

    Args:
        from_input, from_state: the products of input and state, [N, 3 n]: reset, update and candidate.
        state: [N, n].
        out: receives the next state, [N, n].

    Returns:
        Two tensors for :func:`gru_gates_backward`. gates [N, 3 n]: reset, update, and the candidate's product with the
        state. candidate [N, n].
    """
    if compiled(state):
        return _C.gru_gates(from_input, from_state, state, out)
    n = state.shape[1]
    from_state[:, : 2 * n].add_(from_input[:, : 2 * n]).sigmoid_()
    reset, update, candidate_from_state = from_state.split(n, 1)
    candidate = torch.addcmul(from_input[:, 2 * n :], reset, candidate_from_state).tanh_()
    torch.lerp(candidate, state, update, out=out)
    return from_state, candidate


def gru_gates_backward(gradient: Tensor, gates: Tensor, candidate: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of :func:`gru_gates`.

    Args:
        gradient: gradient of the next state, [N, n].
        gates, candidate: the results of :func:`gru_gates`.
        state: [N, n].

    Returns:
        The gradients of the products, [N, 4 n]: candidate (state's part), reset, update, candidate (input's part).
        Columns n to 4 n are the gradient of ``from_input``. Columns 0 to 3 n are the gradient of ``from_state`` in the
        order candidate, reset, update.
        The direct gradient of ``state``, [N, n], without the part that flows through the product of the state.
    """
    if compiled(gradient):
        return _C.gru_gates_backward(gradient, gates, candidate, state)
    reset, update, candidate_from_state = gates.split(candidate.shape[1], 1)
    grad_state = gradient * update
    grad_candidate = (gradient - grad_state) * (1 - candidate.square())
    grad_reset = grad_candidate * candidate_from_state * reset * (1 - reset)
    grad_update = gradient * (state - candidate) * update * (1 - update)
    return torch.cat([grad_candidate * reset, grad_reset, grad_update, grad_candidate], 1), grad_state
