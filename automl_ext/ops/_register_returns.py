"""Fake tensors and batching rules of the returns family. Its ops keep the dtype of their inputs under autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake, register_vmap

from automl_ext.ops._register_common import contiguous_like

ops = torch.ops.automl_ext


def _fake(name: str) -> Callable[[Callable[..., Any]], None]:
    """Call register_fake with a function that raises an error if only some of the tensors are on the meta device."""

    def register(function: Callable[..., Any]) -> None:
        def checked(*args: Any) -> Any:
            devices = {x.device for x in args if isinstance(x, Tensor)}
            if len(devices) > 1:
                raise ValueError(f"{name}: expected tensors on one device, got {', '.join(map(str, devices))}")
            return function(*args)

        register_fake(f"automl_ext::{name}", checked)

    return register


def _batched(name: str, dim: int) -> None:
    """Register a batching rule that moves every batch dim to ``dim``, where the op accepts an extra dim."""
    op = getattr(ops, name).default

    @register_vmap(f"automl_ext::{name}")
    def _(info: Any, in_dims: Any, *args: Any) -> Any:
        batch = info.batch_size

        def moved(x: Any, in_dim: int | None) -> Any:
            if not isinstance(x, Tensor):
                return x
            if in_dim is not None:
                return x.movedim(in_dim, dim)
            x = x.unsqueeze(dim)
            return x.expand(*x.shape[:dim], batch, *x.shape[dim + 1 :])

        out = op(*(moved(x, d) for x, d in zip(args, in_dims, strict=True)))
        if isinstance(out, Tensor):
            return out, dim
        # An output that was not requested has shape [0] and no batch dim.
        return out, tuple(dim if x.dim() > dim else None for x in out)


def register() -> None:
    """Register everything; called once, after the library is loaded."""

    @_fake("gae")
    def _(rewards: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        return contiguous_like(rewards), contiguous_like(rewards)

    @_fake("_gae_backward")
    def _(
        grad_advantages: Tensor | None, grad_returns: Tensor | None, terminated: Tensor, *args: Any
    ) -> tuple[Tensor, ...]:
        grad = grad_advantages if grad_advantages is not None else grad_returns
        assert grad is not None
        return contiguous_like(grad), contiguous_like(grad), contiguous_like(grad)

    @_fake("lambda_returns")
    def _(rewards: Tensor, *args: Any) -> Tensor:
        return contiguous_like(rewards)

    @_fake("_lambda_returns_backward")
    def _(
        grad: Tensor,
        terminated: Tensor | None,
        truncated: Tensor | None,
        valid: Tensor | None,
        discounts: Tensor | None,
        next_values: Tensor | None,
        returns: Tensor | None,
        gamma: float,
        lam: float,
        carry: bool = False,
    ) -> tuple[Tensor, ...]:
        of_lam = grad.new_empty([0]) if returns is None else contiguous_like(grad)
        return contiguous_like(grad), contiguous_like(grad), of_lam

    @_fake("n_step_returns")
    def _(rewards: Tensor, *args: Any) -> tuple[Tensor, ...]:
        return contiguous_like(rewards), contiguous_like(rewards), contiguous_like(rewards).to(torch.int64)

    @_fake("_n_step_returns_backward")
    def _(
        grad: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        valid: Tensor | None,
        gamma: float,
        n: int,
        bootstraps: bool,
        carry: bool = False,
    ) -> tuple[Tensor, ...]:
        return contiguous_like(grad), contiguous_like(grad) if bootstraps else grad.new_empty([0])

    @_fake("vtrace")
    def _(log_rhos: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        return contiguous_like(log_rhos), contiguous_like(log_rhos)

    @_fake("retrace")
    def _(log_rhos: Tensor, *args: Any) -> Tensor:
        return contiguous_like(log_rhos)

    @_fake("td_targets")
    def _(rewards: Tensor, *args: Any) -> Tensor:
        return contiguous_like(rewards)

    @_fake("categorical_projection")
    def _(next_probs: Tensor, *args: Any) -> Tensor:
        return contiguous_like(next_probs)

    # The n-step backward is its own composite. Other backward ops have no batching rule, see _register.py.
    for name in ("gae", "lambda_returns", "n_step_returns", "_n_step_returns_backward", "vtrace", "retrace"):
        _batched(name, 1)
    for name in ("td_targets", "categorical_projection"):
        _batched(name, 0)
