"""Learning curves of one run, or of several runs: single seeds with their median, or the mean with a band."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from automl_ext.rl.reports.imagination import draw_run
from automl_ext.training.config import differences
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.files.reading import read_object
from automl_ext.training.intervals import t_quantile
from automl_ext.training.pictures.colors import distinct_colors
from automl_ext.training.pictures.curves import (
    add_title,
    draw_curves,
    figure,
    mark_best,
    plain,
    read_metrics,
    set_axes,
)
from automl_ext.training.pictures.titles import algorithm_name, is_number
from automl_ext.training.run import CONFIG, RESULT, algorithm_of

BAND_SEEDS = 5  # with fewer seeds the interval of the mean is so wide that single seeds say more
RETURN = "return of evaluation episodes"
OFFLINE = {"bc", "cql", "iql"}  # algorithms whose steps are gradient steps
# Lowest and highest return of an episode, by the start of the environment's id.
BOUNDS = {
    "CartPole-v0": (0.0, 200.0),
    "CartPole-v1": (0.0, 500.0),
    "Acrobot-": (-500.0, 0.0),
    "MountainCar-": (-200.0, 0.0),
    "Pendulum-": (-np.inf, 0.0),
    "FrozenLake": (0.0, 1.0),
    "MinAtar/": (0.0, np.inf),
    "dmc/": (0.0, 1000.0),
}


class Curve(NamedTuple):
    """The evaluations of one run.

    Attributes:
        config: the configuration without the seed.
        best: the step of the best policy, and its evaluation at that step.
        result: the content of ``result.json``; None if the run has not finished.
    """

    algorithm: str
    config: dict[str, Any]
    steps: np.ndarray
    returns: np.ndarray
    best: tuple[float, float] | None = None
    result: dict[str, Any] | None = None


def plot_runs(runs: list[Path], out: Path, trust: Iterable[str] = ()) -> list[Path]:
    """Draw ``curves.png`` of every run, and ``learning.png`` with the evaluation returns.

    A run of Dreamer also gets ``imagined.png``, an episode next to its imagination. ``learning.png`` of one run is
    written into the run, and of several runs into ``out``. If these have several environments, there is one file
    ``learning-ENVIRONMENT.png`` for each. Runs that differ only in their seed are drawn together: with at least
    ``BAND_SEEDS`` seeds of every configuration as their mean and the 95 % interval of Student's t for the mean, clipped
    to the bounds of the return; with fewer as thin lines and their median.

    Args:
        runs: run directories.
        out: folder for the picture of several runs.
        trust: Python modules that the configuration of a run of Dreamer may name; they are imported.

    Returns:
        The files written.

    Raises:
        UserError: a run that has not been evaluated, or a damaged file.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    written: list[Path] = []
    worlds: dict[str, list[Curve]] = {}
    for run in runs:
        rows = read_metrics(run)
        env_id, curve = curve_of(run, rows)
        best = None if curve.best is None else (int(curve.best[0]), "best policy")
        draw_curves(rows, run / "curves.png", run_title(env_id, curve), steps_name([curve]), best=best)
        written.append(run / "curves.png")
        if algorithm_of(run) == "dreamer":
            written.append(draw_run(run, trust))
        worlds.setdefault(env_id, []).append(curve)
    folder = runs[0] if len(runs) == 1 else out
    folder.mkdir(parents=True, exist_ok=True)
    for env_id, curves in worlds.items():
        name = "learning.png" if len(worlds) == 1 else f"learning-{re.sub(r'[^A-Za-z0-9_.-]', '-', env_id)[:100]}.png"
        draw_learning(env_id, curves, folder / name)
        written.append(folder / name)
    return written


def draw_seeds(runs: list[Path], out: Path) -> Path:
    """Draw runs that differ only in their seed into ``out/learning.png``; see :func:`plot_runs`."""
    found = [curve_of(run, read_metrics(run)) for run in runs]
    draw_learning(found[0][0], [curve for _, curve in found], out / "learning.png")
    return out / "learning.png"


def draw_learning(env_id: str, curves: list[Curve], path: Path) -> None:
    """Draw evaluation returns over steps, one line per configuration, and mark the best policy of each."""
    draw_groups(env_id, _groups(curves), path)


def draw_groups(env_id: str, groups: dict[str, list[Curve]], path: Path, title: str | None = None) -> None:
    """Draw groups of curves by their labels, as :func:`draw_learning` does for configurations."""
    curves = [curve for group in groups.values() for curve in group]
    colors = distinct_colors(group[0].algorithm for group in groups.values())
    sizes = [len(group) for group in groups.values()]
    band = min(sizes) >= BAND_SEEDS
    picture = figure(7, 4.2)
    axes = picture.add_subplot()
    for (label, group), color in zip(groups.items(), colors, strict=True):
        steps, returns = together(group)
        seeds = f"{len(group)} seed{'s' * (len(group) > 1)}"
        middle = returns.mean(0) if band else np.median(returns, 0)
        point = "o" if len(steps) == 1 else ""
        axes.plot(steps, middle, point + "-", color=color, label=plain(f"{label}, {seeds}"), linewidth=2.0, zorder=3)
        if band:
            low, high = clipped(env_id, *interval(returns))
            axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        elif len(group) > 1:
            for curve in group:
                thin = "." if len(curve.steps) == 1 else ""
                axes.plot(curve.steps, curve.returns, thin + "-", color=color, linewidth=0.7, alpha=0.6, label="_")
        best = max((curve.best for curve in group if curve.best), key=lambda found: found[1], default=None)
        if best is not None:
            mark_best(axes, *best, color, "_")
    axes.plot([], [], "*", color="0.3", markersize=10, label="best policy" + " of all seeds" * (max(sizes) > 1))
    values = np.concatenate([curve.returns for curve in curves])  # without bands, which are wide for few seeds
    margin = 0.06 * float(values.max() - values.min()) or 1.0
    axes.set_ylim(values.min() - margin, values.max() + margin)
    set_axes(axes, steps_name(curves), RETURN)
    axes.legend(fontsize=8)
    add_title(picture, _learning_title(env_id, curves, band, max(sizes), title))
    write_picture(picture, path, dpi=130)


def _learning_title(env_id: str, curves: list[Curve], band: bool, seeds: int, title: str | None) -> str:
    if len(curves) == 1:
        return run_title(env_id, curves[0])
    shown = ""
    if band:
        shown = ": mean and 95 % t interval over seeds"
    elif seeds > 1:
        shown = ": median, and each seed as a thin line"
    names = title or ", ".join(dict.fromkeys(algorithm_name(c.algorithm) for c in curves))
    return f"{names} on {env_id}{shown}"


def run_title(env_id: str, curve: Curve) -> str:
    """Return the title of a run's pictures, such as "A2C on CartPole-v1: return 500 (best policy, …), …"."""
    facts = curve.result or {}
    best, steps, unit = facts.get("best_eval_return"), facts.get("env_steps"), steps_name([curve])
    if is_number(best) and is_number(steps):
        last = facts.get("eval_return_mean")
        kept = f"; last policy {last:.4g}" if is_number(last) and last != best else ""
        which = "best and last" if facts.get("best_step") == steps else "best"
        result = f"return {best:.4g} ({which} policy, new episodes{kept}), {steps:,} {unit}"
    else:
        result = f"not finished, {curve.steps[-1]:,.0f} {unit}"
    return f"{algorithm_name(curve.algorithm)} on {env_id}: {result}"


def steps_name(curves: Iterable[Curve]) -> str:
    """Return the name of the steps of these curves, such as "environment steps"."""
    kinds = {"gradient steps" if curve.algorithm in OFFLINE else "environment steps" for curve in curves}
    return " or ".join(sorted(kinds))


def clipped(env_id: str, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clip a band to the returns that are possible in an environment, if these are known."""
    bounds = next((bounds for start, bounds in BOUNDS.items() if env_id.startswith(start)), (-np.inf, np.inf))
    return low.clip(*bounds), high.clip(*bounds)


def together(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps [T] that all curves cover, and the linearly interpolated returns [curves, T].

    If there are no such steps, for example with one evaluation per seed at different steps, T is 1, and each curve has
    the return of its evaluation nearest to that step.
    """
    first = max(c.steps[0] for c in curves)
    last = max(first, min(c.steps[-1] for c in curves))
    steps = np.unique(np.clip(curves[0].steps, first, last))
    return steps, np.stack([np.interp(steps, c.steps, c.returns) for c in curves])


def interval(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the 95 % interval of Student's t for the mean of [seeds, T]."""
    seeds = len(returns)
    half = t_quantile(seeds) * returns.std(0, ddof=1) / np.sqrt(seeds)
    return returns.mean(0) - half, returns.mean(0) + half


def curve_of(run: Path, rows: list[dict[str, Any]]) -> tuple[str, Curve]:
    """Return the environment and the evaluations of a run."""
    points = [(row["step"], row["eval_return"]) for row in rows if row.get("eval_return") is not None]
    if not points:
        raise UserError(f"plot: {run}: the run has not been evaluated yet")
    config = read_object(run / CONFIG)
    env_id = config.get("env_id")
    if not isinstance(env_id, str):
        raise UserError(f"plot: {run / CONFIG}: expected the configuration of a run, with env_id")
    steps, returns = np.array(points, float).T
    without_seed = {name: value for name, value in config.items() if name != "seed"}
    result = read_object(run / RESULT) if (run / RESULT).is_file() else {}
    return env_id, Curve(
        str(algorithm_of(run)), without_seed, steps, returns, best_evaluation(steps, returns, result), result
    )


def best_evaluation(steps: np.ndarray, returns: np.ndarray, result: dict[str, Any]) -> tuple[float, float]:
    """Return the step of the best policy and its evaluation: from the result, else of the last maximum."""
    known = steps == result.get("best_step")
    place = np.flatnonzero(known if known.any() else returns == returns.max())[-1]
    return float(steps[place]), float(returns[place])


def _groups(curves: list[Curve]) -> dict[str, list[Curve]]:
    """Group curves that differ only in the seed.

    The label of a group is the algorithm and the options that differ from the algorithm's first curve.
    """
    first: dict[str, Curve] = {}
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        base = first.setdefault(curve.algorithm, curve)
        changed = [f"{key} {now}" for key, _, now in differences(base.config, curve.config)]
        groups.setdefault(" ".join([algorithm_name(curve.algorithm), *changed]), []).append(curve)
    return groups
