"""Extras: additions to agents that no algorithm contains, one file each.

An extra is a dataclass of options with ``name``, ``seams`` and ``attach(agent)``, see
:class:`automl_ext.rl.loop.seams.Extra`. Its first option turns it on.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import arg

from automl_ext.rl.extras.augment import Augment
from automl_ext.rl.extras.contrastive import Contrastive
from automl_ext.rl.extras.count_bonus import CountBonus
from automl_ext.rl.extras.initial_policy import InitialPolicy
from automl_ext.rl.extras.potential import Potential
from automl_ext.rl.extras.rnd import RND
from automl_ext.rl.extras.self_imitation import SelfImitation
from automl_ext.rl.loop.seams import NoExtras
from automl_ext.training.errors import UserError

__all__ = [
    "EXTRAS",
    "RND",
    "Augment",
    "Contrastive",
    "CountBonus",
    "Extras",
    "InitialPolicy",
    "Potential",
    "SelfImitation",
]


GROUP = arg(name="Extras", prefix_name=False, help="Additions to the algorithm, all off: docs/how-to/rl-extras.md.")


@dataclass
class Extras(NoExtras):
    """The options of all extras, each off by default. They are attached in this order."""

    initial_policy: Annotated[InitialPolicy, GROUP] = field(default_factory=InitialPolicy)
    potential: Annotated[Potential, GROUP] = field(default_factory=Potential)
    count_bonus: Annotated[CountBonus, GROUP] = field(default_factory=lambda: CountBonus(weight=0.0))
    rnd: Annotated[RND, GROUP] = field(default_factory=lambda: RND(weight=0.0))
    self_imitation: Annotated[SelfImitation, GROUP] = field(default_factory=lambda: SelfImitation(updates=0))
    augment: Annotated[Augment, GROUP] = field(default_factory=lambda: Augment(kind=None))
    contrastive: Annotated[Contrastive, GROUP] = field(default_factory=lambda: Contrastive(weight=0.0))

    @classmethod
    def of(cls, extras: Iterable[Any]) -> Extras:
        """Return the options of several extras, each of another class in :data:`EXTRAS`; the others are off.

        Raises:
            UserError: two extras of one class.
        """
        found: dict[str, Any] = {}
        for extra in extras:
            if EXTRAS[type(extra)] in found:
                raise UserError(f"extras: expected {type(extra).__name__} once, got it twice")
            found[EXTRAS[type(extra)]] = extra
        return cls(**found)

    def each(self) -> Iterator[Any]:
        """Yield the extras that are on. Warn about options of those that are off."""
        for f in dataclasses.fields(self):
            extra = getattr(self, f.name)
            switch, *others = dataclasses.fields(extra)
            if getattr(extra, switch.name):
                yield extra
                continue
            if changed := [f"{extra.name}.{o.name}" for o in others if getattr(extra, o.name) != o.default]:
                warnings.warn(f"{', '.join(changed)}: no effect without {extra.name}.{switch.name}", stacklevel=4)


EXTRAS: dict[type, str] = {type(getattr(Extras(), f.name)): f.name for f in dataclasses.fields(Extras)}  # field of each
