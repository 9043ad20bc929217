"""Pictures of a study, drawn by Optuna: the history of its trials, the importance of each name, and the values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState, create_trial

from automl_ext.training.files.atomic import write_picture
from automl_ext.tune.samplers import in_memory

FEWEST = 3  # finished trials from which pictures say something


def draw(study: Study, out: Path, label: str) -> None:
    """Draw ``history.png``, ``importance.png`` and ``slice.png`` of the trials that finished.

    Nothing is drawn without matplotlib, or with fewer than ``FEWEST`` finished trials.
    """
    try:
        import matplotlib
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as pictures
    except ImportError:
        return
    finished = only_finished(study)
    if len(finished.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < FEWEST:
        return
    kinds: dict[str, Callable[..., Any]] = {
        "history": pictures.plot_optimization_history,
        "importance": pictures.plot_param_importances,
        "slice": pictures.plot_slice,
    }
    for name, plot in kinds.items():
        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the module is experimental
            axes = plot(finished, target_name=label)
            picture = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
            if name == "slice":
                label_logarithmic_axes(picture)
                darken_early_trials(picture)
            write_picture(picture, out / f"{name}.png", dpi=110, bbox_inches="tight")
            pyplot.close(picture)


def only_finished(study: Study) -> Study:
    """Return a study in which only finished trials have values; the trials keep their numbers."""
    finished = in_memory(study.study_name, study.direction.name == "MINIMIZE")
    for trial in study.get_trials(deepcopy=False):
        complete = trial.state == TrialState.COMPLETE and math.isfinite(trial.value or 0.0)
        finished.add_trial(trial if complete else create_trial(state=TrialState.FAIL))
    return finished


def darken_early_trials(picture: Any) -> None:
    """Change the color scale so that it begins with a visible blue: Optuna draws the first trials white."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    blues = ListedColormap([colormaps["Blues"](0.4 + 0.6 * i / 255) for i in range(256)])
    for axes in picture.axes[:-1]:  # the last one is the color bar, which follows the points
        for points in axes.collections:
            points.set_cmap(blues)


def label_logarithmic_axes(picture: Any) -> None:
    """Label only a few numbers on logarithmic axes, because the panels are narrow."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axes in picture.axes:
        low, high = axes.get_xlim()
        if axes.get_xscale() == "log" and high < 100 * low:  # else the powers of ten are few and fit
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
