"""Pictures of runs: their curves, and the cell that a search found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from automl_ext.nas.nasbench201 import NASBench201
from automl_ext.nas.retrain import parse_genotype
from automl_ext.training.errors import UserError


def plot_run(run: Path) -> list[Path]:
    """Draw ``curves.png`` of what the run logged, and ``cell.png`` and ``cell.svg`` when it has a genotype.

    Returns:
        The files written.

    Raises:
        UserError: no run directory, one without measurements, or a damaged file in it.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    metrics = run / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(f"plot: {run}: expected a run directory with metrics.jsonl")
    rows = _rows(metrics)
    if not rows:
        raise UserError(f"plot: {run}: metrics.jsonl is empty: nothing has been measured yet")
    curves = run / "curves.png"
    draw_curves(rows, curves)
    result = run / "result.json"
    genotype = _genotype(result) if result.is_file() else None
    return [curves] + ([] if genotype is None else plot_genotype(genotype, run))


def _rows(metrics: Path) -> list[dict[str, Any]]:
    """The measurements. A last line that a crash, or a run still going on, left half written is skipped."""
    rows = []
    lines = metrics.read_bytes().splitlines()
    for i, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if i < len(lines) - 1:
                raise UserError(f"plot: {metrics}: line {i + 1} is no JSON") from None
    return rows


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


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """One small panel per quantity, over steps."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'drawing curves needs matplotlib: pip install "automl_ext[plot]"', name="matplotlib"
        ) from None

    names = sorted({name for row in rows for name in row} - {"step"})
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * lines), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, i + 1)
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        axes.plot(*zip(*points, strict=True), color="#1b6ca8")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
