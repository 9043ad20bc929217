"""Portfolios for the benchmark: none may know the data set on which it is judged."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from automl_ext.tune import experience
from automl_ext.tune.past_studies import PastStudy, PastTrial
from automl_ext.tune.portfolio_building import build_portfolio

TABLE = Path(__file__).parents[1] / "results" / "experience_table.json"
SIZE = 10


def past_studies(table: dict[str, Any], learner: str, left_out: str | None = None) -> list[PastStudy]:
    """Return the evaluation table of a learner as studies, one per data set.

    Args:
        table: the content of ``experience_table.json``.
        learner: "lightgbm" or "xgboost".
        left_out: name of a data set to leave out, with the tuned points that were found on it.
    """
    return [measured(table, learner, name, left_out) for name in table["data_sets"] if name != left_out]


def measured(table: dict[str, Any], learner: str, name: str, left_out: str | None) -> PastStudy:
    """Return the losses on one data set: of the random points, and of the tuned ones not found on ``left_out``."""
    data, tuned = table["data_sets"][name], table.get("tuned", {}).get(learner, [])
    trials = list(zip(table["points"][learner], data["losses"][learner], strict=True))
    if tuned:
        pairs = zip(tuned, data["tuned"][learner], strict=True)
        trials += [(each["point"], loss) for each, loss in pairs if each["found_on"] != left_out]
    past = [PastTrial(point, loss) for point, loss in trials]
    return PastStudy(f"train {learner}", data["meta"], past, maximize=False, name=name)


def without(name: str) -> None:
    """Make this process use portfolios that were built without a data set."""
    folder = Path(tempfile.mkdtemp(prefix="portfolios"))
    table = json.loads(TABLE.read_text()) if TABLE.is_file() else {"points": {}}
    for learner in table["points"]:
        built = build_portfolio(past_studies(table, learner, left_out=name), SIZE)
        (folder / experience.file_name(f"train {learner}")).write_text(json.dumps(built.as_dict()))
    experience.FOLDER = folder
