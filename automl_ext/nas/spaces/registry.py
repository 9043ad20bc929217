"""The registry of search spaces, and spaces of the user by ``MODULE:CLASS``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from automl_ext.nas.spaces.convnet import ConvNetSpace
from automl_ext.nas.spaces.darts_space import Darts
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.own import own_space
from automl_ext.nas.spaces.renas_space import ReNASSpace
from automl_ext.nas.spaces.space import Space
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.user_code import check_trusted, raised

SPACES: dict[str, Callable[[], Space[Any]]] = {
    "nb201": NASBench201,
    "darts": Darts,
    "darts-frc": partial(Darts, fixed_reduction=True),  # GDAS's fixed reduction cell
    "renas": ReNASSpace,
    "convnet": ConvNetSpace,
}
GROUP = "automl_ext.spaces"  # entry points of other distributions: name = MODULE:CLASS


def space(name: str) -> Space[Any]:
    """Make the space called ``name``, or the user's space ``MODULE:CLASS``, whose module is imported.

    Raises:
        UserError: no space has this name, or the user's class is not a space.
    """
    if name in SPACES:
        return SPACES[name]()
    if ":" not in name:
        others = {entry.name: entry.value for entry in entry_points(group=GROUP)}
        if name not in others:
            names = ", ".join([*SPACES, *others])
            raise UserError(f"--space: expected one of {names}, or MODULE:CLASS, got {name!r}")
        name = others[name]
    return own_space(name)


def stored_space(name: str, trust: Iterable[str], source: Path) -> Space[Any]:
    """Make the space that a file names.

    Raises:
        UserError: see :func:`space`; or the module is not in ``trust``.
    """
    check_trusted([name], trust, source)
    return space(name)


def parse_genotype(space: Space[Any], text: str) -> Any:
    """Parse a genotype that a user wrote.

    Raises:
        UserError: ``text`` is not a genotype of ``space``.
    """
    try:
        return space.parse(text)
    except ValueError as error:
        raise UserError(str(error)) from None
    except Exception as error:  # of a user's space
        raise UserError(f"{type(space).__name__}.parse({short(text)}) {raised(error)}") from None
