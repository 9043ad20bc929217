"""Gumbel-softmax, Gumbel-entmax and the Gumbel-max trick (Jang et al. 2017, Maddison et al. 2017).

Randomness is stateless: the noise of an element depends only on the seed and the element's index. Equal seeds give
equal samples on every device, under torch.compile and in the recomputed forward pass of a checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, Protocol, overload

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import (
    broadcasts,
    check_bool,
    check_dim,
    check_float_tensor,
    describe,
    is_dense,
    most_precise,
    python_number,
    readable_values,
    shown,
    wrong_device,
)
from automl_ext.ops._gumbel_reference import gumbel_argmax_reference, gumbel_reference


class _Unset(int):
    """An int subclass for a default value, to distinguish it from the same number passed by a caller."""


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
    """Sample softmax((logits + g)/τ) with standard Gumbel noise g.

    A drop-in replacement for :func:`torch.nn.functional.gumbel_softmax`. Two orders of positional arguments are
    accepted: ``(logits, tau, hard, dim)`` and PyTorch's ``(logits, tau, hard, eps, dim)``. If there are four positional
    arguments, the fourth is ``dim`` if it is an int and ``eps`` if it is a float.

    Args:
        logits: float tensor of any shape; an entry of −inf is never chosen.
        tau: temperature > 0, a float or a float tensor on the device of ``logits``: 0-dim, or one per row, of a shape
            that broadcasts to that of ``logits`` with size 1 along ``dim``. Temperatures per row are computed by
            several PyTorch operations instead of one kernel. A tensor gets a gradient and can be annealed without
            recompilation. Values on a GPU or under tracing are not checked; there, τ ≤ 0 gives NaN. A τ below the
            smallest normal number of the compute dtype counts as that number.
        hard: return the one-hot argmax of logits + g, with the gradient of the soft sample (straight-through).
        dim: the dim of the categories.
        eps: accepted for compatibility and ignored; deprecated in PyTorch.
        generator: source of the random seed, on the device of ``logits``; None uses PyTorch's default generator.
        seed: an int or a 0-dim int64 tensor that determines the noise; replaces ``generator``.
        return_index: also return argmax(logits + g) along ``dim``, int64.

    Returns:
        y, in the shape of ``logits``; with ``return_index`` also the index, in that shape without ``dim``. A row of
        only −inf gives NaN, as in torch.softmax.

    Raises:
        TypeError: an argument has the wrong type or dtype, is given twice, or there are more than five positional
            arguments.
        ValueError: τ is not positive and finite or does not broadcast, ``seed`` and ``generator`` are both given, or
            τ, ``seed`` or ``generator`` is on another device than ``logits``.
        IndexError: ``dim`` is out of range.
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
    """Sample entmax₁.₅((logits + g)/τ): like :func:`gumbel_softmax`, with exact zeros.

    Arguments, results and errors are those of :func:`gumbel_softmax`, but a row of only −inf gives zeros.
    """
    given = _dim_of("gumbel_entmax15", args, dim, eps)
    return _sample("entmax15", logits, tau, hard, given, generator, seed, return_index)


def _dim_of(op: str, args: tuple[object, ...], dim: object, eps: object) -> object:
    """Return ``dim``, given by keyword or in the positional arguments after ``hard``: (dim,), (eps,) or (eps, dim)."""
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
        return -1 if dim is _LAST else dim  # torch.compile of torch 2.11 cannot compare subclasses of int
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
    """Sample one category per row with probability softmax(logits), by the Gumbel-max trick.

    The arguments and errors are those of :func:`gumbel_softmax`.

    Returns:
        Indices, int64, in the shape of ``logits`` without ``dim``. Ties go to the lowest index; a row of only −inf
        gives 0.
    """
    if seed is None and type(dim) is int and dim == -1 and _calls_directly(logits):
        try:
            sampled: Tensor = _native.autograd.gumbel_argmax(logits, generator)
            return sampled
        except Exception:  # also what a saved-tensor hook raises
            check_float_tensor(logits, "logits", "gumbel_argmax")
            _seed_tensor(seed, generator, logits, "gumbel_argmax")
            raise
    check_float_tensor(logits, "logits", "gumbel_argmax")
    dim = check_dim(dim, logits.ndim, "gumbel_argmax")
    _check_categories(logits, dim, "gumbel_argmax")
    seed = _seed_tensor(seed, generator, logits, "gumbel_argmax")
    if _native.use_native(logits):
        index: Tensor = torch.ops.automl_ext.gumbel_argmax.default(logits, seed, dim)
        return index
    return gumbel_argmax_reference(logits, seed, dim)


def _calls_directly(logits: Tensor) -> bool:
    """Return whether to call the kernel before the checks. It refuses what they refuse; that of meta does not."""
    return _native.calls_directly(logits) and (logits.is_cpu or logits.is_cuda) and logits.numel() > 0


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
    kernel_error: Exception | None = None
    if (
        (seed is None or (type(seed) is int and generator is None))
        and type(tau) is float
        and 0 < tau <= sys.float_info.max
        and type(dim) is int
        and _calls_directly(logits)
    ):
        try:
            sampled: Tensor = getattr(_native.autograd, op)(logits, generator, seed, tau, dim, hard, return_index)
            return sampled
        except Exception as error:  # also what a saved-tensor hook raises
            kernel_error = error
    check_float_tensor(logits, "logits", op)
    axis = check_dim(dim, logits.ndim, op)
    check_bool(hard, "hard", op)
    check_bool(return_index, "return_index", op)
    if return_index:
        _check_categories(logits, axis, op)
    tau_value, tau_tensor = split_tau(tau, logits, op, axis)
    seed = _seed_tensor(seed, generator, logits, op)
    if kernel_error is not None:
        raise kernel_error  # the arguments are valid, so the kernel itself failed
    # In the kernels, each τ of several begins the noise anew, as vmap needs it. One τ per row uses the reference.
    if (tau_tensor is None or tau_tensor.ndim == 0) and _native.use_native(logits):
        native = getattr(torch.ops.automl_ext, op).default
        y, _, index = native(logits, seed, tau_value, tau_tensor, axis, hard, return_index)
    else:
        temperature = tau_value if tau_tensor is None else tau_tensor
        y, index = gumbel_reference(logits, seed, temperature, axis, hard, return_index, activation)
    return (y, index) if return_index else y


def _check_categories(logits: Tensor, dim: int, op: str) -> None:
    """Raise IndexError if there are no categories to choose from."""
    if logits.ndim and logits.shape[dim] == 0:
        raise IndexError(
            f"{op}: logits: expected at least one category along dim {dim}, got shape {tuple(logits.shape)}"
        )


def split_tau(tau: float | Tensor, logits: Tensor, op: str, dim: int = 0) -> tuple[float, Tensor | None]:
    """Return τ as a number or as a tensor; the ops take either, because making a tensor of a float costs time.

    A tensor of several elements is expanded to the shape of ``logits`` with size 1 along ``dim``.
    """
    if isinstance(tau, Tensor):
        if not tau.is_floating_point() or not is_dense(tau):
            raise TypeError(f"{op}: tau: expected a float or a float tensor, got {describe(tau)}")
        if tau.ndim > 0:  # one per row: PyTorch computes with it
            check_float_tensor(tau, "tau", op)
        if tau.device != logits.device:
            raise wrong_device(tau, "tau", op, logits)
        if (values := readable_values(tau)) is not None:
            _check_taus(values, op)
        return 1.0, tau if tau.ndim == 0 else _one_per_row(tau, logits, op, dim)
    tau = python_number(tau)
    if isinstance(tau, bool) or not isinstance(tau, (int, float, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"{op}: tau: expected a float or a float tensor, got {describe(tau)}")
    if torch.compiler.is_compiling():
        # As an argument of the op or of torch.full, a number would become a constant of the graph: each new value of an
        # annealed τ would recompile.
        return 1.0, most_precise(torch.ones((), device=logits.device)) * tau
    _check_tau(tau, op)
    return float(tau), None


def _check_tau(tau: float, op: str) -> None:
    """Raise ValueError unless τ is positive and finite."""
    if not (0 < tau <= sys.float_info.max):
        raise ValueError(f"{op}: tau: expected a positive finite temperature, got {shown(tau)}")


def _check_taus(tau: Tensor, op: str) -> None:
    """Raise ValueError for the first of the temperatures that is not positive and finite."""
    if tau.ndim == 0:
        return _check_tau(tau.item(), op)
    wrong = ~((tau > 0) & (tau < torch.inf))
    if wrong.any():
        _check_tau(tau[wrong][0].item(), op)


def _one_per_row(tau: Tensor, logits: Tensor, op: str, dim: int) -> Tensor:
    shape = [1 if i == dim else n for i, n in enumerate(logits.shape)]
    if not broadcasts(tau, shape):
        raise ValueError(f"{op}: tau: expected a shape that broadcasts to {tuple(shape)}, got {tuple(tau.shape)}")
    return tau.reshape(()) if tau.numel() == 1 else tau.expand(shape)


def _check_generator(generator: object, logits: Tensor, op: str) -> None:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"{op}: generator: expected a torch.Generator, got {describe(generator)}")
    if generator.device.type != logits.device.type:  # types only: a generator for "cuda" may have no index
        fix = f"torch.Generator({str(logits.device)!r})"
        raise ValueError(f"{op}: generator: expected one on {logits.device}, got one on {generator.device}; use {fix}")


def _seed_tensor(seed: int | Tensor | None, generator: torch.Generator | None, logits: Tensor, op: str) -> Tensor:
    """Return the seed as a 0-dim int64 tensor. Without a given seed, sample one from the generator."""
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
    seed = python_number(seed)
    if isinstance(seed, bool) or not isinstance(seed, (int, torch.SymInt)):
        raise TypeError(f"{op}: seed: expected an int or a 0-dim int64 tensor, got {describe(seed)}")
    if not torch.compiler.is_compiling() and not _LOWEST <= seed <= _HIGHEST:
        raise ValueError(f"{op}: seed: expected an int of 64 bits, got {shown(seed)}")
    return torch.full((), seed, dtype=torch.int64, device=logits.device)
