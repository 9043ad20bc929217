"""Gumbel-softmax, Gumbel-entmax and the Gumbel-max trick (Jang et al. 2017, Maddison et al. 2017).

Randomness is stateless: a seed and an element's index decide its noise, so equal seeds draw equal samples on
every device, under torch.compile and in a checkpointed second forward.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, Protocol, overload

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_bool, check_dim, check_float_tensor, describe, is_dense, shown, wrong_device
from automl_ext.ops._gumbel_reference import gumbel_argmax_reference, gumbel_reference


class _Unset(int):
    """An int that can be told from the same number passed by a caller."""


_LAST = _Unset(-1)
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class _Sampler(Protocol):
    """The signatures of gumbel_softmax and gumbel_entmax15, for type checkers."""

    @overload
    def __call__(
        self,
        logits: Tensor,
        tau: float | Tensor = ...,
        hard: bool = ...,
        dim: int = ...,
        *,
        eps: float | None = ...,
        generator: torch.Generator | None = ...,
        seed: int | Tensor | None = ...,
        return_index: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def __call__(
        self,
        logits: Tensor,
        tau: float | Tensor = ...,
        hard: bool = ...,
        dim: int = ...,
        *,
        eps: float | None = ...,
        generator: torch.Generator | None = ...,
        seed: int | Tensor | None = ...,
        return_index: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(
        self,
        logits: Tensor,
        tau: float | Tensor = ...,
        hard: bool = ...,
        dim: int = ...,
        *,
        eps: float | None = ...,
        generator: torch.Generator | None = ...,
        seed: int | Tensor | None = ...,
        return_index: bool,
    ) -> Tensor | tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, logits: Tensor, tau: float | Tensor, hard: bool, eps: float, dim: int = ..., /) -> Tensor: ...
    @overload
    def __call__(self, logits: Tensor, tau: float | Tensor, hard: bool, eps: float, /, *, dim: int) -> Tensor: ...


def _sampler(function: Callable[..., Any]) -> _Sampler:
    return function


@_sampler
def gumbel_softmax(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    *args: float,
    dim: int = _LAST,
    eps: float | None = None,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    return_index: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax((logits + g)/τ) with standard Gumbel noise g; replaces :func:`torch.nn.functional.gumbel_softmax`.

    Two orders of positional arguments are accepted: ``(logits, tau, hard, dim)``, and PyTorch's
    ``(logits, tau, hard, eps, dim)``. A fourth argument that is an int, with none after it, is ``dim``; a float
    is ``eps``.

    Args:
        logits: float tensor of any shape; −inf is never chosen.
        tau: temperature > 0, a float or a 0-dim tensor on the logits' device (which gets a gradient, and can be
            annealed without recompiling). A CUDA tensor and whatever is traced go unchecked: τ ≤ 0 then gives NaN.
        hard: return the one-hot argmax of logits + g; the gradient is that of the soft sample (straight-through).
        dim: the dimension of the categories.
        eps: a number, for compatibility; not used, as in PyTorch, which deprecates it.
        generator: where the seed is drawn from, on the logits' device.
        seed: an int or a 0-dim int64 tensor that decides the noise, in place of a generator.
        return_index: also return argmax(logits + g) along ``dim``, int64.

    Returns:
        y, shaped like ``logits`` (and the index, without ``dim``). A row all −inf is NaN, as in torch.softmax.

    Raises:
        TypeError: logits not floating point; hard or return_index no bool; dim no int; eps no number; more than
            five positional arguments, or one given twice; generator no torch.Generator; seed neither an int nor
            a 0-dim int64 tensor.
        ValueError: τ not positive and finite; τ, seed or generator on another device; seed and generator both given.
        IndexError: dim out of range.
    """
    given = _dim_of("gumbel_softmax", args, dim, eps)
    return _sample("softmax", logits, tau, hard, given, generator, seed, return_index)


@_sampler
def gumbel_entmax15(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    *args: float,
    dim: int = _LAST,
    eps: float | None = None,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    return_index: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """entmax₁.₅((logits + g)/τ): :func:`gumbel_softmax` with exact zeros; its support is what is worth running.

    Arguments, results and errors as in :func:`gumbel_softmax`; a row all −inf gives zeros.
    """
    given = _dim_of("gumbel_entmax15", args, dim, eps)
    return _sample("entmax15", logits, tau, hard, given, generator, seed, return_index)


def _dim_of(op: str, args: tuple[object, ...], dim: object, eps: object) -> object:
    """``dim``, given by keyword or in the positional arguments after ``hard``: (dim,), (eps,) or (eps, dim)."""
    if len(args) > 2:
        raise TypeError(f"{op}: expected at most 5 positional arguments, got {3 + len(args)}")
    has_eps = len(args) == 2 or (len(args) == 1 and isinstance(args[0], float))
    if has_eps:
        if eps is not None:
            raise TypeError(f"{op}: eps: expected once, got it by position and by keyword")
        eps = args[0]
    if eps is not None and (isinstance(eps, bool) or not isinstance(eps, (int, float))):
        raise TypeError(f"{op}: eps: expected a number, got {describe(eps)}")
    positional = args[has_eps:]
    if not positional:
        return dim
    if dim is not _LAST:
        raise TypeError(f"{op}: dim: expected once, got it by position and by keyword")
    return positional[0]


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
        index: Tensor = torch.ops.automl_ext.gumbel_argmax.default(logits, seed, dim)
        return index
    return gumbel_argmax_reference(logits, seed, dim)


def _sample(
    activation: str,
    logits: Tensor,
    tau: float | Tensor,
    hard: bool,
    dim: object,
    generator: torch.Generator | None,
    seed: int | Tensor | None,
    return_index: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    op = f"gumbel_{activation}"
    check_float_tensor(logits, "logits", op)
    axis = check_dim(dim, logits.ndim, op)
    check_bool(hard, "hard", op)
    check_bool(return_index, "return_index", op)
    if return_index:
        _check_categories(logits, axis, op)
    tau_value, tau_tensor = _split_tau(tau, logits, op)
    seed = _seed_tensor(seed, generator, logits, op)
    if _native.use_native(logits):
        native = getattr(torch.ops.automl_ext, op).default
        y, _, index = native(logits, seed, tau_value, tau_tensor, axis, hard, return_index)
    else:
        temperature = tau_value if tau_tensor is None else tau
        y, index = gumbel_reference(logits, seed, temperature, axis, hard, return_index, activation)
    return (y, index) if return_index else y


def _check_categories(logits: Tensor, dim: int, op: str) -> None:
    if logits.ndim and logits.shape[dim] == 0:
        raise IndexError(
            f"{op}: logits: expected at least one category along dim {dim}, got shape {tuple(logits.shape)}"
        )


def _split_tau(tau: float | Tensor, logits: Tensor, op: str) -> tuple[float, Tensor | None]:
    """A number and a tensor, of which the ops take one: a tensor made from every float would cost 2 µs."""
    if isinstance(tau, Tensor):
        if tau.ndim != 0 or not tau.is_floating_point() or not is_dense(tau):
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
    return float(tau), None


def _check_tau(tau: float, op: str) -> None:
    if not (0 < tau <= sys.float_info.max):
        raise ValueError(f"{op}: tau: expected a positive finite temperature, got {shown(tau)}")


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
        if seed.dtype != torch.int64 or seed.ndim != 0 or not is_dense(seed):
            raise TypeError(f"{op}: seed: expected an int or a 0-dim int64 tensor, got {describe(seed)}")
        if seed.device != logits.device:
            raise wrong_device(seed, "seed", op, logits)
        return seed
    if isinstance(seed, bool) or not isinstance(seed, (int, torch.SymInt)):
        raise TypeError(f"{op}: seed: expected an int or a 0-dim int64 tensor, got {describe(seed)}")
    if not torch.compiler.is_compiling() and not _LOWEST <= seed <= _HIGHEST:
        raise ValueError(f"{op}: seed: expected an int of 64 bits, got {shown(seed)}")
    return torch.full((), seed, dtype=torch.int64, device=logits.device)
