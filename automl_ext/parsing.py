"""Parsing beyond tyro: one-line errors of configurations, and values of options that are read in advance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from automl_ext.training.errors import UserError


@contextlib.contextmanager
def raise_user_errors(kind: type) -> Iterator[None]:
    """Make a dataclass's own checks raise UserError inside the block: tyro prints a ValueError as a box of lines.

    Args:
        kind: a dataclass; without ``__post_init__`` it is left as it is.
    """
    check, own = getattr(kind, "__post_init__", None), "__post_init__" in vars(kind)
    if check is None:
        yield
        return

    def checked(self: Any) -> None:
        try:
            check(self)
        except (ValueError, OverflowError) as error:
            raise UserError(str(error)) from None

    kind.__post_init__ = checked  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if own:
            kind.__post_init__ = check  # type: ignore[attr-defined]
        else:
            del kind.__post_init__  # type: ignore[attr-defined]


def option_value(flag: str, args: Sequence[str]) -> str | None:
    """Return the value of --config, --preset or --recipe, which set the defaults of the options that tyro parses."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(f"{flag}="):
            return arg.removeprefix(f"{flag}=")
    return None
