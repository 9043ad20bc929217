"""Interfaces of what can be added to an agent: losses, and transforms of batches.

Rewards are changed by ``Envs.transform``, see :class:`automl_ext.rl.envs.vector.StepTransform`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from automl_ext.rl.replay.uniform import Batch


class Acted(NamedTuple):
    """N steps of a rollout, which the policy-gradient agents pass to an :class:`ExtraLoss`.

    Attributes:
        observations: [N, ...].
        actions: [N, ...], as sampled from the policy.
        weights: float32 [N], 0 where the step is not a transition; otherwise equal, with sum 1.
    """

    observations: Tensor
    actions: Tensor
    weights: Tensor


class ExtraLoss(Protocol):
    """A term of an agent's loss, such as an auxiliary objective on the encoder."""

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the term, weight included, and its metrics.

        Args:
            network: the :class:`~automl_ext.rl.networks.actor_critic.ActorCritic`, or the online
                :class:`~automl_ext.rl.networks.q_network.QNetwork`.
            batch: :class:`Acted` from the policy-gradient agents, :class:`~automl_ext.rl.replay.uniform.Batch` from
                Q-learning.
        """

    def step(self) -> None:
        """Update parameters of its own, if any; called after each backward pass."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BatchTransform(Protocol):
    """A change of every batch between the sampling and the targets, such as augmentation or a new reward."""

    def __call__(self, batch: Batch) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def total_loss(
    loss: Tensor, extra: Sequence[ExtraLoss], network: nn.Module, batch: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss plus the extra losses, and the metrics of these."""
    metrics: dict[str, Tensor] = {}
    for term in extra:
        value, measured = term.loss(network, batch)
        loss = loss + value
        metrics |= measured
    return loss, metrics


def states(extra: Sequence[ExtraLoss]) -> list[dict[str, Any]]:
    return [term.state_dict() for term in extra]


def load_states(extra: Sequence[ExtraLoss], saved: Sequence[dict[str, Any]]) -> None:
    """Restore :func:`states`.

    Raises:
        ValueError: the number of extra losses differs.
    """
    if len(saved) != len(extra):
        raise ValueError(f"extra_losses: expected {len(extra)}, got {len(saved)}")
    for term, state in zip(extra, saved, strict=True):
        term.load_state_dict(state)
