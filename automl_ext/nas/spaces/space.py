"""The interface of a search space. To add a space, add a file with one class and a line in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from torch import nn

from automl_ext.training.errors import UserError

if TYPE_CHECKING:
    from automl_ext.nas.spaces.supernet import Form, Supernet

Genotype = TypeVar("Genotype")


class Space(Protocol[Genotype]):
    """A search space: a set of architectures, and the networks built from them.

    A genotype describes one architecture. It is immutable and hashable, and ``str(genotype)`` is its text form. It is
    equivalent to a sequence of decisions, one index each; ``encode`` and ``decode`` convert between the two.

    Attributes:
        num_choices: the number of choices of each decision.
        kinds: the kind of each decision, "operation" or "input".
    """

    num_choices: tuple[int, ...]
    kinds: tuple[str, ...]

    def parse(self, text: str) -> Genotype:
        """Parse a genotype; the inverse of ``str``.

        Raises:
            ValueError: ``text`` is not a genotype of this space.
        """
        ...

    def random(self, rng: Random) -> Genotype:
        """Draw a genotype uniformly."""
        ...

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """Return a copy with another choice in one decision, which is drawn uniformly from all with several choices."""
        ...

    def legal(self, genotype: Genotype, decision: int) -> tuple[int, ...]:
        """Return the choices to which one decision may change while all others stay; without its present choice."""
        ...

    def encode(self, genotype: Genotype) -> tuple[int, ...]:
        """Return one index per decision, ``0 <= index[d] < num_choices[d]``."""
        ...

    def decode(self, indices: Sequence[int]) -> Genotype:
        """Return the genotype of these indices; the inverse of ``encode``.

        Raises:
            ValueError: the number of indices is wrong, or one is out of range.
        """
        ...

    def build(self, genotype: Genotype, *, in_channels: int, num_classes: int, channels: int, cells: int) -> nn.Module:
        """Build a newly initialized network: images [N, in_channels, H, W] → logits [N, num_classes].

        Args:
            channels: the number of channels C of the first stage.
            cells: the number of cells N per stage.
        """
        ...

    def build_supernet(self, *, in_channels: int, num_classes: int, channels: int, cells: int, form: Form) -> Supernet:
        """Build a supernet, which contains all networks of the space with shared weights.

        Raises:
            UserError, NotImplementedError: the space has no supernet.
        """
        ...

    def draw(self, genotype: Genotype, path: str | Path, title: str = "") -> None:
        """Draw the cell with a title above it; the suffix of ``path`` (.png or .svg) selects the format."""
        ...


class DecisionSpace:
    """A base class of spaces in which every decision may change to any other choice."""

    def random(self: Space[Genotype], rng: Random) -> Genotype:
        return self.decode([rng.randrange(n) for n in self.num_choices])

    def mutate(self: Space[Genotype], genotype: Genotype, rng: Random) -> Genotype:
        """Draw a decision among those with several choices, and a legal choice for it; both draws are uniform."""
        free = [decision for decision, n in enumerate(self.num_choices) if n > 1]
        decision = free[rng.randrange(len(free))]
        indices = list(self.encode(genotype))
        indices[decision] = rng.choice(self.legal(genotype, decision))
        return self.decode(indices)

    def legal(self: Space[Genotype], genotype: Genotype, decision: int) -> tuple[int, ...]:
        present = self.encode(genotype)[decision]
        return tuple(k for k in range(self.num_choices[decision]) if k != present)


def supernet_of(space: Space[Any], **arguments: Any) -> Supernet:
    """Build a space's supernet; ``arguments`` are those of ``build_supernet``.

    Raises:
        UserError: the space has no supernet.
    """
    try:
        return space.build_supernet(**arguments)
    except NotImplementedError as error:
        reason = f": {error}" if str(error) else ""
        raise UserError(f"space {type(space).__name__}: has no supernet{reason}") from None


def check_indices(indices: Sequence[int], num_choices: Sequence[int]) -> None:
    """Raise ValueError unless ``indices`` has one index for each decision, within its choices."""
    if len(indices) != len(num_choices) or not all(0 <= k < n for k, n in zip(indices, num_choices, strict=True)):
        expected = f"{len(num_choices)} below {tuple(num_choices)}"
        raise ValueError(f"decode: indices: expected {expected}, got {list(indices)}")
