"""Prioritized replay: a call samples a batch with its importance weights and updates its priorities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext._native import backend
from automl_ext.bench.cases.case import Case, Peer
from automl_ext.bench.cases.laws import choices_follow, relative
from automl_ext.bench.cases.replay_peers import Call, tianshou, torchrl

ALPHA, BETA, EPS = 0.6, 0.4, float(np.finfo(np.float32).eps)  # EPS: tianshou's fixed value
OBSERVATION = 4  # size of CartPole's observation
BYTES = 2 * (2 * 4 * OBSERVATION + 8 + 4 + 4 + 1 + 4 + 8)  # per transition of a batch, read and written


def replay_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: dict[str, Any]) -> list[Case]:
    """Return the cases. Tensors: |δ| of all transitions and of a batch. A call returns observations and weights."""
    if dtype != torch.float32 or device != "cpu":
        return []
    return [
        replay_case("prioritized_replay", 1, shape, modules),
        replay_case("prioritized_replay_3_steps", 3, shape, modules),
    ]


def replay_case(op: str, n_step: int, shape: tuple[int, ...], modules: dict[str, Any]) -> Case:
    def make() -> list[Tensor]:
        return [torch.randn(size).mul(2).exp() for size in shape]

    def bind(tensors: Sequence[Tensor]) -> Call:
        return ours(tensors, n_step)

    def bind_reference(tensors: Sequence[Tensor]) -> Call:
        with backend("reference"):
            call = ours(tensors, n_step)

        def run() -> tuple[Any, Any]:
            with backend("reference"):
                return call()

        return run

    def bind_peer(fill: Callable[..., Call], package: Any) -> Peer:
        def bind(tensors: Sequence[Tensor]) -> Call:
            return fill(package, numbered(len(tensors[0])), *tensors, ALPHA, BETA)

        return Peer(bind, trained=False)

    fills = {"tianshou": tianshou, "torchrl": torchrl}
    return Case(
        op,
        shape,
        torch.float32,
        make,
        bind,
        bind_reference,
        lambda tensors, at: list(tensors),
        lambda y, at: y[at],
        shape[1],
        peers={name: bind_peer(fill, modules[name]) for name, fill in fills.items() if name in modules},
        trained=0,
        law=law,
        prepares=True,
        moved=shape[1] * BYTES,
    )


def law(td_errors: Tensor, results: Sequence[Tensor], grad: Tensor | None) -> float:
    """Return the largest error of the weights; inf if a row is inconsistent or the sampling frequencies do not match P.

    The weights are (min P / P)^beta over the batch, with P in proportion to (|δ| + eps)^alpha.
    """
    sampled, weights = (x.double() for x in results)
    index = sampled[:, 0].long()
    whole = torch.equal(sampled, index[:, None] + torch.arange(OBSERVATION, dtype=torch.float64))
    if not whole or not 0 <= int(index.min()) <= int(index.max()) < len(td_errors):
        return float("inf")
    priorities = (td_errors.double() + EPS) ** ALPHA
    if not choices_follow(priorities / priorities.sum(), index):
        return float("inf")
    of_batch = priorities[index]
    return relative(weights / weights.max(), (of_batch.min() / of_batch) ** BETA)


def numbered(capacity: int) -> np.ndarray:
    """Return capacity + 1 observations that start with their number (exact in float32 below 2²⁴)."""
    return (np.arange(capacity + 1)[:, None] + np.arange(OBSERVATION)).astype(np.float32)


def ours(tensors: Sequence[Tensor], n_step: int) -> Call:
    """Return a call on our buffer, filled by sqrt(capacity) environments whose episodes do not end."""
    from automl_ext.rl import PrioritizedReplay, Step  # imported here, because gymnasium may be missing

    td_errors, new_errors = tensors
    capacity, batch_size = len(td_errors), len(new_errors)
    n_envs = int(capacity**0.5)
    slots, generator = capacity // n_envs, np.random.default_rng(0)
    replay = PrioritizedReplay(
        capacity, (OBSERVATION,), n_envs=n_envs, n_step=n_step, alpha=ALPHA, beta=BETA, eps=EPS, generator=generator
    )
    observations, first = numbered(capacity), np.arange(n_envs) * slots
    actions, rewards, never = np.zeros(n_envs, np.int64), np.ones(n_envs, np.float32), np.zeros(n_envs, bool)
    for at in range(slots):
        before, after = observations[first + at], observations[first + at + 1]
        replay.add(Step(before, actions, rewards, after, never, never, ~never))
    indices = replay._ring.indices
    replay.update_priorities(torch.from_numpy(indices[indices >= 0]), td_errors)

    def call() -> tuple[Any, Any]:
        batch = replay.sample(batch_size)
        replay.update_priorities(batch.indices, new_errors)
        return batch.observations, batch.weights

    return call
