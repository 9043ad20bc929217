"""Cases of the ops over time: returns and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import automl_ext as a
from automl_ext.bench.cases.case import Case, Function, by_reference
from automl_ext.bench.cases.peers import gae_peers, return_peers

GAMMA, LAMBDA = 0.99, 0.95


def returns_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: dict[str, Any]) -> list[Case]:
    def randn(*size: int) -> Tensor:
        return torch.randn(size, device=device).to(dtype)

    def ends() -> list[Tensor]:
        return [torch.rand(shape, device=device) < 0.01 for _ in range(2)]

    def episodes() -> list[Tensor]:
        """Return tensors as a collector records them: V′ is the next step's V unless an episode ended."""
        steps, envs = shape
        values = randn(steps + 1, envs)
        terminated, truncated = ends()
        next_values = torch.where(terminated | truncated, randn(*shape), values[1:])
        return [randn(*shape), values[:-1].clone(), next_values, terminated, truncated]

    def floats(count: int) -> Any:
        return lambda: [*(randn(*shape) for _ in range(count)), *ends()]

    # (op, its tensors, number of tensors with a gradient, call)
    ops: list[tuple[str, Any, int, Function]] = [
        ("gae", episodes, 3, lambda r, v, w, e, u: a.gae(r, v, w, e, u, GAMMA, LAMBDA)),
        ("lambda_returns", floats(2), 2, lambda r, w, e, u: a.lambda_returns(r, w, e, u, GAMMA, LAMBDA)),
        ("discounted_returns", floats(2), 2, lambda r, w, e, u: a.discounted_returns(r, w, e, u, GAMMA)),
        ("n_step_returns", floats(2), 2, lambda r, w, e, u: a.n_step_returns(r, w, e, u, GAMMA, 3)),
        ("vtrace", floats(4), 0, lambda rho, r, v, w, e, u: a.vtrace(rho, r, v, w, e, u, GAMMA)),
        ("retrace", floats(4), 0, lambda rho, q, r, w, e, u: a.retrace(rho, q, r, w, e, u, GAMMA)),
    ]
    peers = {
        "gae": gae_peers(modules, GAMMA, LAMBDA, dtype, device),
        "lambda_returns": return_peers(modules, GAMMA, LAMBDA, dtype, device),
        "discounted_returns": return_peers(modules, GAMMA, 1.0, dtype, device),
    }
    return [
        Case(
            op,
            shape,
            dtype,
            make,
            call,
            by_reference(call),
            lambda tensors, at: [x[:, at] for x in tensors],
            lambda y, at: y[:, at],
            shape[1],
            peers=peers.get(op, {}),
            trained=trained,
            saved=lambda inputs, outputs: inputs[-2:],
            loop=True,
        )
        for op, make, trained, call in ops
    ]
