"""The parser of options: tyro, with short messages."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import tyro

from automl_ext_cli.commands import LONGEST, cut


def parse_options(form: Any, prog: str, args: Sequence[str], **given: Any) -> Any:
    """Parse the options of a command into the dataclass ``form``, by ``tyro.cli``, whose other arguments are ``given``.

    Raises:
        SystemExit: the arguments are wrong, or ask for help. The message repeats the arguments; long ones are cut.
    """
    if max(map(len, args), default=0) <= LONGEST:
        return tyro.cli(form, prog=prog, args=args, **given)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(form, prog=prog, args=args, **given)
    except SystemExit as end:
        if end.code:
            tyro.cli(form, prog=prog, args=[cut(arg) for arg in args], **given)  # prints the message
        raise
