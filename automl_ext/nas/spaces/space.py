"""What a search space is to a search algorithm: a small object. Adding a space is adding a file with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

from torch import nn

from automl_ext.nas.spaces.supernet import Form, Supernet

Genotype = TypeVar("Genotype")


class Space(Protocol[Genotype]):
    """A set of architectures. A genotype is immutable and hashable; ``str(genotype)`` is its written form.

    An architecture is a sequence of decisions: ``num_choices[d]`` is the number of choices of decision d, ``kinds[d]``
    whether it chooses an "operation" or an "input", and encode/decode translate between a genotype and one index per
    decision.
    """

    num_choices: tuple[int, ...]
    kinds: tuple[str, ...]

    def parse(self, text: str) -> Genotype:
        """The genotype written as ``text``; ValueError when it is none of this space."""
        ...

    def random(self, rng: Random) -> Genotype:
        """A genotype drawn uniformly."""
        ...

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """A neighbour: one decision, drawn uniformly, changed to another choice."""
        ...

    def legal(self, genotype: Genotype, decision: int) -> tuple[int, ...]:
        """What the decision may change to, the others staying as they are; the present choice is none of them."""
        ...

    def encode(self, genotype: Genotype) -> tuple[int, ...]:
        """One index per decision, ``0 <= index[d] < num_choices[d]``."""
        ...

    def decode(self, indices: Sequence[int]) -> Genotype:
        """The inverse of encode; ValueError for a wrong number of indices or one out of range."""
        ...

    def build(
        self,
        genotype: Genotype,
        *,
        in_channels: int,
        num_classes: int,
        channels: int,
        cells: int,
        affine: bool = True,
    ) -> nn.Module:
        """A freshly initialised network: images [N, in_channels, H, W] → logits [N, num_classes]."""
        ...

    def build_supernet(self, *, in_channels: int, num_classes: int, channels: int, cells: int, form: Form) -> Supernet:
        """All networks of the space in one, sharing weights."""
        ...

    def draw(self, genotype: Genotype, path: str | Path) -> None:
        """A picture of the cell; the suffix of ``path`` (.png or .svg) decides the format."""
        ...


def mutate_one_decision(space: Space[Genotype], genotype: Genotype, rng: Random) -> Genotype:
    """A decision drawn uniformly, changed to a legal choice drawn uniformly: ``mutate`` of most spaces."""
    decision = rng.randrange(len(space.num_choices))
    indices = list(space.encode(genotype))
    indices[decision] = rng.choice(space.legal(genotype, decision))
    return space.decode(indices)
