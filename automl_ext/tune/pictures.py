"""Pictures of a study, drawn by Optuna: the history of its trials, the importance of each name, and the values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState

from automl_ext.training.files.atomic import write_picture
from automl_ext.tune.samplers import in_memory

FEWEST = 3  # finished trials from which pictures say something


def draw(study: Study, out: Path) -> list[Path]:
    """Draw ``history.png``, ``importance.png`` and ``slice.png`` of the trials that finished.

    Args:
        study: the study; failed trials have infinite values and are left out.
        out: the folder.

    Returns:
        The files; none without matplotlib, or with fewer than ``FEWEST`` finished trials.
    """
    try:
        import matplotlib
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as pictures
    except ImportError:
        return []
    finished = in_memory(study.study_name, study.direction.name == "MINIMIZE")
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if math.isfinite(trial.value or 0.0):
            finished.add_trial(trial)
    if len(finished.trials) < FEWEST:
        return []
    kinds: dict[str, Callable[[Study], Any]] = {
        "history": pictures.plot_optimization_history,
        "importance": pictures.plot_param_importances,
        "slice": pictures.plot_slice,
    }
    written = []
    for name, plot in kinds.items():
        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the module is experimental
            axes = plot(finished)
            picture = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
            write_picture(picture, out / f"{name}.png", dpi=110, bbox_inches="tight")
            pyplot.close(picture)
        written.append(out / f"{name}.png")
    return written
