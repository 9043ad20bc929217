"""The demonstration that ``make`` runs: ``search auto`` on the digits data, with its baselines."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from automl_ext.nas.auto.auto import auto
from automl_ext.nas.auto.config import AutoConfig
from automl_ext.nas.auto.report import table_of
from automl_ext.nas.plot import plot_run

MINUTES = 0.6  # CPU-minutes of the search; the random baseline takes as many again


def demo(out: Path) -> None:
    """Search, train the baselines, draw, and print a table. A finished or interrupted demonstration is continued.

    Args:
        out: the run directory; see :func:`~automl_ext.nas.plot.plot_run` for the pictures.
    """
    torch.set_num_threads(1)  # a second thread slows such small networks down; resuming needs the same number
    result = auto(AutoConfig(minutes=MINUTES, candidates=300), out, resume="auto")
    assert result is not None  # no stop_after
    pictures = plot_run(out)
    console = Console()
    console.print(table_of(result, "search auto on the digits data: 359 test images"))
    console.print("architecture:", result["genotype"], soft_wrap=True)
    console.print("pictures:", ", ".join(str(path) for path in pictures), soft_wrap=True)
