"""Experience from earlier studies: the points that a new study evaluates first.

A portfolio is a short list of points that together did well on all known data sets (:mod:`portfolio_building`). The
package contains portfolios of some commands as JSON files in ``automl_ext/tune/portfolios``.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object, short
from automl_ext.tune.past_studies import Meta, Point, checked, read_meta, read_point

FORMAT = 1
FOLDER = Path(__file__).with_name("portfolios")


@dataclass(frozen=True)
class KnownData:
    """A data set of an earlier study: its meta-features, and the points that did best on it, best first."""

    meta: Meta
    best: list[Point]


@dataclass(frozen=True)
class Portfolio:
    """The content of a portfolio file.

    Args:
        command: the command whose options the points name.
        points: the portfolio, best first.
        data_sets: the known data sets that have meta-features.
        source: how the file was made.
    """

    command: str
    points: list[Point]
    data_sets: list[KnownData]
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        known = [{"meta": data.meta, "best": data.best} for data in self.data_sets]
        return {
            "format": FORMAT,
            "command": self.command,
            "source": self.source,
            "points": self.points,
            "data_sets": known,
        }


def portfolio(command: str, file: str | Path | None = None) -> list[Point]:
    """Return the points that a new study of a command evaluates first, best first.

    Args:
        command: for example "train lightgbm".
        file: portfolio file; default: the one that the package contains.

    Returns:
        Points by dotted option name; empty if the package contains no portfolio of this command.

    Raises:
        UserError: ``file`` is damaged, or is a portfolio of another command.
    """
    found = _find(command, file)
    return [] if found is None else found.points


def nearest(command: str, meta: Mapping[str, float], count: int = 3, file: str | Path | None = None) -> list[Point]:
    """Return the best points of the known data sets whose meta-features are nearest (warm start).

    The distance is the mean absolute difference of the common meta-features, each divided by its standard deviation
    over the known data sets (Feurer, Springenberg & Hutter 2015 use the same idea).

    Args:
        command: for example "train lightgbm".
        meta: meta-features of the new data set (:func:`automl_ext.tune.meta_features.meta_features`).
        count: maximum number of points.
        file: portfolio file; default: the one that the package contains.

    Returns:
        Different points, the one of the nearest data set first; empty if no known data set has meta-features.

    Raises:
        UserError: ``file`` is damaged, or is a portfolio of another command.
    """
    found = _find(command, file)
    return [] if found is None else nearest_points(found.data_sets, meta, count)


def nearest_points(data_sets: Iterable[KnownData], meta: Mapping[str, float], count: int) -> list[Point]:
    """Return the best points of the given data sets whose meta-features are nearest; see :func:`nearest`."""
    known = [data for data in data_sets if data.best and data.meta.keys() & meta.keys()]
    spread = {name: _spread([data.meta[name] for data in known if name in data.meta]) for name in meta}

    def distance(data: KnownData) -> float:
        return statistics.fmean(abs(data.meta[n] - meta[n]) / spread[n] for n in data.meta.keys() & meta.keys())

    points: list[Point] = []
    for data in sorted(known, key=distance):
        points += [data.best[0]] if data.best[0] not in points else []
    return points[:count]


def read_portfolio(path: Path) -> Portfolio:
    """Read a portfolio file.

    Raises:
        UserError: the file is missing, damaged, or not a portfolio; the message names the key.
    """
    content = read_object(path)
    if (version := content.get("format")) != FORMAT:
        raise UserError(f'{path}: "format": expected {FORMAT}, got {short(version)}')
    points = [read_point(path, point) for point in checked(path, content, "points", list)]
    known = [_known(path, data) for data in checked(path, content, "data_sets", list)]
    return Portfolio(checked(path, content, "command", str), points, known, checked(path, content, "source", str))


def file_name(command: str) -> str:
    """Return the name of the file of a command's portfolio in ``automl_ext/tune/portfolios``."""
    return re.sub(r"[^a-z0-9]+", "_", command.lower()) + ".json"


def _find(command: str, file: str | Path | None) -> Portfolio | None:
    """Return the portfolio in ``file``, or the package's own; None if the package has none of this command."""
    path = FOLDER / file_name(command) if file is None else Path(file)
    if file is None and not path.is_file():
        return None
    found = read_portfolio(path)
    if found.command != command:
        raise UserError(f"{path}: expected a portfolio of {command!r}, got one of {found.command!r}")
    return found


def _known(path: Path, content: Any) -> KnownData:
    if not isinstance(content, dict):
        raise UserError(f'{path}: "data_sets": expected JSON objects, got {short(content)}')
    best = [read_point(path, point) for point in checked(path, content, "best", list)]
    return KnownData(read_meta(path, content.get("meta")) or {}, best)


def _spread(values: list[float]) -> float:
    return statistics.pstdev(values) or 1.0 if values else 1.0
