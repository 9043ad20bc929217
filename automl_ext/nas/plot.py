"""Pictures of runs: their curves, and the cell that a search found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from automl_ext.nas.retrain import parse_genotype
from automl_ext.nas.search_plot import plot_search
from automl_ext.nas.spaces import space
from automl_ext.training.curves import draw_curves, read_metrics
from automl_ext.training.errors import UserError

# A search that collapses shows here first.
WATCH = {
    "share of edges where α is largest": {"search_share_skip": "skip", "search_share_none": "none"},
    "mean probability softmax(α)": {"search_prob_skip": "skip", "search_prob_none": "none"},
}


def plot_run(run: Path) -> list[Path]:
    """Draw ``curves.png`` of what the run logged, ``trajectory.png`` and ``pareto.png`` of a search by a strategy, and
    ``cell.png`` and ``cell.svg`` when it has a genotype.

    Returns:
        The files written.

    Raises:
        UserError: no run directory, one without measurements, or a damaged file in it.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    curves = run / "curves.png"
    rows = read_metrics(run)
    draw_curves(rows, curves, WATCH)
    result = run / "result.json"
    genotype = _read(result).get("genotype") if result.is_file() else None
    drawn = [] if genotype is None else plot_genotype(genotype, run, _read(run / "config.json").get("space", "nb201"))
    return [curves, *plot_search(rows, run), *drawn]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"plot: {path}: expected a JSON object, as a run writes it")
    return value


def plot_genotype(genotype: str, out: Path, space_name: str = "nb201") -> list[Path]:
    """Draw a cell of the space as ``out/cell.png`` and ``out/cell.svg``.

    Raises:
        UserError: no such space or cell, or ``out`` is no folder and cannot become one.
    """
    of_space = space(space_name)
    parsed = parse_genotype(of_space, genotype)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"plot: --out {out}: expected a folder: {error.strerror}") from None
    paths = [out / "cell.png", out / "cell.svg"]
    for path in paths:
        of_space.draw(parsed, path)
    return paths
