"""The places where extras act on an agent. Algorithms call :class:`Seams`; without extras it changes nothing.

1. ``initial``: the weights before training
2. ``rewards`` and ``steps``: every step, by a transform in ``Envs.transforms``
   (:class:`automl_ext.rl.envs.vector.StepTransform`): ``rewards`` if it has no state, ``steps`` if it has one
3. ``batch``: every batch of a replay, before its targets are computed, for example its rewards. If a transform puts
   several copies of each transition into the batch, ``merge`` combines the targets and the errors of the copies
4. ``terms``: terms that are added to the loss
5. ``after``: functions that are called after an update
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

Seam = Literal["initial", "rewards", "steps", "batch", "terms", "after"]


class Acted(NamedTuple):
    """N steps of a rollout, which the policy-gradient agents pass to a :class:`LossTerm`.

    Attributes:
        observations: [N, ...].
        actions: [N, ...], as sampled from the policy.
        weights: float32 [N], sum 1: 0 where the step is not a transition, equal elsewhere. None: all are equal.
    """

    observations: Tensor
    actions: Tensor
    weights: Tensor | None = None


class StatefulPart(Protocol):
    """A part with a state that an extra adds to an agent. It may have ``cut()``, which forgets running episodes."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class LossTerm(Protocol):
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
        """Update the term's own parameters, if any. Called after each backward pass (DQN, PPO: and optimizer step)."""


class Extra(Protocol):
    """An addition to an agent, with its options. See :mod:`automl_ext.rl.extras`.

    Attributes:
        name: its name in checkpoints.
        seams: the seams at which it acts.
    """

    name: ClassVar[str]
    seams: ClassVar[frozenset[Seam]]

    def attach(self, agent: Any) -> StatefulPart | None:
        """Add parts to ``agent.seams`` and ``agent.envs``. Return the part whose state checkpoints contain, if any."""


@dataclass
class NoExtras:
    """Stands in for ``automl_ext.rl.extras.Extras``, the options of all extras, in a configuration without extras."""

    def each(self) -> Iterable[Extra]:
        """Return the extras that the options ask for."""
        return ()


@dataclass
class Seams:
    """The parts that extras have added to an agent; the docstring of this module says when each is called.

    Attributes:
        names: names of the extras.
        parts: objects with a state, by the name of their extra.
        initial: transforms of the weights before training.
        batch: transforms of batches from a replay.
        merge: means over the copies of a batch.
        terms: terms of the loss.
        after: functions that are called after each update.
    """

    names: set[str] = field(default_factory=set)
    parts: dict[str, StatefulPart] = field(default_factory=dict)
    initial: list[Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=list)
    batch: list[Callable[[Any], Any]] = field(default_factory=list)
    merge: list[Callable[[Tensor], Tensor]] = field(default_factory=list)
    terms: list[LossTerm] = field(default_factory=list)
    after: list[Callable[[Any], dict[str, Any]]] = field(default_factory=list)

    def transformed(self, batch: Any) -> Any:
        """Apply the transforms of batches."""
        for transform in self.batch:
            batch = transform(batch)
        return batch

    def merged(self, values: Tensor) -> Tensor:
        """Combine the values of the copies of each transition: targets or errors of a transformed batch, [N, ...]."""
        for merge in self.merge:
            values = merge(values)
        return values

    def add_terms(
        self, loss: Tensor, metrics: dict[str, Any], network: nn.Module, batch: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Add the terms to a loss, and their metrics to its metrics."""
        for term in self.terms:
            value, measured = term.loss(network, batch)
            loss, metrics = loss + value, metrics | measured
        return loss, metrics

    def step(self) -> None:
        """Update the terms' own parameters, after a backward pass."""
        for term in self.terms:
            term.step()

    def updated(self, rollout: Any = None) -> dict[str, Any]:
        """Call the functions of ``after``; return their metrics.

        Args:
            rollout: the rollout that the update learned from; None for Q-learning.
        """
        metrics: dict[str, Any] = {}
        for call in self.after:
            metrics |= call(rollout)
        return metrics

    def cut(self) -> None:
        """Forget the running episodes; called when a resumed run starts new ones."""
        for part in self.parts.values():
            if hasattr(part, "cut"):
                part.cut()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            ValueError: the state has other extras.
        """
        if state.keys() != self.parts.keys():
            raise ValueError(f"extras: expected {sorted(self.parts) or 'none'}, got {sorted(state) or 'none'}")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
