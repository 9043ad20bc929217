"""Leave one data set out: portfolio, warm start, random search and TPE with ten trials each, by lookup in a table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from draws import expected_best
from objective import unit
from portfolios import SIZE, past_studies
from samplers import optuna_sampler

from automl_ext.tune.experience import nearest_points
from automl_ext.tune.past_studies import PastStudy
from automl_ext.tune.portfolio_building import build_portfolio, key

TRIALS = 10
SEEDS = 20  # of TPE
SHOWN = ("defaults", "portfolio", "warm", "random", "tpe")
WARM = 3  # points of the nearest data sets
STARTUP = 4  # random trials of TPE; with Optuna's 10, TPE at 10 trials is random search


def portfolio_best(studies: list[PastStudy], left_out: PastStudy, trials: int, warm: int = 0) -> float:
    """Return the lowest loss on the study left out: of the defaults, then the portfolio of the other studies.

    ``warm`` best points of the studies with the nearest meta-features come between the two.
    """
    losses = {key(trial.point): trial.value for trial in left_out.trials}
    built = build_portfolio([study for study in studies if study is not left_out], SIZE)
    first = {key(point): None for point in [{}, *nearest_points(built.data_sets, left_out.meta, warm), *built.points]}
    return min(losses[point] for point in [*first][:trials])


def tpe_best(learner: str, points: list[dict[str, Any]], losses: list[float], trials: int, seed: int) -> float:
    """Return the lowest loss that TPE finds in the table: a suggested point counts as the nearest one not yet taken."""
    cube = np.array([unit(learner, point) for point in points])
    ask = optuna_sampler("tpe", (learner,), n_startup_trials=STARTUP)(seed)
    free, best = np.ones(len(points), dtype=bool), math.inf
    for _ in range(trials):
        (_, point), tell = ask()
        distances = np.abs(cube - unit(learner, point)).sum(1)
        chosen = int(np.argmin(np.where(free, distances, np.inf)))
        free[chosen] = False
        tell(losses[chosen])
        best = min(best, losses[chosen])
    return best


def judge(table: dict[str, Any]) -> dict[str, Any]:
    """Compare, on each data set and for each learner, the lowest losses of ten trials.

    The trials of the portfolio are the defaults and its first nine points; "warm" has points of the nearest data sets
    before the portfolio. Random search and TPE draw from the random points only.
    """
    rows = []
    for learner, points in table["points"].items():
        studies = past_studies(table, learner)
        for study in studies:
            losses = [trial.value for trial in study.trials]
            tpe = [tpe_best(learner, points[1:], losses[1:], TRIALS, seed) for seed in range(SEEDS)]
            rows.append(
                {
                    "set": study.name,
                    "learner": learner,
                    "metric": table["data_sets"][study.name]["metric"],
                    "defaults": losses[0],
                    "portfolio": portfolio_best(studies, study, TRIALS),
                    "warm": portfolio_best(studies, study, TRIALS, WARM),
                    "random": expected_best(losses[1:], TRIALS),
                    "tpe": float(np.mean(tpe)),
                    "tpe_error": float(np.std(tpe, ddof=1) / math.sqrt(SEEDS)),
                    "best": min(losses),
                    "median": float(np.median(losses)),
                }
            )
    return {
        "command": "python benchmarks/experience.py judge",
        "table": "experience_table.json",
        "machine": table["machine"],
        "trials": TRIALS,
        "tpe_seeds": SEEDS,
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
            wins = [sum(row[name] < row[other] for row in rows) for name in ("portfolio", "warm")]
            lines.append(
                f"{learner}: portfolio better than {other} on {wins[0]} of {len(rows)}, warm start on {wins[1]}"
            )
    return "\n".join(lines)
