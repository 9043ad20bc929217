"""The interface is the recorded one: defaults and accepted numbers of all options, parameters and defaults of the ops.

After an intended change: ``python python_tests/cli/test_interface.py`` writes interface.txt again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from automl_ext import ops
from automl_ext_cli import load
from automl_ext_cli.table import COMMANDS

RECORDED = Path(__file__).with_name("interface.txt")
WHOLE = (-1, 0, 1, 2, 3)
REAL = (-1.0, 0.0, 1e-9, 0.5, 0.999, 1.0, 1.5, 2.0, 1e6)
WRONG = (float("nan"), float("inf"))
REQUIRED = {"data": "digits", "genotype": None}  # others are the text "x"


def instance(kind: Any) -> Any:
    """Return the options with their defaults; None if some are missing or refused."""
    origin = typing.get_origin(kind) or kind
    given = {
        field.name: REQUIRED.get(field.name, "x")
        for field in dataclasses.fields(origin)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    with contextlib.suppress(TypeError, ValueError, OSError):
        return origin(**given)
    return None


def numeric(hint: Any) -> tuple[float, ...]:
    """Return the numbers to try for a type; none if it takes no number."""
    if hasattr(hint, "__metadata__"):
        return numeric(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for inner in typing.get_args(hint) if (found := numeric(inner))), ())
    return {int: WHOLE, float: (*REAL, *WRONG)}.get(hint, ())


def lines_of(config: Any, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from lines_of(value, f"{prefix}{field.name}.")
        elif field.init:
            accepted = [number for number in numeric(hints[field.name]) if accepts(config, field.name, number)]
            tried = len(numeric(hints[field.name]))
            shown = "any" if len(accepted) == tried else " ".join(f"{number:g}" for number in accepted)
            yield f"{prefix}{field.name} = {value!r}" + (f"  takes {shown}" if tried else "")


def accepts(config: Any, name: str, number: float) -> bool:
    try:
        dataclasses.replace(config, **{name: number})
    except ValueError:
        return False
    return True


def interface() -> str:
    lines = []
    for module in (ops, ops.entmax):
        for name in sorted(module.__all__):
            with contextlib.suppress(TypeError, ValueError):
                lines.append(f"{module.__name__}.{name}{inspect.signature(getattr(module, name))}")
    for name, command in COMMANDS.items():
        config = instance(load(command.options)) if command.options else None
        if config is not None:
            lines += ["", f"[{name}]", *lines_of(config)]
    return "\n".join(lines) + "\n"


def test_options_and_parameters_are_the_recorded_ones() -> None:
    found, recorded = interface().splitlines(), RECORDED.read_text().splitlines()
    assert len(found) > 500
    assert found == recorded


if __name__ == "__main__":
    RECORDED.write_text(interface())
