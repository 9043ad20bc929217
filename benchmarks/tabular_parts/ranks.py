"""Mean ranks of contenders over data sets, and the picture with the critical difference (Demšar 2006)."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np

Errors = dict[str, dict[str, float]]  # method -> data set -> mean test error over seeds, ∞ where it failed
Seeds = dict[str, dict[str, list[float | None]]]  # the same, one error per seed, None where it failed

SHOWN = {  # names in the picture
    "ours": "fit without features",
    "ours-features": "fit with features",
    "random": "random search",
    "tpe": "TPE (Optuna)",
    "hyperopt": "TPE (HyperOpt)",
    "autogluon": "AutoGluon features, TPE",
    "flaml": "FLAML",
    "lightgbm": "LightGBM, defaults",
    "xgboost": "XGBoost, defaults",
}


def seed_errors(rows: list[dict[str, Any]], minutes: float) -> Seeds:
    """Return the test errors of the data sets on which every method has rows, of the seeds that all of them have."""
    rows = [row for row in rows if row["minutes"] == minutes]
    values: dict[str, dict[str, dict[int, float | None]]] = {}
    for row in rows:
        values.setdefault(row["method"], {}).setdefault(row["set"], {})[row["seed"]] = row.get("value")
    found: Seeds = {method: {} for method in values}
    for name in dict.fromkeys(row["set"] for row in rows):
        if seeds := set.intersection(*(set(sets.get(name, {})) for sets in values.values())):
            for method, sets in values.items():
                found[method][name] = [sets[name][seed] for seed in sorted(seeds)]
    return found


def mean_errors(errors: Seeds) -> Errors:
    """Return the mean over seeds; a method that failed with any seed has the error ∞ on that data set."""
    return {
        method: {
            name: statistics.fmean(math.inf if value is None else value for value in values)
            for name, values in sets.items()
        }
        for method, sets in errors.items()
    }


def mean_ranks(errors: Errors) -> dict[str, float]:
    """Return each method's mean rank; 1 is the best, equal errors share their ranks."""
    from scipy.stats import rankdata

    methods = list(errors)
    names = list(errors[methods[0]])
    table = np.array([[errors[method][name] for method in methods] for name in names])
    ranks = np.array([rankdata(row) for row in table]).mean(0)
    return dict(sorted(zip(methods, map(float, ranks), strict=True), key=lambda item: item[1]))


def critical_difference(methods: int, data_sets: int, level: float = 0.05) -> float:
    """Return the difference of mean ranks above which two methods differ (Nemenyi 1963; Demšar 2006, section 3.2.2)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * data_sets))


def groups(ranks: dict[str, float], difference: float) -> list[tuple[float, float]]:
    """Return the largest intervals of mean ranks in which no two methods differ; each has at least two methods."""
    values = sorted(ranks.values())
    ends = [(low, max(high for high in values if high - low <= difference)) for low in values]
    spans = [span for span in dict.fromkeys(ends) if span[1] > span[0]]
    return [a for a in spans if not any(b != a and b[0] <= a[0] and a[1] <= b[1] for b in spans)]


def draw(ranks: dict[str, float], data_sets: int, path: Path, minutes: float) -> None:
    """Draw mean ranks on a line; bars join methods whose ranks differ by less than the critical difference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k, difference = len(ranks), critical_difference(len(ranks), data_sets)
    bars = groups(ranks, difference)
    half = math.ceil(k / 2)
    height = 1.7 + 0.22 * (half + len(bars))
    figure = Figure(figsize=(8, height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set_axis_off()
    low, high = 1, k
    below = 0.35 * len(bars) + 0.5  # depth of the first label
    bottom = below + 0.5 * half
    axes.set_xlim(low - 0.45 * (high - low), high + 0.45 * (high - low))
    axes.set_ylim(bottom + 0.2, -2.9)
    heading = f"Mean rank over {data_sets} data sets at {minutes:g} min of CPU time (1 is the best)"
    axes.text((low + high) / 2, -2.5, heading, ha="center", va="bottom", fontsize=10)
    legend = "blue bars join contenders that do not differ significantly (Nemenyi's test, 5 %)"
    axes.text((low + high) / 2, -1.9, legend, ha="center", va="bottom", fontsize=8)
    axes.plot([low, high], [0, 0], color="black", linewidth=1)
    for tick in range(low, high + 1):
        axes.plot([tick, tick], [0, -0.12], color="black", linewidth=1)
        axes.text(tick, -0.2, str(tick), ha="center", va="bottom", fontsize=8)
    axes.plot([low, low + difference], [-1.0, -1.0], color="black", linewidth=1.5)
    axes.text(
        low + difference / 2, -1.05, f"critical difference {difference:.2f}", ha="center", va="bottom", fontsize=8
    )
    for i, (begin, end) in enumerate(bars):
        depth = 0.3 + 0.35 * i
        axes.plot([begin - 0.04, end + 0.04], [depth, depth], color="tab:blue", linewidth=3, solid_capstyle="butt")
    for i, (name, rank) in enumerate(ranks.items()):
        left = i < half
        depth = below + 0.5 * (i if left else k - 1 - i)
        side = low - 0.05 * (high - low) if left else high + 0.05 * (high - low)
        axes.plot([rank, rank, side], [0, depth, depth], color="grey", linewidth=0.8)
        axes.text(
            side,
            depth,
            f" {SHOWN.get(name, name)}  {rank:.2f} ",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
        )
    figure.savefig(path)


def comparison(rows: list[dict[str, Any]], minutes: float) -> dict[str, Any] | None:
    """Return mean ranks, mean errors and the seeds' errors at one budget; None without rows of two methods.

    An error is None where the method failed.
    """
    seeds = seed_errors(rows, minutes)
    names = list(next(iter(seeds.values()), {}))
    if not names or len(seeds) < 2:
        return None
    kept = [row for row in rows if row["minutes"] == minutes and row["set"] in names]
    return {
        "minutes": minutes,
        "data_sets": {row["set"]: row["metric"] for row in kept if "metric" in row},
        "machines": sorted({row["machine"] for row in kept}),
        "ranks": mean_ranks(mean_errors(seeds)),
        "critical_difference": critical_difference(len(seeds), len(names)),
        "failed": {
            f"{row['set']}, {row['method']}, seed {row['seed']}": row["error"] for row in kept if "error" in row
        },
        "errors": seeds,
    }


def summary(found: dict[str, Any]) -> str:
    """Return mean ranks, the critical difference and the failures, as text."""
    lines = [f"{found['minutes']:g} CPU-minutes, {len(found['data_sets'])} data sets"]
    lines += [f"{name:<16} {rank:.2f}" for name, rank in found["ranks"].items()]
    lines.append(f"critical difference {found['critical_difference']:.2f}")
    lines += [f"failed: {what}: {why}" for what, why in found["failed"].items()]
    return "\n".join(lines)
