"""Tables of docs/results/tabular.md: learning from tables, experience and samplers."""

from __future__ import annotations

import math
import statistics
from typing import Any

from docs_tables.text import ROOT, load, table

NAMES = {
    "xgboost": "XGBoost, defaults",
    "lightgbm": "LightGBM, defaults",
    "random": "random search",
    "tpe": "TPE (Optuna)",
    "hyperopt": "TPE (HyperOpt)",
    "flaml": "FLAML",
    "autogluon": "AutoGluon's features, TPE",
    "ours": "`fit` without features",
    "ours-features": "`fit` with features",
    "gp": "GP",
    "cma": "CMA-ES",
    "experience": "portfolio, then TPE",
}


def comparisons() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load("tabular_summary")["comparisons"]
    return found


def error(values: list[float | None]) -> str:
    """Return a mean test error, and its standard deviation over seeds if there are several."""
    if not values or None in values:
        return "failed"
    known = [value for value in values if value is not None]
    mean = f"{statistics.fmean(known):.4g}"
    return mean if len(known) < 2 else f"{mean} ± {statistics.stdev(known):.2g}"


def tabular_ranks() -> str:
    found = comparisons()
    header = "contender | " + " | ".join(
        f"{one['minutes']:g} min of CPU time, {len(one['data_sets'])} data sets" for one in found
    )
    methods = dict.fromkeys(name for one in found for name in one["ranks"])
    lines = [
        [NAMES[name], *(f"{one['ranks'][name]:.2f}" if name in one["ranks"] else "–" for one in found)]
        for name in methods
    ]
    ranks = table(header, [*lines, ["critical difference", *(f"{one['critical_difference']:.2f}" for one in found)]])
    drawn = [one["minutes"] for one in found if (ROOT / "docs/images" / f"tabular_{one['minutes']:g}.png").exists()]
    return ranks + "".join(
        f"\n![Mean ranks at {minutes:g} min of CPU time](../images/tabular_{minutes:g}.png)\n" for minutes in drawn
    )


def tabular_errors() -> str:
    one = comparisons()[0]
    methods = [name for name in one["ranks"] if name in ("ours-features", "hyperopt", "flaml", "lightgbm")]
    lines = [
        [f"`{name}`", metric, *(error(one["errors"][method][name]) for method in methods)]
        for name, metric in one["data_sets"].items()
    ]
    return table("data set | measure | " + " | ".join(NAMES[method] for method in methods), lines)


def tabular_features() -> str:
    """Return the gains by features on the data sets on which they are not zero with every seed."""
    lines = []
    for one in comparisons():
        without, with_them = one["errors"].get("ours", {}), one["errors"].get("ours-features", {})
        for name in without.keys() & with_them.keys():
            pairs = list(zip(without[name], with_them[name], strict=False))
            if not pairs or any(a is None or b is None for a, b in pairs):
                continue
            gains = [100 * (a - b) / a for a, b in pairs]
            if all(abs(gain) < 0.05 for gain in gains):
                continue
            each = ", ".join(f"{gain:+.1f}" for gain in gains)
            lines.append([f"{one['minutes']:g}", f"`{name}`", f"{statistics.fmean(gains):+.1f}", each])
    lines.sort(key=lambda line: (line[0], -float(line[2]), line[1]))
    return table("CPU-minutes | data set | lower error by features, % | each seed", lines)


def tabular_dates() -> str:
    """Return the errors of ``fit`` and of TPE on tables with dates, and by how much that of ``fit`` is lower."""
    rows = load("tabular_dates")["rows"]
    errors: dict[str, dict[str, list[float | None]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        errors.setdefault(row["set"], {}).setdefault(row["method"], []).append(row.get("value"))
    metrics = {row["set"]: row["metric"] for row in rows if "metric" in row}
    lines = []
    for name, found in errors.items():
        pairs = list(zip(found["ours-features"], found["tpe"], strict=True))
        gains = [100 * (1 - a / b) for a, b in pairs if a is not None and b is not None]
        each = ", ".join(f"{gain:+.1f}" for gain in gains)
        shown = [error(found[method]) for method in ("ours-features", "tpe")]
        lines.append([f"`{name}`", metrics[name], *shown, f"{statistics.fmean(gains):+.1f}", each])
    return table("data set | measure | `fit` | TPE (Optuna) | lower error by `fit`, % | each seed", lines)


def tabular_small() -> str:
    """Return the losses of ``fit`` and of two baselines on new rows of small tables, means over the seeds."""
    rows = load("tabular_small")["rows"]
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        mean = {key: statistics.fmean(row[key] for row in own) for key in ("constant", "linear", "fit")}
        metric = "RMSE" if own[0]["kind"] == "regression" else "log loss"
        size = [f"{own[0]['rows']:,} × {own[0]['columns']}", f"{own[0]['new_rows']:,}"]
        ratio = f"{mean['fit'] / min(mean['constant'], mean['linear']):.3f}"
        seconds = [f"{statistics.fmean(row[key] for row in own):.1f}" for key in ("linear_cpu_seconds", "cpu_seconds")]
        lines.append([f"`{name}`", *size, metric, *(f"{value:.4g}" for value in mean.values()), ratio, *seconds])
    header = "table | rows × columns | new rows | measure | constant | linear | `fit` | `fit` / the better one"
    return table(f"{header} | CPU-seconds: linear | `fit`", lines)


def experience_wins() -> str:
    rows = load("experience")["rows"]
    lines = []
    for learner in dict.fromkeys(row["learner"] for row in rows):
        own = [row for row in rows if row["learner"] == learner]
        counts = [f"{sum(row['portfolio'] < row[o] for row in own)} of {len(own)}" for o in ("random", "tpe")]
        both = sum(row["portfolio"] < min(row["random"], row["tpe"]) for row in own)
        gaps = [percent_above(own, name) for name in ("defaults", "portfolio", "random")]
        lines.append([learner, *counts, f"{both} of {len(own)}", *gaps])
    header = "learner | portfolio better than random search | than TPE | than both"
    return table(f"{header} | loss relative to TPE, %: defaults | portfolio | random search", lines)


def percent_above(rows: list[dict[str, Any]], name: str) -> str:
    """Return the mean over data sets of 100·ln(loss / TPE's loss), and its standard error if there are several."""
    logs = [100 * math.log(row[name] / row["tpe"]) for row in rows]
    mean = f"{statistics.fmean(logs):+.1f}"
    return mean if len(logs) < 2 else f"{mean} ± {statistics.stdev(logs) / math.sqrt(len(logs)):.1f}"


def samplers() -> str:
    rows = load("samplers_summary")["rows"]
    counts = list(dict.fromkeys(row["trials"] for row in rows))
    cells = {
        (row["sampler"], row["trials"]): f"{row['percent']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
        for row in rows
    }
    names = [name for name in dict.fromkeys(row["sampler"] for row in rows) if name != "random"]
    lines = [[NAMES[name], *(cells[name, trials] for trials in counts)] for name in names]
    return table("sampler | " + " | ".join(f"{trials} trials" for trials in counts), lines)
