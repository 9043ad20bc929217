"""Configurations: conversion of dataclasses to plain dicts and back, comparison, and values from a TOML file."""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
import types
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from automl_ext._version import __version__
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_small, short
from automl_ext.training.words import hint

Config = TypeVar("Config")
_MISSING = object()


def to_dict(config: Any, key: str = "config") -> Any:
    """Convert a (nested) dataclass to values that strict JSON can hold.

    Paths become strings, enums their names, tuples lists, and NaN and infinities strings.

    Raises:
        TypeError: a value cannot be converted; the message names its key.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = dataclasses.fields(config)
        return {f.name: to_dict(getattr(config, f.name), f"{key}.{f.name}") for f in fields}
    if isinstance(config, dict):
        return {str(name): to_dict(value, f"{key}.{name}") for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value, f"{key}[{i}]") for i, value in enumerate(config)]
    if isinstance(config, enum.Enum):
        return config.name
    if isinstance(config, Path):
        return str(config)
    if isinstance(config, float) and not math.isfinite(config):
        return str(config)
    if config is None or isinstance(config, (str, int, float)):
        return config
    raise TypeError(f"{key}: {type(config).__name__} cannot be stored in a configuration")


def differences(stored: Any, given: Any, key: str = "") -> list[tuple[str, str, str]]:
    """Compare two dicts from :func:`to_dict`. Return (dotted key, stored value, given value) of each difference."""
    if isinstance(stored, dict) and isinstance(given, dict):
        found = []
        for name in [*stored, *(name for name in given if name not in stored)]:
            inner = f"{key}.{name}" if key else name
            found += differences(stored.get(name, _MISSING), given.get(name, _MISSING), inner)
        return found
    return [] if stored == given else [(key, _show(stored), _show(given))]


def without_effect(config: Any, prefix: str = "") -> set[str]:
    """Return the dotted names of options that do not change a result, or change its rounding only.

    The fields of dataclasses say so in their metadata, as ``without_effect``; ``config`` is a dataclass, or a dict that
    holds some. A run can be resumed with other values of them. If one changes the rounding, the comparison of
    environments warns, as for another device.
    """
    fields = dataclasses.fields(config) if dataclasses.is_dataclass(config) else ()
    found = {f"{prefix}{f.name}" for f in fields if f.metadata.get("without_effect")}
    for name, value in (config if isinstance(config, dict) else vars(config)).items():
        if isinstance(value, dict) or dataclasses.is_dataclass(value):
            found |= without_effect(value, f"{prefix}{name}.")
    return found


def increased(stored: dict[str, Any], config: Any) -> list[str]:
    """Return the options that set the length of a run, such as ``total_steps``, and that ``config`` has increased.

    The class lists such options in ``may_increase``. A run can be resumed with larger values of them.
    """
    longer = []
    for name in getattr(config, "may_increase", ()):
        before = stored.get(name)
        if type(before) is int and before < getattr(config, name):
            longer.append(name)
    return longer


def check_same(name: str, stored: dict[str, Any], config: Any, longer: Collection[str] = ()) -> None:
    """Raise UserError if a stored configuration differs from ``config`` in an option with an effect.

    ``name`` is its name in the message. An option that the stored configuration lacks is new in this version; it is
    compared as if its default had been stored. The options ``longer`` may differ.
    """
    ignored = without_effect(config) | {*longer}
    found = differences(with_defaults(stored, config), to_dict(config))
    if changed := [f"{key} was {old} and is now {new}" for key, old, new in found if key not in ignored]:
        raise UserError(
            f"{name} has another configuration: {', '.join(changed)}; resume it with the same, or choose another --out"
        )


def check_options(name: str, stored: dict[str, Any], given: dict[str, Any], version: object) -> None:
    """Raise UserError for a stored configuration with an option that this version does not have.

    Args:
        name: the name of the run or file, for the message.
        stored, given: the stored configuration, and one of this version, from :func:`to_dict`.
        version: the version of automl_ext that wrote ``stored``.

    Raises:
        UserError: an option is unknown. The message names both versions, the unknown options and the new ones.
    """
    before, now = set(_options(stored)), set(_options(given))
    if unknown := sorted(before - now):
        text = f"removed or renamed: {', '.join(unknown)}"
        if added := sorted(now - before):
            text += f"; added: {', '.join(added)}"
        text = text if len(text) <= 500 else text[:497] + "..."
        raise UserError(
            f"{name} was written by automl_ext {short(version).strip(chr(39))}, this is {__version__}: options {text}"
        )


def with_defaults(stored: Any, config: Any) -> Any:
    """Return a stored configuration with the options that it lacks, at their defaults in the class of ``config``.

    ``config`` is a dataclass, or a dict with dataclasses. An option without a default stays absent.
    """
    if not isinstance(stored, dict):
        return stored
    if isinstance(config, dict):
        return {name: with_defaults(value, config.get(name)) for name, value in stored.items()}
    if not dataclasses.is_dataclass(config):
        return stored
    filled = dict(stored)
    for field in dataclasses.fields(config):
        if field.name in filled:
            filled[field.name] = with_defaults(filled[field.name], getattr(config, field.name))
        elif field.default is not dataclasses.MISSING:
            filled[field.name] = to_dict(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            filled[field.name] = to_dict(field.default_factory())
    return filled


def apply_toml(config: Config, path: str | Path) -> Config:
    """Return a copy of the dataclass ``config`` with the values of a TOML file; a table is a nested dataclass.

    Raises:
        UserError: the file is missing or not valid TOML, a key is unknown (the valid ones are listed), or a value has
            the wrong type.
    """
    return with_values(config, read_toml(Path(path)), str(path))


def from_dict(config: Config, stored: dict[str, Any], source: str, version: object) -> Config:
    """Return the dataclass from which :func:`to_dict` made ``stored``. Options that ``stored`` lacks are unchanged.

    Raises:
        UserError: an option is unknown, or a value has the wrong type.
    """
    check_options(source, stored, to_dict(config), version)
    return with_values(config, stored, source)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises UserError: it is missing, too large or not valid."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise UserError('a --config file needs tomli under Python 3.10: pip install "automl_ext[toml]"') from None
    try:
        return tomllib.loads(read_small(path).decode().replace("\r\n", "\n"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"cannot read the configuration {error}") from None
    except RecursionError:
        raise UserError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, an integer with thousands of digits
        raise UserError(f"{path} is not valid TOML: {short(error)}") from None


def with_values(config: Any, values: dict[str, Any], source: str, prefix: str = "") -> Any:
    """Return a copy of the dataclass ``config`` with other values of some options; lists stand for tuples.

    Raises:
        UserError: an option is unknown (the valid ones are listed), or a value has the wrong type. The message starts
            with ``source``, and names options with ``prefix``.
    """
    hints = typing.get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config) if field.init]
    changed: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name
        if name not in names:
            valid = ", ".join(prefix + n for n in names)
            raise UserError(f"{source}: unknown key {short(key)}{hint(name, names)}; valid ones are {valid}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {key} must be a table, got {short(value)}")
            changed[name] = with_values(current, value, source, f"{key}.")
        else:
            try:
                changed[name] = convert(value, hints[name])
            except ValueError as error:
                raise UserError(f"{source}: {key} {error}") from None
    try:
        return dataclasses.replace(config, **changed)
    except (ValueError, TypeError) as error:  # the dataclass's own checks
        raise UserError(f"{source}: {short(error)}") from None


def convert(value: Any, hint: Any) -> Any:
    """Convert a value of a TOML file to the annotated type of an option.

    Raises:
        ValueError: it does not fit.
    """
    converted = _convert(value, hint)
    if converted is _MISSING:
        expected = getattr(hint, "__name__", None)
        if expected is None or typing.get_origin(hint) is not None:
            expected = str(hint).replace("typing.", "")
        raise ValueError(f"must be {expected}, got {short(value)}")
    return converted


def check_types(config: Any) -> None:
    """Give every option of a dataclass the type of its annotation: lists may stand for tuples, and ints for floats.

    Raises:
        ValueError: a value does not fit; the message names the option.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, hint):  # type: ignore[arg-type]
                raise ValueError(f"{field.name}: expected {hint.__name__}, got {short(value)}")  # type: ignore[union-attr]
            continue
        if hasattr(value, "item"):  # a number of NumPy
            value = value.item()
        try:
            setattr(config, field.name, convert(list(value) if isinstance(value, tuple) else value, hint))
        except ValueError as error:
            raise ValueError(f"{field.name}: {str(error).replace('must be', 'expected', 1)}") from None


def _convert(value: Any, hint: Any) -> Any:
    """Convert ``value`` to the annotated type. Return _MISSING if it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        return value if any(value == a and type(value) is type(a) for a in arguments) else _MISSING
    if origin in (typing.Union, types.UnionType):
        exact = [a for a in arguments if type(value) is a]  # 3 stays an int for `float | int`
        for argument in exact + list(arguments):
            converted = _convert(value, argument)
            if converted is not _MISSING:
                return converted
        return _MISSING
    if (origin or hint) in (list, tuple):
        return _convert_list(value, origin or hint, arguments)
    if hint is type(None):
        return value if value is None else _MISSING
    if hint is float and value in ("inf", "-inf", "nan"):
        return float(value)
    if hint is float:
        try:
            return float(value) if type(value) in (int, float) else _MISSING
        except OverflowError:  # an integer above 1e308
            return _MISSING
    if hint in (int, str, bool):
        return value if type(value) is hint else _MISSING
    if hint is Path:
        return Path(value) if type(value) is str else _MISSING
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint[value] if type(value) is str and value in hint.__members__ else _MISSING
    return _MISSING


def _convert_list(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if type(value) is not list:
        return _MISSING
    if not arguments:
        hints: list[Any] = [Any] * len(value)
    elif kind is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        hints = [arguments[0]] * len(value)
    else:
        hints = list(arguments)
    if len(hints) != len(value):
        return _MISSING
    items = [_convert(item, hint) for item, hint in zip(value, hints, strict=True)]
    return _MISSING if any(item is _MISSING for item in items) else kind(items)


def _options(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a configuration's options."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _show(value: Any) -> str:
    return "absent" if value is _MISSING else short(value)
