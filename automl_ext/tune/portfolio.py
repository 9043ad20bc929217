"""Portfolios: the points that a new study evaluates first.

A portfolio is a short list of points that together did well on all known data sets (:mod:`portfolio_building`). The
package contains portfolios of some commands as JSON files in ``automl_ext/tune/portfolios``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object, short
from automl_ext.training.search_space import Space

FORMAT = 2
FOLDER = Path(__file__).with_name("portfolios")
Point = dict[str, Any]  # dotted name of an option -> its value


@dataclass(frozen=True)
class Portfolio:
    """The content of a portfolio file."""

    command: str
    points: list[Point]
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        return {"format": FORMAT, "command": self.command, "source": self.source, "points": self.points}


def portfolio(
    command: str, file: str | Path | None = None, spaces: Sequence[Space] = (), usual: Mapping[str, Any] | None = None
) -> list[Point]:
    """Return the points that a new study of a command evaluates first, best first.

    Args:
        command: for example "fit --learner lightgbm".
        file: portfolio file; default: the one that the package contains.
        spaces: search spaces of the command. Each value must be in one of them; names that no space has are not
            checked.
        usual: further accepted values, by name, because a default may be outside of its range.

    Returns:
        Points by dotted option name; empty if the package contains no portfolio of this command.

    Raises:
        UserError: ``file`` is damaged, is a portfolio of another command, or has a value outside of its range.
    """
    path = FOLDER / file_name(command) if file is None else Path(file)
    if file is None and not path.is_file():
        return []
    found = read_portfolio(path)
    if found.command != command:
        raise UserError(f"{path}: expected a portfolio of {command!r}, got one of {found.command!r}")
    for number, point in enumerate(found.points, 1):
        for name, value in point.items():
            ranges = dict.fromkeys(space[name] for space in spaces if name in space)
            as_usual = usual is not None and name in usual and usual[name] == value
            if ranges and not as_usual and not any(value in values for values in ranges):
                expected = " or ".join(map(str, ranges))
                raise UserError(f"{path}: point {number}: {name}: expected {expected}, got {short(value)}")
    return found.points


def read_portfolio(path: Path) -> Portfolio:
    """Read a portfolio file.

    Raises:
        UserError: the file is missing, damaged, or not a portfolio; the message names the key.
    """
    content = read_object(path)
    if (version := content.get("format")) != FORMAT:
        raise UserError(f'{path}: "format": expected {FORMAT}, got {short(version)}')
    points = [read_point(path, point) for point in checked(path, content, "points", list)]
    return Portfolio(checked(path, content, "command", str), points, checked(path, content, "source", str))


def file_name(command: str) -> str:
    """Return the name of the file of a command's portfolio: the last word, such as the learner or the algorithm."""
    return re.sub(r"[^a-z0-9-]+", "_", command.lower().split()[-1]) + ".json"


def checked(where: object, content: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a value of a JSON object.

    Raises:
        UserError: there is no such key, or the value has another type.
    """
    value = content.get(key)
    if not isinstance(value, kind):
        got = f"got {short(value)}" if key in content else "it is missing"
        raise UserError(f'{where}: "{key}": expected a {kind.__name__}; {got}')
    return value


def read_point(where: object, value: Any) -> Point:
    """Check a point: numbers, strings, booleans or None by name. Raises UserError."""
    if not isinstance(value, dict):
        raise UserError(f'{where}: "point": expected a JSON object, got {short(value)}')
    for name, entry in value.items():
        if not (entry is None or isinstance(entry, (str, bool)) or is_number(entry)):
            raise UserError(
                f'{where}: "point", {name}: expected a finite number, a string, true, false or null, got {short(entry)}'
            )
    return dict(value)


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a finite int or float of at most 1e300."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300
