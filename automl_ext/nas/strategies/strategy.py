"""The interface of search strategies: ask for a candidate, evaluate it, tell the strategy the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, Protocol

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space


class Evaluated(NamedTuple):
    """An architecture and its evaluation."""

    genotype: Any
    evaluation: Evaluation


@dataclass(frozen=True)
class Candidate:
    """An architecture to evaluate."""

    genotype: Any
    budget: int | None = None  # epochs; None: the evaluator's default
    parent: Evaluated | None = None  # the evaluation continues from its state, or inherits its weights


class Screened(NamedTuple):
    """An architecture and its combined rank by training-free scores among the screened candidates.

    See automl_ext.nas.screening.
    """

    genotype: Any
    rank: float  # sum of log-ranks, at most 0; −inf: not defined


class Strategy(Protocol):
    """Interface of a search strategy.

    Results are reported with :meth:`tell` in the order in which the candidates were proposed. Several candidates may be
    requested before the first result is reported. A strategy has its own random state, so equal seeds and results lead
    to equal candidates.
    """

    def ask(self) -> Candidate | None:
        """Return the next candidate, or None if the strategy needs pending results first."""
        ...

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Learn from the reported result of a candidate. A failed one has the score −inf."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that determines the next candidates, as tensors and plain Python."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        ...


def starting(space: Space[Any], rng: Random, screened: Sequence[Screened], number: int) -> Any:
    """Return initial architecture ``number``, from 0: the screened ones in order, then uniform draws."""
    return screened[number].genotype if number < len(screened) else space.random(rng)


def tournament(population: Sequence[Evaluated], sample: int, rng: Random) -> Evaluated:
    """Return the best of ``sample`` members drawn with replacement."""
    return max((rng.choice(population) for _ in range(sample)), key=lambda member: member.evaluation.score)


def pack(space: Space[Any], members: Iterable[Evaluated]) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
    """Convert evaluated architectures, such as a population, to plain Python and tensors, for a checkpoint."""
    return [(space.encode(genotype), dict(vars(evaluation))) for genotype, evaluation in members]


def unpack(space: Space[Any], packed: Iterable[tuple[Sequence[int], dict[str, Any]]]) -> list[Evaluated]:
    """Convert the output of :func:`pack` back to evaluated architectures."""
    return [Evaluated(space.decode(indices), Evaluation(**fields)) for indices, fields in packed]


def set_rng(rng: Random, state: Any) -> None:
    """Restore a state of ``rng.getstate()`` that was stored in a checkpoint, with lists instead of tuples."""
    version, internal, gauss = state
    rng.setstate((version, tuple(internal), gauss))


def at_least(name: str, value: int, least: int) -> None:
    """Raise ValueError if ``value`` is below ``least``."""
    if not value >= least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
