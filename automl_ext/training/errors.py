"""Errors of the user: wrong input, and packages that are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Wrong input, described in one line. The command line prints ``error: …`` and exits with code 2."""


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Name the extra that installs a package, if importing it in the ``with`` block fails.

    Args:
        what: the feature that needs the package, the start of the message.
        extra: name of the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{what} needs {error.name}: pip install "automl_ext[{extra}]"', name=error.name
        ) from None
