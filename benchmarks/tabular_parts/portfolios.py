"""Portfolios for the benchmark: none may know the data set on which it is judged."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from automl_ext.tune import portfolio
from automl_ext.tune.portfolio_building import PastStudy, PastTrial, build_portfolio

TABLE = Path(__file__).parents[1] / "results" / "experience_table.json"
SIZE = 10


def past_studies(table: dict[str, Any], learner: str, left_out: str | None = None) -> list[PastStudy]:
    """Return the evaluation table of a learner as studies, one per data set.

    Args:
        table: the content of ``experience_table.json``.
        learner: "lightgbm" or "xgboost".
        left_out: name of a data set to leave out.
    """
    points = table["points"][learner]
    return [
        PastStudy(
            f"fit --learner {learner}",
            [PastTrial(point, loss) for point, loss in zip(points, data["losses"][learner], strict=True)],
            maximize=False,
            name=name,
        )
        for name, data in table["data_sets"].items()
        if name != left_out
    ]


def without(name: str) -> None:
    """Make this process use portfolios that were built without a data set."""
    folder = Path(tempfile.mkdtemp(prefix="portfolios"))
    table = json.loads(TABLE.read_text()) if TABLE.is_file() else {"points": {}}
    for learner in table["points"]:
        built = build_portfolio(past_studies(table, learner, left_out=name), SIZE)
        (folder / portfolio.file_name(f"fit --learner {learner}")).write_text(json.dumps(built.as_dict()))
    portfolio.FOLDER = folder
