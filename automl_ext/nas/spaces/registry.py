"""The registry of search spaces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from automl_ext.nas.spaces.darts import Darts
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.renas import ReNASSpace
from automl_ext.nas.spaces.space import Space
from automl_ext.training.errors import UserError

SPACES: dict[str, Callable[[], Space[Any]]] = {
    "nb201": NASBench201,
    "darts": Darts,
    "darts-frc": partial(Darts, fixed_reduction=True),  # GDAS's fixed reduction cell
    "renas": ReNASSpace,
}


def space(name: str) -> Space[Any]:
    """Make the space called ``name``.

    Raises:
        UserError: no space has this name.
    """
    if name not in SPACES:
        raise UserError(f"--space: expected one of {', '.join(SPACES)}, got {name!r}")
    return SPACES[name]()


def parse_genotype(space: Space[Any], text: str) -> Any:
    """Parse a genotype that a user wrote.

    Raises:
        UserError: ``text`` is not a genotype of ``space``.
    """
    try:
        return space.parse(text)
    except ValueError as error:
        raise UserError(str(error)) from None
