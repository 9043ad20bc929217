"""Tables of training-free scores and of searches with screening: docs/results/strategies.md."""

from __future__ import annotations

from typing import Any

from docs_tables.text import integer, load, table


def interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} ({low:.2f} to {high:.2f})"


def training_free() -> str:
    """Return the rows of all cells, and of a sample for scores that were not computed for all cells."""
    lines: list[list[str]] = []
    shown: set[str] = set()
    for run in load("training_free")["runs"]:
        cells = f"{integer(run['architectures'])}, {run['images']} images"
        kept = [row for row in run["rows"] if row["score"] not in shown]
        shown |= {row["score"] for row in kept}
        for row in sorted(kept, key=lambda row: -row["spearman"]):
            one = row["of"] == [row["score"]]
            name = f"`{row['score']}`" if one else f"**{row['score']}**"
            picks = [f"{row['pick']:.2f}", f"{row['best_of_20_after_12_epochs']:.2f}"]
            numbers = [interval(row, "spearman"), f"{row['kendall']:.2f}", *picks, f"{row['cpu_seconds']:.3f}"]
            lines.append([cells, name, *numbers])
    return table(
        "cells | score | Spearman ρ (95 % interval) | Kendall τ | its pick, % | best of its 20 after 12 epochs, % "
        "| CPU-seconds a cell",
        lines,
    )


def nas_screening() -> str:
    lines = []
    for row in load("nas_screening")["rows"]:
        if row["budget"] == 500:
            continue  # four evaluations: no strategy differs from another
        for name, found in row["algorithms"].items():
            algorithm, screen = name.removesuffix("+screen"), name.endswith("+screen")
            if algorithm == "reinforce" or (row["budget"] == 20_000 and not screen):
                continue  # it takes no screened cells; the table nas_bench has these rows
            over = found.get("over_rea") if algorithm.startswith("renas") else None
            gain = "–" if over is None else f"{over['mean']:+.3f} ({over['ci95'][0]:+.3f} to {over['ci95'][1]:+.3f})"
            population = f"{row['population']}, {row['sample']}" if algorithm not in ("random", "reinforce") else "–"
            settings = [integer(row["budget"]), f"`{algorithm}`", integer(row["screen"]) if screen else "–", population]
            result = f"{found['mean']:.2f} ± {found['std']:.2f}"
            lines.append([*settings, result, gain, f"{found['evaluations']:.0f}"])
    return table(
        "simulated seconds | strategy | cells screened | population, sample | test accuracy, % "
        "| over REA with the same screening (95 % interval) | evaluations per run",
        lines,
    )
