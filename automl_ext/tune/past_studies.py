"""Files of finished studies: the trials of one command on one data set, read from ``result.json`` of a tuning run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object, short

Point = dict[str, Any]  # dotted name of an option -> its value
STATES = ("finished", "failed", "pruned")


@dataclass(frozen=True)
class PastTrial:
    """One evaluated point of a study.

    Args:
        point: the values of the tuned options, by dotted name.
        value: the objective. None: the trial failed, or was pruned before it had the final value.
    """

    point: Point
    value: float | None


@dataclass(frozen=True)
class PastStudy:
    """The trials of one command on one data set.

    Args:
        command: the tuned command, for example "fit --learner lightgbm".
        trials: all trials, in their order.
        maximize: whether larger values are better.
        name: name of the study in messages.
    """

    command: str
    trials: list[PastTrial]
    maximize: bool
    name: str


def read_study(path: Path) -> PastStudy:
    """Read a study from a tuning run's directory or its ``result.json``.

    The file has the keys ``command``, ``trials`` and ``maximize``. Each trial has the keys ``point``, ``value`` and
    ``state``: "finished", "failed" or "pruned".

    Raises:
        UserError: the file is missing, damaged, or not a study; the message names the key.
    """
    file = path / "result.json" if path.is_dir() else path
    content = read_object(file)
    command = checked(file, content, "command", str)
    maximize = checked(file, content, "maximize", bool)
    trials = [_trial(f"{file}, trial {i}", trial) for i, trial in enumerate(checked(file, content, "trials", list))]
    if not any(trial.value is not None for trial in trials):
        raise UserError(f"{file}: expected at least one finished trial, got {len(trials)} without a value")
    return PastStudy(command, trials, maximize, str(path))


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


def _trial(where: str, content: Any) -> PastTrial:
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected a JSON object, got {short(content)}")
    state = content.get("state")
    if state not in STATES:
        raise UserError(f'{where}: "state": expected one of {", ".join(STATES)}, got {short(state)}')
    value = content.get("value")
    point = read_point(where, content.get("point"))
    if state != "finished":
        return PastTrial(point, None)
    if value is None or not is_number(value):
        raise UserError(f'{where}: "value": expected a finite number of a finished trial, got {short(value)}')
    return PastTrial(point, float(value))


def values_of(study: PastStudy) -> list[float]:
    """Return the values of all trials so that larger is better; −∞ for a trial without a value."""
    sign = 1.0 if study.maximize else -1.0
    return [-math.inf if trial.value is None else sign * trial.value for trial in study.trials]
