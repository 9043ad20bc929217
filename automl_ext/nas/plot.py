"""Plots of runs: their curves, and the cell that a search found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from automl_ext.nas.retraining.confusion import plot_confusion
from automl_ext.nas.search.plot import plot_search
from automl_ext.nas.spaces.registry import parse_genotype, space, stored_space
from automl_ext.nas.spaces.space import Space
from automl_ext.training.curves import draw_curves, read_metrics
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object
from automl_ext.training.run import CONFIG

# Metrics in one panel: a collapse of a search to skip connections or "none", and decisions by perturbation.
WATCH = {
    "share of edges where α is largest": {"search_share_skip": "skip", "search_share_none": "none"},
    "mean probability softmax(α)": {"search_prob_skip": "skip", "search_prob_none": "none"},
    "accuracy without one operation": {
        "derive_accuracy_without_best": "the one that is kept",
        "derive_accuracy_without_worst": "the one needed least",
    },
}


def plot_run(run: Path, trust: Iterable[str] = ()) -> list[Path]:
    """Plot a run of architecture search.

    Writes ``curves.png`` of the logged metrics. A search by a strategy also gets ``trajectory.png`` and
    ``pareto.png``. A run with a genotype also gets ``cell.png`` and ``cell.svg``, one with a trained network
    ``confusion.png``.

    Args:
        run: a run directory, perhaps written by somebody else.
        trust: Python modules that its configuration may name (``space``); they are imported.

    Returns:
        The files written.

    Raises:
        UserError: ``run`` is not a run directory, has no metrics, has a damaged file, or names a module that is not in
            ``trust``.
        ModuleNotFoundError: matplotlib (extra ``plot``) is not installed.
    """
    curves = run / "curves.png"
    rows = read_metrics(run)
    draw_curves(rows, curves, WATCH)
    result = run / "result.json"
    drawn = []
    if result.is_file() and (genotype := _text(result, "genotype")) is not None:
        name = _text(run / CONFIG, "space") or "nb201"
        drawn = _draw(genotype, run, stored_space(name, trust, run / CONFIG))
        drawn += plot_confusion(read_object(result), run)
    return [curves, *plot_search(rows, run), *drawn]


def _text(path: Path, key: str) -> str | None:
    value = read_object(path).get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"plot: {path}: {key}: expected a string, got {type(value).__name__}")
    return value


def plot_genotype(genotype: str, out: Path, space_name: str = "nb201") -> list[Path]:
    """Draw a cell of the space as ``out/cell.png`` and ``out/cell.svg``.

    Raises:
        UserError: the space or the genotype is unknown, or ``out`` cannot be made a folder.
    """
    return _draw(genotype, out, space(space_name))


def _draw(genotype: str, out: Path, of_space: Space[Any]) -> list[Path]:
    parsed = parse_genotype(of_space, genotype)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"plot: --out {out}: expected a folder: {error.strerror}") from None
    paths = [out / "cell.png", out / "cell.svg"]
    for path in paths:
        of_space.draw(parsed, path)
    return paths
