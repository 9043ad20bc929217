"""Gumbel-softmax, Gumbel-entmax and the Gumbel-max trick (Jang et al. 2017, Maddison et al. 2017).

Randomness is stateless: a seed and an element's index decide its noise, so equal seeds draw equal samples on
every device, under torch.compile and in a checkpointed second forward.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_dim, check_float_tensor, describe, wrong_device
from automl_ext.ops._gumbel_reference import gumbel_argmax_reference, gumbel_reference

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def gumbel_softmax(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    dim: int = -1,
    *,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    return_index: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax((logits + g)/τ) with standard Gumbel noise g; replaces :func:`torch.nn.functional.gumbel_softmax`.

    Args:
        logits: float tensor of any shape; −inf is never chosen.
        tau: temperature > 0, a float or a 0-dim tensor on the logits' device (which gets a gradient, and can be
            annealed without recompiling). A CUDA tensor and whatever is traced go unchecked: τ ≤ 0 then gives NaN.
        hard: return the one-hot argmax of logits + g; the gradient is that of the soft sample (straight-through).
        dim: the dimension of the categories.
        generator: where the seed is drawn from, on the logits' device.
        seed: an int or a 0-dim int64 tensor that decides the noise, in place of a generator.
        return_index: also return argmax(logits + g) along ``dim``, int64.

    Returns:
        y, shaped like ``logits`` (and the index, without ``dim``). A row all −inf is NaN, as in torch.softmax.

    Raises:
        TypeError: logits not floating point; hard no bool; generator no torch.Generator; seed neither an int
            nor a 0-dim int64 tensor.
        ValueError: τ not positive and finite; τ, seed or generator on another device; seed and generator both given.
        IndexError: dim out of range.
    """
    return _sample("softmax", logits, tau, hard, dim, generator, seed, return_index)


def gumbel_entmax15(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    dim: int = -1,
    *,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    return_index: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """entmax₁.₅((logits + g)/τ): :func:`gumbel_softmax` with exact zeros; its support is what is worth running.

    Arguments, results and errors as in :func:`gumbel_softmax`; a row all −inf gives zeros.
    """
    return _sample("entmax15", logits, tau, hard, dim, generator, seed, return_index)


def gumbel_argmax(
    logits: Tensor,
    dim: int = -1,
    *,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
) -> Tensor:
    """One category per row, drawn with probability softmax(logits): the Gumbel-max trick.

    Returns:
        int64 indices, the shape of ``logits`` without ``dim``; ties go to the lowest, a row all −inf gives 0.

    Raises:
        As :func:`gumbel_softmax`.
    """
    check_float_tensor(logits, "logits", "gumbel_argmax")
    dim = check_dim(dim, logits.ndim, "gumbel_argmax")
    _check_categories(logits, dim, "gumbel_argmax")
    seed = _seed_tensor(seed, generator, logits, "gumbel_argmax")
    if _native.use_native(logits):
        return torch.ops.automl_ext.gumbel_argmax.default(logits, seed, dim)
    return gumbel_argmax_reference(logits, seed, dim)


def _sample(
    activation: str,
    logits: Tensor,
    tau: float | Tensor,
    hard: bool,
    dim: int,
    generator: torch.Generator | None,
    seed: int | Tensor | None,
    return_index: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    op = f"gumbel_{activation}"
    check_float_tensor(logits, "logits", op)
    dim = check_dim(dim, logits.ndim, op)
    if type(hard) is not bool:
        raise TypeError(f"{op}: hard: expected a bool, got {describe(hard)}")
    if return_index:
        _check_categories(logits, dim, op)
    tau_value, tau_tensor = _split_tau(tau, logits, op)
    seed = _seed_tensor(seed, generator, logits, op)
    if _native.use_native(logits):
        native = getattr(torch.ops.automl_ext, op).default
        y, _, index = native(logits, seed, tau_value, tau_tensor, dim, hard, return_index)
    else:
        y, index = gumbel_reference(logits, seed, tau, dim, hard, return_index, activation)
    return (y, index) if return_index else y


def _check_categories(logits: Tensor, dim: int, op: str) -> None:
    if logits.ndim and logits.shape[dim] == 0:
        raise IndexError(
            f"{op}: logits: expected at least one category along dim {dim}, got shape {tuple(logits.shape)}"
        )


def _split_tau(tau: float | Tensor, logits: Tensor, op: str) -> tuple[float, Tensor | None]:
    """A number and a tensor, of which the ops take one: a tensor made from every float would cost 2 µs."""
    if isinstance(tau, Tensor):
        if tau.ndim != 0 or not tau.is_floating_point():
            raise TypeError(f"{op}: tau: expected a float or a 0-dim float tensor, got {describe(tau)}")
        if tau.device != logits.device:
            raise wrong_device(tau, "tau", op, logits)
        if _is_plain_cpu(tau):
            _check_tau(tau.item(), op)
        return 1.0, tau
    if isinstance(tau, bool) or not isinstance(tau, (int, float, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"{op}: tau: expected a float or a 0-dim float tensor, got {describe(tau)}")
    if torch.compiler.is_compiling():
        # As an argument of the op, or of torch.full, a number becomes part of the graph: annealing would recompile.
        return 1.0, torch.ones((), dtype=torch.float64, device=logits.device) * tau
    _check_tau(tau, op)
    return tau, None


def _check_tau(tau: float, op: str) -> None:
    if not (0 < tau < math.inf):
        raise ValueError(f"{op}: tau: expected a positive finite temperature, got {tau}")


def _is_plain_cpu(x: Tensor) -> bool:
    """Whether x's value can be read now: not traced, not inside a torch.func transform, not on a device."""
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def _check_generator(generator: object, logits: Tensor, op: str) -> None:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"{op}: generator: expected a torch.Generator, got {describe(generator)}")
    if generator.device.type != logits.device.type:  # a generator for "cuda" has no index, or that of one GPU
        mend = f"torch.Generator({str(logits.device)!r})"
        raise ValueError(f"{op}: generator: expected one on {logits.device}, got one on {generator.device}; use {mend}")


def _seed_tensor(seed: int | Tensor | None, generator: torch.Generator | None, logits: Tensor, op: str) -> Tensor:
    if generator is not None:
        _check_generator(generator, logits, op)
    if seed is None:
        return torch.randint(_LOWEST, _HIGHEST, (), device=logits.device, generator=generator)
    if generator is not None:
        raise ValueError(f"{op}: seed and generator: expected one of them, got both")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.ndim != 0:
            raise TypeError(f"{op}: seed: expected an int or a 0-dim int64 tensor, got {describe(seed)}")
        if seed.device != logits.device:
            raise wrong_device(seed, "seed", op, logits)
        return seed
    if isinstance(seed, bool) or not isinstance(seed, (int, torch.SymInt)):
        raise TypeError(f"{op}: seed: expected an int or a 0-dim int64 tensor, got {describe(seed)}")
    if not torch.compiler.is_compiling() and not _LOWEST <= seed <= _HIGHEST:
        raise ValueError(f"{op}: seed: expected an int of 64 bits, got {seed}")
    return torch.full((), seed, dtype=torch.int64, device=logits.device)
