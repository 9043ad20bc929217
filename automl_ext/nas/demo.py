"""The demonstration that ``make`` runs: GDAS on the digits data, against randomly drawn cells trained alike."""

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
from automl_ext.nas.retraining.training import TrainingConfig
from automl_ext.training.files.atomic import write_json

RANDOM_CELLS = 5


def demo(out: Path) -> None:
    """Search, retrain, compare, draw and print the table; a part that is done is not done again.

    Writes ``search/``, ``random/`` (run directories, ``search/cell.png`` and ``.svg`` among them) and
    ``table.json`` in ``out``.
    """
    torch.set_num_threads(1)  # networks this small lose by a second thread; and resuming needs the same number
    config = GDASConfig()
    found = search(config, out / "search", resume="auto")
    assert found is not None  # nothing asked it to stop
    drawn = compare(random_config(config), out / "random", resume="auto")
    assert drawn is not None
    pictures = plot_run(out / "search")
    rows = table_rows(found, drawn)
    write_json(out / "table.json", rows)
    Console().print(as_table(rows))
    print("found:", found["genotype"])
    print("pictures:", ", ".join(str(path) for path in pictures))


def random_config(config: GDASConfig) -> CompareConfig:
    """Random cells trained as the found one is."""
    like = retrain_config(config, genotype="")
    fields = {name: getattr(like, name) for name in TrainingConfig.__dataclass_fields__}
    return CompareConfig(**fields, random_cells=RANDOM_CELLS)


def table_rows(found: dict[str, Any], drawn: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [row("found by GDAS", found, found["times"]["search_seconds"])]
    rows += [row(f"random {i + 1}", result) for i, result in enumerate(drawn["random"])]
    return rows


def row(name: str, result: dict[str, Any], search_seconds: float = 0.0) -> dict[str, Any]:
    return {
        "cell": name,
        "genotype": result["genotype"],
        "test_accuracy": result["test_accuracy"],
        "parameters": result["parameters"],
        "search_seconds": search_seconds,
        "training_seconds": result["times"]["retrain_seconds"],
    }


def as_table(rows: list[dict[str, Any]]) -> Table:
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
