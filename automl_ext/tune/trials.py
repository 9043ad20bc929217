"""The file of a trial: its point, written before it starts, and its outcome, written when it has ended.

``OUT/trials/0007.json`` is the file of trial 7, beside its folder ``OUT/trials/0007``. Both writes are atomic, so a
killed tuning run knows which trials have ended, and continues the others with the same points.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_json
from automl_ext.training.files.reading import read_object, short

State = Literal["finished", "failed", "pruned"]
STATES = get_args(State)


@dataclass(frozen=True)
class Proposal:
    """A trial before it starts.

    Attributes:
        index: number of the trial in this tuning run, from 0.
        point: the values to try, by dotted name.
        params: the point as the sampler sees it: the nearest one in the search space, because trial 0 may lie outside.
        elapsed: seconds of tuning before it.
    """

    index: int
    point: dict[str, Any]
    params: dict[str, Any]
    elapsed: float


@dataclass(frozen=True)
class Outcome:
    """Result of a trial.

    Attributes:
        state: how it ended.
        value: the objective; None if it failed or was pruned.
        reports: intermediate values by step, ascending; NaN is None.
        seconds: wall time.
        error: why it failed.
    """

    state: State
    value: float | None
    reports: list[tuple[int, float | None]]
    seconds: float
    error: str | None = None


def folder_of(trials: Path, index: int) -> Path:
    return trials / f"{index:04d}"


def file_of(trials: Path, index: int) -> Path:
    return trials / f"{index:04d}.json"


def write_trial(trials: Path, proposal: Proposal, outcome: Outcome | None = None) -> None:
    content = dataclasses.asdict(proposal) | ({"outcome": dataclasses.asdict(outcome)} if outcome else {})
    write_json(file_of(trials, proposal.index), content)


def read_trial(trials: Path, index: int) -> tuple[Proposal, Outcome | None] | None:
    """Return a trial; None if it has no file.

    Raises:
        UserError: the file is damaged.
    """
    path = file_of(trials, index)
    if not path.exists():
        return None
    content = read_object(path)
    try:
        proposal = Proposal(index, dict(content["point"]), dict(content["params"]), _number(content["elapsed"]))
        found = content.get("outcome")
        return proposal, None if found is None else _outcome(found)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {short(error)}; delete it to repeat the trial") from None


def _outcome(content: dict[str, Any]) -> Outcome:
    state, error, value = content["state"], content["error"], content["value"]
    if state not in STATES or not (error is None or isinstance(error, str)):
        raise ValueError(f"state: expected one of {', '.join(STATES)}, got {short(state)}")
    if (state == "finished") != (value is not None):
        raise ValueError(f"value: expected a number of a finished trial only, got {short(value)}")
    reports = [(int(_number(step)), None if v is None else _number(v)) for step, v in content["reports"]]
    return Outcome(state, None if value is None else _number(value), reports, _number(content["seconds"]), error)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {short(value)}")
    return float(value)
