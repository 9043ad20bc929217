"""``categorical_log_probs`` and ``clipped_surrogate`` for the conformance suite. The size is the number of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from op_spec import OpSpec
from torch import Tensor

import automl_ext

CLIP = 0.2


def _categorical(n: int) -> OpSpec:
    def make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
        logits = 2 * torch.randn(size, 2, n, generator=generator, dtype=torch.float64)
        return [logits], {"actions": torch.randint(n, (size, 2), generator=generator)}

    def call(tensors: Sequence[Tensor], dim: int, actions: Tensor) -> tuple[Tensor, Tensor]:
        return automl_ext.categorical_log_probs(tensors[0], actions)

    def native(tensors: Sequence[Tensor], dim: int, actions: Tensor) -> list[tuple[str, tuple]]:
        grad = torch.randn(actions.shape, dtype=tensors[0].dtype)
        return [
            ("categorical_log_probs", (tensors[0], actions)),
            ("_categorical_log_probs_backward", (grad, grad, tensors[0].detach(), actions)),
        ]

    def eager(tensors: Sequence[Tensor], dim: int, actions: Tensor) -> tuple[Tensor, Tensor]:
        logs = tensors[0].log_softmax(-1)
        return logs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), -(logs.exp() * logs).sum(-1)

    return _spec(f"categorical_log_probs_{n}", make, call, native, eager)


def _surrogate_make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
    log_probs, change, advantages = torch.randn(3, size, 4, generator=generator, dtype=torch.float64)
    return [log_probs], {"old": log_probs + 0.3 * change, "advantages": advantages}


def _constants(tensors: Sequence[Tensor], *constants: Tensor) -> list[Tensor]:
    """Return the constants in the dtype of the tensors."""
    return [x.to(tensors[0].dtype) for x in constants]


def _surrogate_call(tensors: Sequence[Tensor], dim: int, old: Tensor, advantages: Tensor) -> Tensor:
    return automl_ext.clipped_surrogate(tensors[0], *_constants(tensors, old, advantages), CLIP)


def _surrogate_native(tensors: Sequence[Tensor], dim: int, old: Tensor, advantages: Tensor) -> list[tuple[str, tuple]]:
    constants = _constants(tensors, old, advantages)
    x = tensors[0].detach()
    return [
        ("clipped_surrogate", (tensors[0], *constants, CLIP)),
        ("_clipped_surrogate_backward", (torch.randn_like(x), x, *constants, CLIP)),
    ]


def _surrogate_eager(tensors: Sequence[Tensor], dim: int, old: Tensor, advantages: Tensor) -> Tensor:
    old, advantages = _constants(tensors, old, advantages)
    ratio = (tensors[0] - old).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)


def _spec(name: str, make: Callable, call: Callable, native: Callable, eager: Callable) -> OpSpec:
    return OpSpec(name, make, call, native, eager, autocast_dtype=None, dims=(0,), rowwise=False)


POLICY_SPECS = [
    _categorical(3),
    _categorical(40),
    _spec("clipped_surrogate", _surrogate_make, _surrogate_call, _surrogate_native, _surrogate_eager),
]
