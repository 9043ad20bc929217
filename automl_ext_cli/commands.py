"""Command lines that need no torch: help, version, and commands that do not exist."""

from __future__ import annotations

import difflib
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

COMPLETION = "--print-completion"  # takes the name of a shell


def package_folder() -> Path:
    """Return the folder of the package ``automl_ext``, without importing it."""
    spec = find_spec("automl_ext")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("automl_ext is not installed", name="automl_ext")
    return Path(next(iter(spec.submodule_search_locations)))


def command_names(usage: str) -> list[str]:
    """Return the names of the commands in the text of ``usage.txt``: what precedes two spaces in indented lines."""
    return [line.strip().split("  ")[0] for line in usage.splitlines() if line.startswith("  ")]


def command_name(argv: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the command that the arguments start with, of one or two words. None: there is no such command."""
    return next((name for words in (2, 1) if (name := " ".join(argv[:words])) in names), None)


def unknown_command(argv: Sequence[str], names: Sequence[str]) -> str:
    """Return the error message for arguments that start with no command: the choices, and the nearest of them."""
    first, *rest = argv
    choices = [name.removeprefix(f"{first} ") for name in names if name.startswith(f"{first} ")]
    if choices:
        given = repr(rest[0]) if rest else "nothing"
        message = f"{first}: expected one of {', '.join(choices)}, got {given}"
        near = difflib.get_close_matches(rest[0], choices, n=1) if rest else []
    else:
        message = f"unknown command {first!r}"
        words = dict.fromkeys([*names, *(name.split()[0] for name in names)])
        near = difflib.get_close_matches(" ".join(argv[:2]), words, n=1) or difflib.get_close_matches(first, words, n=1)
    return message + (f"; did you mean {near[0]!r}?" if near else "")


def flush_output() -> None:
    """Flush standard output. Raises OSError on a full disk.

    The rest of the output is then dropped. Otherwise Python would flush again at exit and return code 120.
    """
    try:
        sys.stdout.flush()
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        raise


def show(text: str) -> int:
    """Print ``text``. Return the exit code: 0, or 2 on a full disk or a closed pipe, with one line."""
    try:
        print(text)
        flush_output()
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def answer(argv: Sequence[str]) -> int | None:
    """Handle a command line that needs no torch. Return its exit code, or None if a command must be run."""
    usage = (package_folder() / "usage.txt").read_text(encoding="utf-8").rstrip("\n")
    names = command_names(usage)
    if not argv or argv[0] in ("-h", "--help"):
        return show(usage) if argv else show(usage) or 2
    if argv[0] == "--version":
        return show(runpy.run_path(str(package_folder() / "_version.py"))["__version__"])
    if argv[0] == COMPLETION or command_name(argv, names) is not None:
        return None
    of_first = [line for line in usage.splitlines() if line.startswith(f"  {argv[0]} ")]
    if of_first and argv[1:2] in (["-h"], ["--help"]):
        return show("\n".join([f"usage: automl-ext {argv[0]} NAME [OPTIONS]", "", *of_first]))
    print(f"error: {unknown_command(argv, names)}", file=sys.stderr)
    if not of_first:
        print(usage, file=sys.stderr)
    return 2
