"""Scripts that complete the commands and options of ``automl-ext`` with TAB."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tyro.extras import SubcommandApp

from automl_ext.training.errors import UserError

SHELLS = ("bash", "zsh", "fish")


def print_script(args: Sequence[str], commands: Mapping[str, tuple[str, Any]]) -> None:
    """Print the script for a shell.

    Args:
        args: the name of the shell.
        commands: per command of one or more words: its help text, and the dataclass of its options.

    Raises:
        UserError: not one of :data:`SHELLS`.
    """
    if len(args) != 1 or args[0] not in SHELLS:
        raise UserError(f"--print-completion: expected one of {', '.join(SHELLS)}, got {' '.join(args) or 'nothing'}")
    groups: dict[str, SubcommandApp] = {"": SubcommandApp()}  # by the first words of their commands
    app = groups[""]
    for name, (text, form) in commands.items():
        *words, last = name.split()
        for i, word in enumerate(words):
            if (group := " ".join(words[: i + 1])) not in groups:
                groups[group] = SubcommandApp()
                groups[" ".join(words[:i])].command(groups[group], name=word)
        add: Any = groups[" ".join(words)].command
        add(form, name=last, help=text)
    script = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(script):  # tyro exits after it has printed
        app.cli(prog="automl-ext", args=["--tyro-print-completion", args[0]])
    for line in script.getvalue().splitlines():
        # The script prints one candidate per line: help texts of several lines would be candidates.
        print(line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC") else line)
