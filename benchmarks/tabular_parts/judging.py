"""Leave one data set out: portfolio, random search and TPE with ten trials each, from measured losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from draws import expected_best
from portfolios import SIZE, past_studies
from tpe_runs import TRIALS

from automl_ext.tune.portfolio_building import PastStudy, build_portfolio, key

SHOWN = ("defaults", "portfolio", "random", "tpe")


def portfolio_best(studies: list[PastStudy], left_out: PastStudy, trials: int) -> float:
    """Return the lowest loss on the study left out: of the defaults, then the portfolio of the other studies."""
    losses = {key(trial.point): trial.value for trial in left_out.trials}
    built = build_portfolio([study for study in studies if study is not left_out], SIZE)
    return min(losses[key(point)] for point in [{}, *built.points][:trials])


def judge(table: dict[str, Any]) -> dict[str, Any]:
    """Compare, on each data set and for each learner, the lowest losses of ten trials.

    The trials of the portfolio are the defaults and its first nine points. Random search draws from the random points.
    TPE ran on the data set itself, once per seed.
    """
    rows = []
    for learner in table["points"]:
        studies = past_studies(table, learner)
        for study in studies:
            data = table["data_sets"][study.name]
            losses, tpe = data["losses"][learner], [min(run) for run in data["tpe"][learner]]
            rows.append(
                {
                    "set": study.name,
                    "learner": learner,
                    "metric": data["metric"],
                    "defaults": losses[0],
                    "portfolio": portfolio_best(studies, study, TRIALS),
                    "random": expected_best(losses[1:], TRIALS),
                    "tpe": float(np.mean(tpe)),
                    "tpe_error": float(np.std(tpe, ddof=1) / math.sqrt(len(tpe))),
                    "tpe_seeds": len(tpe),
                    "best": min([*losses, *tpe]),
                    "median": float(np.median(losses)),
                }
            )
    return {
        "command": "python benchmarks/experience.py judge",
        "table": "experience_table.json",
        "machine": table["machine"],
        "trials": TRIALS,
        "rows": rows,
    }


def summary(content: dict[str, Any]) -> str:
    """Return the losses, and on how many data sets the portfolio is better, as text."""
    lines = [f"{'set':<14}{'learner':<10}" + "".join(f"{n:>11}" for n in SHOWN)]
    for row in content["rows"]:
        values = "".join(f"{row[n]:>11.4g}" for n in SHOWN)
        lines.append(f"{row['set']:<14}{row['learner']:<10}{values}")
    for learner in dict.fromkeys(row["learner"] for row in content["rows"]):
        rows = [row for row in content["rows"] if row["learner"] == learner]
        for other in ("random", "tpe", "defaults"):
            wins = sum(row["portfolio"] < row[other] for row in rows)
            lines.append(f"{learner}: portfolio better than {other} on {wins} of {len(rows)}")
    return "\n".join(lines)
