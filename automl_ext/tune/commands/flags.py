"""A configuration as the flags of its command, and as a TOML file for --config."""

from __future__ import annotations

import dataclasses
import json
import shlex
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import tyro


class Change(NamedTuple):
    """An option that differs from its default.

    Attributes:
        name: dotted name.
        flag: name of the flag.
        repeated: whether the flag takes one item at a time, and is repeated for each item of the value.
        positional: whether the command takes the value without a flag.
    """

    name: str
    flag: str
    value: Any
    repeated: bool
    positional: bool


def changes(config: Any, default: Any, prefix: str = "", flag: str = "") -> Iterator[Change]:
    """Yield each option that differs from the one of ``default``."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        notes = getattr(hints[field.name], "__metadata__", ())
        if dataclasses.is_dataclass(value):
            kind: Any = type(value)
            usual = usual if type(usual) is kind else kind()  # extras, which are optional
            # tyro.conf.arg(prefix_name=False) leaves the outer name out of the flags
            omitted = any(getattr(note, "prefix_name", True) is False for note in notes)
            yield from changes(value, usual, f"{prefix}{field.name}.", flag if omitted else f"{flag}{field.name}.")
        elif type(value) is not type(usual) or value != usual:
            repeated = tyro.conf.UseAppendAction in notes
            named = next((note.name for note in notes if getattr(note, "name", None)), flag + field.name)
            positional = tyro.conf.Positional in notes
            yield Change(prefix + field.name, named.replace("_", "-"), value, repeated, positional)


def as_flags(config: Any) -> str:
    """Return the words with which a command has this configuration; options with their defaults are left out."""
    first: list[str] = []
    words: list[str] = []
    for _, name, value, repeated, positional in changes(config, type(config)()):
        if positional:
            first.append(text(value))
        elif isinstance(value, bool):
            *outer, last = name.split(".")
            words.append("--" + ".".join([*outer, last if value else f"no-{last}"]))
        elif repeated:
            for item in value:
                words += [f"--{name}", text(item)]
        else:
            words += [f"--{name}", *map(text, value if isinstance(value, (tuple, list)) else [value])]
    return shlex.join([*first, *words])


def text(value: Any) -> str:
    """Return a value as a word of the command line."""
    return value.name if isinstance(value, Enum) else str(value)


def as_toml(config: Any, comment: str) -> str:
    """Return a TOML file for --config; options with their defaults are left out.

    TOML has no None: an option that is None, but not by default, becomes a comment.
    """
    lines, tables = [f"# {line}" for line in comment.splitlines()], dict[str, list[str]]()
    for name, flag, value, *_ in changes(config, type(config)()):
        table, _, last = name.rpartition(".")
        line = f"# {last}: None; add --{flag} None" if value is None else f"{last} = {toml_value(value)}"
        tables.setdefault(table, []).append(line)
    lines += tables.pop("", [])
    for table, inner in tables.items():
        lines += ["", f"[{table}]", *inner]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """Return a value in TOML's notation."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are valid
    if isinstance(value, int):
        return str(value)
    word = value.name if isinstance(value, Enum) else str(value) if isinstance(value, Path) else value
    # TOML has no surrogate pairs, which JSON would write above U+FFFF, and its strings cannot contain DEL.
    return json.dumps(word, ensure_ascii=False).replace("\x7f", "\\u007f")
