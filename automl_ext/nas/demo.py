"""The demonstration that ``make`` runs: a cell found by GDAS on the digits data, compared with random cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from automl_ext.nas.differentiable.gdas import GDASConfig, search
from automl_ext.nas.differentiable.search import retrain_config
from automl_ext.nas.plot import plot_run
from automl_ext.nas.retraining.compare import CompareConfig, compare
from automl_ext.nas.retraining.comparison import draw_groups
from automl_ext.nas.retraining.training import TrainingConfig
from automl_ext.training.files.atomic import write_json

RANDOM_CELLS = 5


def demo(out: Path) -> None:
    """Search, retrain, compare, draw, and print a table of the results. Finished parts are not repeated.

    Args:
        out: the folder for the run directories ``search`` (with ``cell.png`` and ``cell.svg``) and ``random``, and for
            ``table.json`` and ``comparison.png``.
    """
    torch.set_num_threads(1)  # a second thread slows such small networks down; resuming needs the same number
    config = GDASConfig()
    found = search(config, out / "search", resume="auto")
    assert found is not None  # no stop_after
    drawn = compare(random_config(config), out / "random", resume="auto")
    assert drawn is not None
    rows = table_rows(found, drawn)
    pictures = [*plot_run(out / "search"), draw_rows(rows, drawn["random_median"], out / "comparison.png")]
    write_json(out / "table.json", rows)
    Console().print(as_table(rows))
    print("found:", found["genotype"])
    print("pictures:", ", ".join(str(path) for path in pictures))


def draw_rows(rows: list[dict[str, Any]], median: float, path: Path) -> Path:
    """Draw the found cell next to the random ones; return the file."""
    points = [(r["parameters"], r["test_accuracy"]) for r in rows]
    groups = {"found by GDAS": points[:1], "random cells": points[1:]}
    draw_groups(groups, {"median of the random cells": median}, "GDAS and random cells on digits", path)
    return path


def random_config(config: GDASConfig) -> CompareConfig:
    """Return the configuration that trains random cells in the same way as the found one."""
    like = retrain_config(config, genotype="")
    fields = {name: getattr(like, name) for name in TrainingConfig.__dataclass_fields__}
    return CompareConfig(**fields, random_cells=RANDOM_CELLS)


def table_rows(found: dict[str, Any], drawn: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for the found cell, then one per random cell."""
    rows = [row("found by GDAS", found, found["times"]["search_seconds"])]
    rows += [row(f"random {i + 1}", result) for i, result in enumerate(drawn["random"])]
    return rows


def row(name: str, result: dict[str, Any], search_seconds: float = 0.0) -> dict[str, Any]:
    """Return the row of a trained cell."""
    return {
        "cell": name,
        "genotype": result["genotype"],
        "test_accuracy": result["test_accuracy"],
        "parameters": result["parameters"],
        "search_seconds": search_seconds,
        "training_seconds": result["times"]["retrain_seconds"],
    }


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Format the rows, with the mean accuracy of the random cells at the end."""
    table = Table("cell", "test accuracy", "parameters", "search s", "training s", title="digits")
    for r in rows:
        table.add_row(
            r["cell"],
            f"{100 * r['test_accuracy']:.2f} %",
            f"{r['parameters']:,}",
            f"{r['search_seconds']:.1f}",
            f"{r['training_seconds']:.1f}",
        )
    mean = sum(r["test_accuracy"] for r in rows[1:]) / len(rows[1:])
    table.add_row("random, mean", f"{100 * mean:.2f} %", "", "", "")
    return table
