"""Pictures of runs: their curves, and the cell that a search found."""

from __future__ import annotations

import json
from pathlib import Path

from automl_ext.nas.nasbench201 import NASBench201
from automl_ext.nas.retrain import parse_genotype
from automl_ext.training.curves import draw_curves, read_metrics
from automl_ext.training.errors import UserError

# A search that collapses shows here first.
WATCH = {
    "share of edges where α is largest": {"search_share_skip": "skip", "search_share_none": "none"},
    "mean probability softmax(α)": {"search_prob_skip": "skip", "search_prob_none": "none"},
}


def plot_run(run: Path) -> list[Path]:
    """Draw ``curves.png`` of what the run logged, and ``cell.png`` and ``cell.svg`` when it has a genotype.

    Returns:
        The files written.

    Raises:
        UserError: no run directory, one without measurements, or a damaged file in it.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    curves = run / "curves.png"
    draw_curves(read_metrics(run), curves, WATCH)
    result = run / "result.json"
    genotype = _genotype(result) if result.is_file() else None
    return [curves] + ([] if genotype is None else plot_genotype(genotype, run))


def _genotype(result: Path) -> str | None:
    try:
        return json.loads(result.read_bytes()).get("genotype")
    except (ValueError, AttributeError):
        raise UserError(f"plot: {result}: expected a JSON object, the result of a run") from None


def plot_genotype(genotype: str, out: Path) -> list[Path]:
    """Draw a NAS-Bench-201 cell as ``out/cell.png`` and ``out/cell.svg``.

    Raises:
        UserError: no such cell, or ``out`` is no folder and cannot become one.
    """
    space = NASBench201()
    parsed = parse_genotype(space, genotype)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"plot: --out {out}: expected a folder: {error.strerror}") from None
    paths = [out / "cell.png", out / "cell.svg"]
    for path in paths:
        space.draw(parsed, path)
    return paths
