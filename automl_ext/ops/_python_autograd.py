"""Gradients of the compiled ops in Python, for a version of torch that no autograd library was built for.

The formulas are those of csrc/*/*_autograd.cpp: a backward op, or PyTorch's own ops if the gradient is batched or must
be differentiable. Values are the same; a small call takes longer. For entmax, Gumbel sampling and mixed ops, the
formulas are written out: second derivatives by autograd from the references take more than 1.5 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd

from automl_ext.ops import _returns_reference as returns
from automl_ext.ops._checks import compute_dtype, wide
from automl_ext.ops.attention import attention_reference
from automl_ext.ops.entmax._bisect import CODES, bisect_reference
from automl_ext.ops.networks import ACTIVATIONS, gru_cell_reference, mlp_reference
from automl_ext.ops.policy import categorical_reference, loss_reference

ops = torch.ops.automl_ext
Grads = Sequence[Tensor | None]


def _differentiable(*grads: Tensor | None) -> bool:
    """Return whether the gradients must be differentiable or are batched, which the backward ops do not support."""
    batched = torch._C._functorch.is_batchedtensor
    return torch.is_grad_enabled() or any(g is not None and batched(g) for g in grads)


def _vjp(function: Callable[..., Any], inputs: Sequence[Tensor], grads: Grads) -> tuple[Tensor, ...]:
    """Return the gradients of ``inputs`` from those of the outputs of ``function``; None is zero."""
    outputs, gradients_of, *_ = torch.func.vjp(lambda *x: _as_tuple(function(*x)), *inputs)
    given = tuple(torch.zeros_like(y) if g is None else g for y, g in zip(outputs, grads, strict=True))
    gradients: tuple[Tensor, ...] = gradients_of(given)
    return gradients


def _as_tuple(x: Any) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def _register(name: str, save: Callable[[Any, Any, Any], None], backward: Callable[..., Any]) -> None:
    """Register a gradient: ``save(ctx, inputs, output)`` keeps what ``backward(ctx, *grads)`` reads."""
    register_autograd(f"automl_ext::{name}", backward, setup_context=save)


# ---- entmax-1.5, sparsemax and Gumbel sampling


def _masked_sqrt(p: Tensor) -> Tensor:
    """Return √p, with derivative 0 instead of infinity at p = 0."""
    off = p == 0
    return torch.where(off, 0, torch.where(off, 1, p).sqrt())


def _centered(s: Tensor, grad: Tensor, dim: int) -> Tensor:
    """Return s(g − ⟨s, g⟩/⟨s, 1⟩); zero outside the support for any g."""
    off = s == 0
    g, total = torch.where(off, 0, grad), s.sum(dim, keepdim=True)
    mean = (s * g).sum(dim, keepdim=True) / torch.where(total == 0, 1, total)
    return torch.where(off, 0, s * (g - mean))


def _entmax(name: str, weight: Callable[[Tensor], Tensor]) -> None:
    def save(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.dim = inputs[1]
        ctx.save_for_backward(output)

    def backward(ctx: Any, grad: Tensor) -> Any:
        (p,) = ctx.saved_tensors
        if _differentiable(grad):
            return _centered(weight(wide(p)), wide(grad), ctx.dim).to(p.dtype), None
        return getattr(ops, f"_{name}_backward").default(grad, p, ctx.dim), None

    _register(name, save, backward)


def _sparsemax_weight(p: Tensor) -> Tensor:
    p = p.detach()
    return torch.where(p == 0, 0, p / p)  # NaN stays NaN


def _bisect_map() -> None:
    def save(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.value, parameter, ctx.map, ctx.dim = inputs
        ctx.save_for_backward(x, parameter, output)

    def backward(ctx: Any, grad: Tensor) -> Any:
        x, parameter, p = ctx.saved_tensors
        if not _differentiable(grad) and wide(p) is p:
            needs = ctx.needs_input_grad[2]
            args = grad, p, ctx.value, parameter, ctx.map, ctx.dim, needs
            dx, of_parameter = ops._bisect_map_backward.default(*args)
            return dx, None, of_parameter if needs else None, None, None

        def function(x: Tensor, parameter: Any = ctx.value) -> Tensor:
            return bisect_reference(CODES[ctx.map], x, parameter, ctx.dim)

        gradients = _vjp(function, (x,) if parameter is None else (x, parameter), (grad,))
        return gradients[0], None, gradients[1] if parameter is not None else None, None, None

    _register("bisect_map", save, backward)


def _softmax_terms(y: Tensor, grad: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    dz = y * (grad - (grad * y).sum(dim, keepdim=True))
    return dz, dz * torch.where(y == 0, 1, y).log()


def _entmax_terms(y: Tensor, grad: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    s = _masked_sqrt(y)
    dz = _centered(s, grad, dim)
    return dz, 2 * dz * s


def _gumbel(name: str, terms: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]) -> None:
    """Register the gradient of a Gumbel op.

    ``terms(y, grad, dim)`` returns dz and t: the gradient of the logits is dz/τ, and that of τ is −Σ t/τ.
    """

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        _, _, ctx.tau, tau_tensor, ctx.dim, hard, _ = inputs
        y, soft, index = output
        ctx.mark_non_differentiable(*([index] if hard else [soft, index]))
        ctx.save_for_backward(soft if hard else y, tau_tensor)

    def backward(ctx: Any, grad_y: Tensor | None, grad_soft: Tensor | None, _: Any) -> Any:
        y, tau_tensor = ctx.saved_tensors
        given = [g for g in (grad_y, grad_soft) if g is not None and g.shape == y.shape]
        if not given:
            return (None,) * 7
        grad = given[0] if len(given) == 1 else given[0] + given[1]
        if not _differentiable(grad):
            tau_needs = ctx.needs_input_grad[3]
            dx, dtau = getattr(ops, f"_{name}_backward").default(grad, y, ctx.tau, tau_tensor, ctx.dim, tau_needs)
            return dx, None, None, dtau if tau_needs else None, None, None, None
        dz, t = terms(wide(y), wide(grad), ctx.dim)
        least = torch.finfo(dz.dtype).tiny  # a smaller τ counts as this number, as in the kernels
        if tau_tensor is None:
            return (dz / max(ctx.tau, least)).to(y.dtype), *(None,) * 6
        tau = tau_tensor
        if tau.ndim:  # under vmap: one for each leading index of y with dim moved last
            tau = tau.reshape(*tau.shape, *[1] * (y.ndim - tau.ndim)).movedim(-1, ctx.dim)
        tau = tau.to(dz.dtype).clamp(min=least)
        dtau = -t / tau
        dtau = dtau.movedim(ctx.dim, -1).flatten(tau_tensor.ndim).sum(-1) if tau_tensor.ndim else dtau.sum()
        return (dz / tau).to(y.dtype), None, None, dtau.to(tau_tensor.dtype), None, None, None

    _register(name, save, backward)


# ---- mixed op


def _mixed_op() -> None:
    def save(ctx: Any, inputs: Any, output: Any) -> None:
        xs, weights, ctx.positions = inputs
        ctx.needs = [x.requires_grad for x in xs], weights.requires_grad
        ctx.save_for_backward(weights, *(xs if weights.requires_grad else ()))

    def backward(ctx: Any, grad: Tensor) -> Any:
        weights, *xs = ctx.saved_tensors
        needs, positions = ctx.needs[0], ctx.positions
        if not _differentiable(grad):
            grads, grad_weights = ops._mixed_op_backward.default(grad, xs, weights, positions, needs)
            each = iter(grads)
            return [next(each) if n else None for n in needs], grad_weights if ctx.needs[1] else None, None
        g, w = wide(grad), weights.to(compute_dtype(grad))
        of_inputs = [(w[k] * g).to(grad.dtype) if n else None for n, k in zip(needs, positions, strict=True)]
        if not ctx.needs[1]:
            return of_inputs, None, None
        dots = [torch.zeros_like(weights[0])] * len(weights)
        for x, k in zip(xs, positions, strict=True):
            dots[k] = dots[k] + (g * wide(x)).sum().to(weights.dtype)
        return of_inputs, torch.stack(dots), None

    _register("mixed_op", save, backward)


# ---- ops whose reference is differentiable


def _from_reference(
    name: str,
    reference: Callable[..., Any],
    fused: Callable[..., Any],
    constant_outputs: Sequence[int] = (),
) -> None:
    """Register the gradient of ``reference``, which takes the op's arguments, for differentiable gradients.

    Args:
        fused: fused(needs, grads, *arguments) returns the other gradients, one for each argument.
        constant_outputs: outputs without a gradient.
    """

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        flat, ctx.spec = torch.utils._pytree.tree_flatten(inputs)
        ctx.at = [i for i, x in enumerate(flat) if isinstance(x, Tensor)]
        ctx.needs = [i for i in ctx.at if flat[i].requires_grad]
        ctx.others = [None if isinstance(x, Tensor) else x for x in flat]
        ctx.mark_non_differentiable(*(output[i] for i in constant_outputs))
        ctx.save_for_backward(*(flat[i] for i in ctx.at))

    def arguments(ctx: Any, tensors: Sequence[Tensor]) -> Any:
        flat = list(ctx.others)
        for i, x in zip(ctx.at, tensors, strict=True):
            flat[i] = x
        return flat

    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        flat = arguments(ctx, ctx.saved_tensors)
        gradients: list[Any] = [None] * len(flat)
        unflatten = torch.utils._pytree.tree_unflatten
        if all(g is None for g in grads):
            return unflatten(gradients, ctx.spec)
        if not _differentiable(*grads):
            result = fused([i in ctx.needs for i in range(len(flat))], grads, *unflatten(flat, ctx.spec))
            if result is not None:
                return result

        def function(*inputs: Tensor) -> Any:
            given = list(flat)
            for i, x in zip(ctx.needs, inputs, strict=True):
                given[i] = x
            outputs = _as_tuple(reference(*unflatten(given, ctx.spec)))
            return tuple(y for i, y in enumerate(outputs) if i not in constant_outputs)

        kept = [g for i, g in enumerate(grads) if i not in constant_outputs]
        for i, g in zip(ctx.needs, _vjp(function, [flat[i] for i in ctx.needs], kept), strict=True):
            gradients[i] = g
        return unflatten(gradients, ctx.spec)

    _register(name, save, backward)


def _gae(
    needs: Any, grads: Grads, r: Any, v: Any, n: Any, terminated: Any, truncated: Any, valid: Any, *floats: Any
) -> Any:
    return *ops._gae_backward.default(*grads, terminated, truncated, valid, *floats), *(None,) * 6


def _lambda_returns(
    needs: Any, grads: Grads, rewards: Any, next_values: Any, terminated: Any, truncated: Any, valid: Any, *rest: Any
) -> Any:
    if rest[0] is not None and rest[0].requires_grad:
        return None  # its gradient reads the returns, which are not kept
    masks = terminated, truncated, valid, rest[0]
    grad_rewards, grad_next, _ = ops._lambda_returns_backward.default(grads[0], *masks, None, None, *rest[1:])
    return grad_rewards, grad_next, *(None,) * 7


def _n_step_returns(
    needs: Any, grads: Grads, rewards: Any, next_values: Any, terminated: Any, truncated: Any, valid: Any, *rest: Any
) -> Any:
    bootstraps = next_values is not None
    *numbers, carry = rest
    arguments = grads[0], terminated, truncated, valid, *numbers, bootstraps, carry
    grad_rewards, grad_next = ops._n_step_returns_backward.default(*arguments)
    return grad_rewards, grad_next if bootstraps else None, *(None,) * 6


def _categorical(needs: Any, grads: Grads, logits: Tensor, actions: Tensor) -> Any:
    return ops._categorical_log_probs_backward.default(*grads, logits, actions), None


def _policy_gradient_loss(needs: Any, grads: Grads, *arguments: Any) -> Any:
    if arguments[0].dtype == torch.float16:  # the kernel's factors underflow before the gradient could enlarge them
        return None
    *_, of_log_probs, of_values = ops._policy_gradient_loss_trained.default(*arguments)
    log_probs, weights, ent_coef, grad = arguments[0], arguments[7], arguments[11], grads[0]
    assert grad is not None
    of_entropy = None
    if ent_coef and needs[1]:
        of_entropy = (
            -ent_coef * grad * (torch.full_like(log_probs, 1 / log_probs.numel()) if weights is None else weights)
        )
    return of_log_probs * grad, of_entropy, of_values * grad, *(None,) * 9


def _has_kernel(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _mlp_composite(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: int, activate_last: bool, stacked_x: bool
) -> Tensor:
    function = list(ACTIVATIONS.values())[activation][0]
    return mlp_reference(x, weights, biases or None, function, activate_last, stacked_x)


def _mlp(needs: Any, grads: Grads, x: Tensor, weights: list[Tensor], biases: list[Tensor], *rest: Any) -> Any:
    if not _has_kernel(x):
        return None
    y, kept = ops._mlp_trained.default(x, weights, biases, *rest)
    n = len(weights)
    flags = bool(biases), needs[0], any(needs[1:])
    result = list(ops._mlp_backward.default(grads[0], x, weights, kept, y, *rest, *flags))
    grad_x = result.pop(0) if needs[0] else None
    if not any(needs[1:]):
        return grad_x, [None] * n, [None] * len(biases), None, None, None
    return grad_x, result[:n], result[n:], None, None, None


def _gru_cell(needs: Any, grads: Grads, x: Tensor, *rest: Any) -> Any:
    if not _has_kernel(x):
        return None
    _, kept = ops._gru_cell_trained.default(x, *rest)
    of_inputs, of_parameters, biases = any(needs[:2]), any(needs[2:]), rest[3] is not None
    result = list(ops._gru_cell_backward.default(grads[0], x, *rest[:3], kept, biases, of_inputs, of_parameters))
    if not of_inputs:
        result = [None, None, *result]
    result += [None] * (6 - len(result))
    return tuple(g if n else None for g, n in zip(result, needs, strict=True))


def _attention(needs: Any, grads: Grads, *arguments: Any) -> Any:
    if arguments[3] is not None and needs[3]:
        return None  # the gradient of the mask
    _, *saved = ops._entmax15_attention_trained.default(*arguments)
    gradients = ops._entmax15_attention_backward.default(grads[0], *arguments, *saved)
    return *(g if n else None for g, n in zip(gradients, needs, strict=False)), None, None, None


_library: Any = torch.library.Library("automl_ext", "FRAGMENT")  # type: ignore[no-untyped-call] # what it registers goes with it


def register() -> None:
    """Register everything; called once, after the library of the kernels is loaded."""
    _entmax("entmax15", _masked_sqrt)
    _entmax("sparsemax", _sparsemax_weight)
    _bisect_map()
    _gumbel("gumbel_softmax", _softmax_terms)
    _gumbel("gumbel_entmax15", _entmax_terms)
    _mixed_op()
    _from_reference("gae", returns.gae, _gae)
    _from_reference("lambda_returns", returns.lambda_returns, _lambda_returns)
    _from_reference("n_step_returns", returns.n_step_returns, _n_step_returns, constant_outputs=(1, 2))
    _from_reference("categorical_log_probs", categorical_reference, _categorical)
    _from_reference("policy_gradient_loss", loss_reference, _policy_gradient_loss, constant_outputs=(1, 2, 3))
    _from_reference("mlp", _mlp_composite, _mlp)
    _from_reference("gru_cell", gru_cell_reference, _gru_cell)
    _from_reference("entmax15_attention", attention_reference, _attention)
    for name in ("vtrace", "retrace", "td_targets", "categorical_projection"):
        _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    for name, composite in (("mlp", _mlp_composite), ("gru_cell", gru_cell_reference)):
        _library.impl(f"_{name}_composite", composite, "CompositeImplicitAutograd")
        for key in ("CompositeExplicitAutograd", "AutocastCPU", "AutocastCUDA"):
            _library.impl(name, composite, key)
