"""What a search strategy is to the one who drives it: ask for a candidate, evaluate it, tell the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, Protocol

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.space import Space


class Evaluated(NamedTuple):
    genotype: Any
    evaluation: Evaluation


@dataclass(frozen=True)
class Candidate:
    """An architecture to evaluate."""

    genotype: Any
    budget: int | None = None  # epochs; None: what the evaluator takes of itself
    parent: Evaluated | None = None  # whose state the evaluation goes on from, or inherits from


class Strategy(Protocol):
    """Results are told in the order in which their candidates were asked for; several may be asked for before the
    first is told. All chance is the strategy's own, so equal results lead to equal candidates."""

    def ask(self) -> Candidate | None:
        """The next candidate; None when there is none before results that are still out have been told."""
        ...

    def tell(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """What the candidate was worth. A failed one has the score −inf."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that decides how the strategy goes on, as tensors and plain Python."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def tournament(population: Sequence[Evaluated], sample: int, rng: Random) -> Evaluated:
    """The best of ``sample`` members, drawn with replacement."""
    return max((rng.choice(population) for _ in range(sample)), key=lambda member: member.evaluation.score)


def pack(space: Space[Any], members: Iterable[Evaluated]) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
    """Members as plain Python and tensors, for a checkpoint."""
    return [(space.encode(genotype), dict(vars(evaluation))) for genotype, evaluation in members]


def unpack(space: Space[Any], packed: Iterable[tuple[Sequence[int], dict[str, Any]]]) -> list[Evaluated]:
    """The inverse of :func:`pack`."""
    return [Evaluated(space.decode(indices), Evaluation(**fields)) for indices, fields in packed]


def set_rng(rng: Random, state: Any) -> None:
    """``rng.setstate`` with what a checkpoint made of ``rng.getstate()``."""
    version, internal, gauss = state
    rng.setstate((version, tuple(internal), gauss))


def at_least(name: str, value: int, least: int) -> None:
    """ValueError for a parameter below its least value."""
    if not value >= least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
