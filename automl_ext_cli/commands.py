"""Command lines that need no torch: help, version, and commands that do not exist."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence

from automl_ext_cli.table import COMMANDS

COMPLETION = "--print-completion"  # takes the name of a shell
PIPE_CLOSED = 141  # exit code of a program that SIGPIPE ends, as shells report it
LONGEST = 200  # characters of a word in a message


def lines(names: Iterable[str]) -> list[str]:
    """Return one line per command: its name and its help."""
    return [f"  {name:<28}{COMMANDS[name].help}" for name in names]


def usage() -> str:
    """Return the list of commands, which ``automl-ext --help`` prints."""
    first = "usage: automl-ext COMMAND [OPTIONS]   (COMMAND --help lists the options)"
    more = "Others: --version; --print-completion bash|zsh|fish prints a script for completion with TAB."
    return "\n".join([first, "", *lines(COMMANDS), "", more])


def command_name(argv: Sequence[str], names: Iterable[str]) -> str | None:
    """Return the command that the arguments start with, of one or two words. None: there is no such command."""
    return next((name for name in names if list(argv[: len(name.split())]) == name.split()), None)


def unknown_command(argv: Sequence[str], names: Sequence[str]) -> str:
    """Return the error message for arguments that start with no command: the choices, and the nearest of them."""
    import difflib

    first, *rest = argv
    choices = [name.removeprefix(f"{first} ") for name in names if name.startswith(f"{first} ")]
    if first in names:
        return f"unknown command {first!r}; did you mean {first}, without quotes?"
    if choices:
        given = shown(rest[0]) if rest else "nothing"
        message = f"{first}: expected one of {', '.join(choices)}, got {given}"
        near = difflib.get_close_matches(rest[0], choices, n=1) if rest else []
    else:
        message = f"unknown command {shown(first)}"
        words = dict.fromkeys([*names, *(name.split()[0] for name in names)])
        near = difflib.get_close_matches(" ".join(argv[:2]), words, n=1) or difflib.get_close_matches(first, words, n=1)
    return message + (f"; did you mean {near[0]!r}?" if near else "")


def cut(word: str) -> str:
    """Return a word of a message, cut to at most ``LONGEST`` characters."""
    return word if len(word) <= LONGEST else f"{word[: LONGEST - 3]}..."


def shown(argument: str) -> str:
    """Return the ``repr`` of an argument for a message."""
    return repr(cut(argument))


def show(text: str) -> int:
    """Print ``text``. Return the exit code: 0, or that of :func:`output_lost`."""
    try:
        print(text, flush=True)
    except OSError as error:
        return output_lost(error)
    return 0


def flush_output() -> int:
    """Flush standard output. Return the exit code: 0, or that of :func:`output_lost`."""
    try:
        if sys.stdout is not None:  # None: it is closed
            sys.stdout.flush()
    except OSError as error:
        return output_lost(error)
    return 0


def output_lost(error: OSError) -> int:
    """Drop what standard output still holds, because Python would flush it again at exit and print a traceback.

    Returns:
        The exit code. 141: standard output is a closed pipe, for example in ``automl-ext --help | head -1``. 2: it
        cannot be written, for example on a full disk; one line on standard error says so.
    """
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    return PIPE_CLOSED if isinstance(error, BrokenPipeError) else refuse(str(error))


def output_is_closed_pipe() -> bool:
    """Return whether nobody can read what is written to standard output."""
    import select

    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def refuse(message: str) -> int:
    """Print an error. Return exit code 2."""
    return complain(f"error: {message}")


def complain(text: str) -> int:
    """Print ``text`` to standard error, which may be a closed pipe. Return exit code 2."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    return 2


def version() -> str:
    """Return the version of the package ``automl_ext``, without importing the package."""
    import runpy
    from importlib.util import find_spec

    spec = find_spec("automl_ext")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("automl_ext is not installed", name="automl_ext")
    folder = next(iter(spec.submodule_search_locations))
    found: str = runpy.run_path(os.path.join(folder, "_version.py"))["__version__"]
    return found


def answer(argv: Sequence[str]) -> int | None:
    """Handle a command line that needs no torch. Return its exit code, or None if a command must be run."""
    if not argv:
        return complain(usage())
    if argv[0] in ("-h", "--help"):
        return show(usage())
    if argv[0] == "--version":
        return show(version()) if len(argv) == 1 else refuse(f"--version: expected no argument, got {shown(argv[1])}")
    if argv[0] == COMPLETION or command_name(argv, COMMANDS) is not None:
        return None
    of_first = [name for name in COMMANDS if name.startswith(f"{argv[0]} ")]
    if of_first and argv[1:2] in (["-h"], ["--help"]):
        return show("\n".join([f"usage: automl-ext {argv[0]} NAME [OPTIONS]", "", *lines(of_first)]))
    code = refuse(unknown_command(argv, list(COMMANDS)))
    if not of_first:
        complain(usage())
    return code
