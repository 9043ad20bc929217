"""Libraries that tables need and the package does not."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def library(name: str) -> Any:
    """Import a library of the extra ``tabular``.

    Raises:
        ModuleNotFoundError: it is missing; the message names the extra.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or name).split(".")[0]
        raise ModuleNotFoundError(f'tables need {package}: pip install "automl_ext[tabular]"', name=package) from None
