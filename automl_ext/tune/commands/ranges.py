"""The search space of a command: the ranges that its configuration declares, changed by a TOML file.

    exclude = ["ent_coef"]          # not searched; or: only = ["lr", "gamma"]

    [lr]                            # in place of the declared range
    low = 1e-4
    high = 1e-2
    log = true

    [n_steps]
    values = [16, 32, 64]

The name of an option of an inner configuration is written with a dot: ``["env.frame_stack"]``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

from automl_ext.training.config import convert, read_toml
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.search_space import Categories, Range, Values, search_space

KEYS = {"low", "high", "log", "values"}


def space_of(settings: Any, path: Path | None) -> dict[str, Values]:
    """Return the search space of a configuration, without the options that its method ``unread`` names, if it has one.

    Raises:
        UserError: the file is not valid, or the space is empty.
    """
    unread = settings.unread() if hasattr(settings, "unread") else ()
    space = {name: values for name, values in search_space(settings).items() if name not in unread}
    if path is not None:
        space = changed(space, settings, read_toml(path), str(path))
    if not space:
        raise UserError(f"{type(settings).__name__} declares no ranges to search: expected --ranges FILE.toml")
    return space


def changed(space: dict[str, Values], settings: Any, table: dict[str, Any], path: str) -> dict[str, Values]:
    """Apply the content of a TOML file to a space."""
    hints = option_types(settings)
    exclude, only = (names_in(table.pop(key, None), f"{path}: {key}", hints) for key in ("exclude", "only"))
    new = dict(space)
    for name, values in table.items():
        if name not in hints:
            raise UserError(f"{path}: unknown option {short(name)}; valid ones are {', '.join(hints)}")
        if not isinstance(values, dict) or set(values) - KEYS:
            raise UserError(f"{path}: {name}: expected a table with low and high, or values, got {short(values)}")
        new[name] = values_of(values, hints[name], f"{path}: {name}")
    for name in table:
        for key, leaves_out in (("exclude", name in (exclude or [])), ("only", only is not None and name not in only)):
            if leaves_out:
                raise UserError(f"{path}: {name} has a table, but {key} leaves it out")
    if only is not None:
        if missing := [name for name in only if name not in new]:
            raise UserError(f"{path}: only: {missing[0]} has no range: add [{missing[0]}] with low and high, or values")
        new = {name: values for name, values in new.items() if name in only}
    return {name: values for name, values in new.items() if name not in (exclude or [])}


def values_of(table: dict[str, Any], hint: Any, where: str) -> Values:
    """Return the values that a table describes, for an option of the type ``hint``."""
    try:
        if "values" in table:
            if set(table) != {"values"} or not isinstance(table["values"], list):
                raise ValueError(f"expected a list of values, or low and high, got {short(table)}")
            values = [convert(value, hint) for value in table["values"]]  # 1 stands for 1.0, if it is a float
            if not all(isinstance(value, (str, int, float)) for value in values):
                raise ValueError(f"expected numbers, strings or booleans, got {short(values)}")
            return Categories(*values)
        low: Any = table.get("low")
        high: Any = table.get("high")
        log = table.get("log", False)
        if not (type(low) in (int, float) and type(high) in (int, float) and isinstance(log, bool)):
            raise ValueError(f"expected numbers low and high, and log = true or false, got {short(table)}")
        kinds = kinds_of(hint)
        if not kinds & {int, float}:
            raise ValueError("expected values = [...]: the option is no number")
        if float in kinds:
            return Range(float(low), float(high), log)
        if not (type(low) is int and type(high) is int):
            raise ValueError(f"expected whole numbers low and high, got {low} and {high}")
        return Range(low, high, log)
    except (ValueError, OverflowError) as error:  # OverflowError: an integer above 1e308
        raise UserError(f"{where}: {error}") from None


def kinds_of(hint: Any) -> set[Any]:
    """Return the types of a union such as ``int | None``, or the annotation itself if it is not a union."""
    return set(typing.get_args(hint)) if typing.get_origin(hint) in (typing.Union, types.UnionType) else {hint}


def names_in(value: Any, where: str, hints: dict[str, Any]) -> list[str] | None:
    """Check a list of names of options."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) and name in hints for name in value):
        raise UserError(f"{where}: expected a list of options, got {short(value)}; valid ones are {', '.join(hints)}")
    return value


def option_types(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return the type of each option of a dataclass instance, and of the dataclasses in it, by dotted name."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= option_types(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = hints[field.name]
    return found
