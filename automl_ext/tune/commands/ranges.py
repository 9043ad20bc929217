"""The search space of a command: what its configuration declares, changed by a TOML file.

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
import typing
from pathlib import Path
from typing import Any

from automl_ext.training.config import read_toml
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.search_space import Categories, Range, Values, search_space

KEYS = {"low", "high", "log", "values"}


def space_of(kind: type, path: Path | None) -> dict[str, Values]:
    """Return the search space of a configuration's class.

    Args:
        kind: the class.
        path: TOML file with changes; None: as declared.

    Raises:
        UserError: the file is not valid, or the space is empty.
    """
    space = search_space(kind)
    if path is not None:
        space = changed(space, kind, read_toml(path), str(path))
    if not space:
        raise UserError(f"{kind.__name__} declares no ranges to search: expected --ranges FILE.toml")
    return space


def changed(space: dict[str, Values], kind: type, table: dict[str, Any], path: str) -> dict[str, Values]:
    """Apply the content of a TOML file to a space."""
    types = option_types(kind)
    exclude, only = (names_in(table.pop(key, None), f"{path}: {key}", types) for key in ("exclude", "only"))
    new = dict(space)
    for name, values in table.items():
        if name not in types:
            raise UserError(f"{path}: unknown option {short(name)}; valid ones are {', '.join(types)}")
        if not isinstance(values, dict) or set(values) - KEYS:
            raise UserError(f"{path}: {name}: expected a table with low and high, or values, got {short(values)}")
        new[name] = values_of(values, types[name], f"{path}: {name}")
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
            numbers = hint is float  # 1 stands for 1.0
            plain = [float(v) if numbers and type(v) is int else v for v in table["values"]]
            if not all(isinstance(value, (str, int, float)) for value in plain):
                raise ValueError(f"expected numbers, strings or booleans, got {short(plain)}")
            return Categories(*plain)
        low, high, log = table.get("low"), table.get("high"), table.get("log", False)
        if not (isinstance(low, (int, float)) and isinstance(high, (int, float)) and isinstance(log, bool)):
            raise ValueError(f"expected numbers low and high, and log = true or false, got {short(table)}")
        if hint is not int:
            low, high = float(low), float(high)
        elif not (type(low) is int and type(high) is int):
            raise ValueError(f"expected whole numbers low and high, got {low} and {high}")
        return Range(low, high, log)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def names_in(value: Any, where: str, types: dict[str, Any]) -> list[str] | None:
    """Check a list of names of options."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(name in types for name in value):
        raise UserError(f"{where}: expected a list of options, got {short(value)}; valid ones are {', '.join(types)}")
    return value


def option_types(kind: type, prefix: str = "") -> dict[str, Any]:
    """Return the type of each option of a dataclass, and of the dataclasses in it, by dotted name."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= option_types(hint, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = hint
    return found
