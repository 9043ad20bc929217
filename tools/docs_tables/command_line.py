"""The sections of docs/reference/cli.md, one per command: the page runs ``show(command)`` while it is built."""

from __future__ import annotations

from automl_ext_cli.table import COMMANDS

TUNED = "train reinforce"  # the tuned command in the help of tune


def commands() -> str:
    """Return a section for every command but the aliases."""
    return "\n".join(_section(name) for name, command in COMMANDS.items() if command.kind != "alias")


def _section(name: str) -> str:
    shown = f"{name} {TUNED}" if name == "tune" else name
    return f'### {name}\n\n```{{code-cell}} ipython3\n:tags: [remove-input]\n\nshow("{shown}")\n```\n'
