"""``categorical_log_probs`` and ``policy_gradient_loss`` for the conformance suite. The size is the number of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from op_spec import OpSpec
from torch import Tensor

import automl_ext

CLIP, VALUE_CLIP, VF_COEF, ENT_COEF = 0.2, 0.5, 0.7, 0.3


def _categorical(n: int) -> OpSpec:
    def make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
        logits = 2 * torch.randn(size, 2, n, generator=generator, dtype=torch.float64)
        return [logits], {"actions": torch.randint(n, (size, 2), generator=generator)}

    def call(tensors: Sequence[Tensor], dim: int, actions: Tensor) -> tuple[Tensor, Tensor]:
        return automl_ext.categorical_log_probs(tensors[0], actions)

    def native(tensors: Sequence[Tensor], dim: int, actions: Tensor) -> list[tuple[str, tuple]]:
        grad = torch.randn(actions.shape, dtype=tensors[0].dtype)
        logits = tensors[0].detach()
        *_, statistics = torch.ops.automl_ext._categorical_log_probs_trained(logits, actions)
        return [
            ("categorical_log_probs", (tensors[0], actions)),
            ("_categorical_log_probs_trained", (tensors[0], actions)),
            ("_categorical_log_probs_backward", (grad, grad, logits, actions)),
            ("_categorical_log_probs_backward", (grad, None, logits, actions, statistics)),
        ]

    def eager(tensors: Sequence[Tensor], dim: int, actions: Tensor) -> tuple[Tensor, Tensor]:
        logs = tensors[0].log_softmax(-1)
        return logs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), -(logs.exp() * logs).sum(-1)

    return _spec(f"categorical_log_probs_{n}", make, call, native, eager)


def _loss(optional: Sequence[str]) -> OpSpec:
    """Return the loss with some of its optional arguments: those of A2C, or those of PPO."""

    def make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
        shape = (9, size, 4)
        log_probs, entropy, values, advantages, returns, *noise = torch.randn(
            shape, generator=generator, dtype=torch.float64
        )
        every = {
            "old_log_probs": log_probs + 0.3 * noise[0],
            "old_values": values + noise[1],
            "weights": noise[2].abs() / max(4 * size, 1),
        }
        constants = {"advantages": advantages, "returns": returns}
        return [log_probs, entropy, values], constants | {name: every[name] for name in optional}

    def keywords(tensors: Sequence[Tensor], constants: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.to(tensors[0].dtype) for name, x in constants.items()}

    def call(tensors: Sequence[Tensor], dim: int, **constants: Tensor) -> Tensor:
        loss, *_ = automl_ext.policy_gradient_loss(
            *tensors,
            **keywords(tensors, constants),
            clip=CLIP,
            value_clip=VALUE_CLIP,
            vf_coef=VF_COEF,
            ent_coef=ENT_COEF,
        )
        return loss

    def native(tensors: Sequence[Tensor], dim: int, **constants: Tensor) -> list[tuple[str, tuple]]:
        given = keywords(tensors, constants)
        names = ("advantages", "returns", "old_log_probs", "old_values", "weights")
        arguments = (*tensors, *map(given.get, names), CLIP, VALUE_CLIP, VF_COEF, ENT_COEF)
        return [("policy_gradient_loss", arguments), ("_policy_gradient_loss_trained", arguments)]

    def eager(tensors: Sequence[Tensor], dim: int, **constants: Tensor) -> Tensor:
        log_probs, entropy, values = tensors
        given = keywords(tensors, constants)
        a, weights, target = given["advantages"], given["weights"], given["returns"]
        gain, errors = a * log_probs, (target - values).square()
        if "old_log_probs" in given:
            ratio = (log_probs - given["old_log_probs"]).exp()
            gain = torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a)
        if "old_values" in given:
            near = given["old_values"] + (values - given["old_values"]).clamp(-VALUE_CLIP, VALUE_CLIP)
            errors = torch.maximum(errors, (target - near).square())
        return (weights * (VF_COEF * errors - gain - ENT_COEF * entropy)).sum()

    return _spec("_".join(["policy_gradient_loss", *optional]), make, call, native, eager)


def _spec(name: str, make: Callable, call: Callable, native: Callable, eager: Callable) -> OpSpec:
    return OpSpec(name, make, call, native, eager, autocast_dtype=None, dims=(0,), rowwise=False)


POLICY_SPECS = [
    _categorical(3),
    _categorical(40),
    _loss(["weights"]),
    _loss(["old_log_probs", "old_values", "weights"]),
]
