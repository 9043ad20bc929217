"""Search spaces by name."""

from __future__ import annotations

from typing import Any

from automl_ext.nas.nasbench201 import NASBench201
from automl_ext.nas.space import Space
from automl_ext.training.errors import UserError

SPACES = {"nb201": NASBench201}


def space(name: str) -> Space[Any]:
    """The space called ``name``.

    Raises:
        UserError: there is none; the names are listed.
    """
    if name not in SPACES:
        raise UserError(f"space: expected one of {', '.join(SPACES)}, got {name!r}")
    return SPACES[name]()
