"""Plots learning curves: of one run, or of several runs as means over seeds with 95 % confidence bands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from automl_ext.training.config import differences
from automl_ext.training.curves import draw_curves, figure, plain, read_metrics
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.files.reading import read_object
from automl_ext.training.run import CONFIG, algorithm_of

# 97.5 % quantiles of Student's t for 1 … 30 degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]
T += [2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]


class Curve(NamedTuple):
    """The evaluations of one run."""

    algorithm: str
    config: dict[str, Any]  # without the seed
    steps: np.ndarray
    returns: np.ndarray


def plot_runs(runs: list[Path], out: Path, trust: Iterable[str] = ()) -> list[Path]:
    """Draw ``curves.png`` of every run, and ``learning.png`` with the evaluation returns.

    A run of Dreamer also gets ``imagined.png``, an episode next to its imagination. ``learning.png`` of one run is
    written into the run, and of several runs into ``out``. If these have several environments, there is one file
    ``learning-ENVIRONMENT.png`` for each. Runs that differ only in their seed are drawn as one line, their mean, with
    the 95 % interval of Student's t for the mean if there are two or more.

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
        draw_curves(rows, run / "curves.png")
        written.append(run / "curves.png")
        if algorithm_of(run) == "dreamer":
            from automl_ext.rl.reports.imagination import draw_run

            written.append(draw_run(run, trust))
        env_id, curve = _curve(run, rows)
        worlds.setdefault(env_id, []).append(curve)
    folder = runs[0] if len(runs) == 1 else out
    folder.mkdir(parents=True, exist_ok=True)
    for env_id, curves in worlds.items():
        name = "learning.png" if len(worlds) == 1 else f"learning-{re.sub(r'[^A-Za-z0-9_.-]', '-', env_id)[:100]}.png"
        draw_learning(env_id, curves, folder / name)
        written.append(folder / name)
    return written


def draw_learning(env_id: str, curves: list[Curve], path: Path) -> None:
    """Draw evaluation returns over steps, one line per configuration."""
    groups = _groups(curves)
    picture = figure(7, 4.2)
    axes = picture.add_subplot()
    for i, (label, group) in enumerate(groups.items()):
        steps, returns = together(group)
        seeds = f"{len(group)} seed{'s' * (len(group) > 1)}"
        axes.plot(steps, returns.mean(0), color=f"C{i}", label=plain(f"{label}, {seeds}"), linewidth=1.8)
        if len(group) > 1:
            low, high = interval(returns)
            axes.fill_between(steps, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
    values = np.concatenate([curve.returns for curve in curves])  # without bands, which are wide for two seeds
    margin = 0.06 * float(values.max() - values.min()) or 1.0
    axes.set_ylim(values.min() - margin, values.max() + margin)
    several = any(len(group) > 1 for group in groups.values())
    axes.set_title(plain(env_id) + (": mean and 95 % t interval over seeds" if several else ""), fontsize=10)
    axes.set_xlabel("steps in all environments")
    axes.set_ylabel("return of evaluation episodes")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    write_picture(picture, path, dpi=150)


def together(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps [T] that all curves cover, and the linearly interpolated returns [curves, T].

    Raises:
        UserError: there are no such steps.
    """
    first, last = max(c.steps[0] for c in curves), min(c.steps[-1] for c in curves)
    if first > last:
        raise UserError("plot: the evaluations of these seeds have no steps in common")
    steps = np.unique(np.clip(curves[0].steps, first, last))
    return steps, np.stack([np.interp(steps, c.steps, c.returns) for c in curves])


def interval(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the 95 % interval of Student's t for the mean of [seeds, T]."""
    seeds = len(returns)
    half = T[min(seeds - 2, len(T) - 1)] * returns.std(0, ddof=1) / np.sqrt(seeds)
    return returns.mean(0) - half, returns.mean(0) + half


def _curve(run: Path, rows: list[dict[str, Any]]) -> tuple[str, Curve]:
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
    return env_id, Curve(str(algorithm_of(run)), without_seed, steps, returns)


def _groups(curves: list[Curve]) -> dict[str, list[Curve]]:
    """Group curves that differ only in the seed.

    The label of a group is the algorithm and the options that differ from the algorithm's first curve.
    """
    first: dict[str, Curve] = {}
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        base = first.setdefault(curve.algorithm, curve)
        changed = [f"{key} {now}" for key, _, now in differences(base.config, curve.config)]
        groups.setdefault(" ".join([curve.algorithm, *changed]), []).append(curve)
    return groups
