"""Tables of docs/results/papers.md."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from docs_tables.text import grouped, load, percent, returns, span, table


def papers_dreamer() -> str:
    return agents([row for row in load("papers_agents") if row["task"].startswith("dreamer")])


def agents(rows: list[dict[str, Any]]) -> str:
    lines = []
    for (title, variant), runs in grouped(rows, itemgetter("title", "variant")).items():
        steps, cost = f"{round(runs[0]['env_steps'], -3):,}", span([run["cpu_seconds"] for run in runs])
        last, best = ([run[key] for run in runs] for key in ("last", "best"))
        lines.append([title, variant, steps, returns(last, 0), returns(best, 0), cost])
    return table("task | algorithm | steps | last policy, per seed | best policy, per seed | CPU-seconds", lines)


def papers_language_model() -> str:
    lines = []
    for row in load("language_model_training"):
        marks = row["marks"]
        shares = "; ".join(" / ".join(percent(share) for share in mark["nonzero"]) for mark in marks)
        losses = ", ".join(f"{mark['loss']:.3f}" for mark in marks)
        steps, last = f"{marks[-1]['steps']:,}", f"{row['training_loss']:.3f}"
        lines.append([row["attention"], str(row["seed"]), steps, losses, last, shares])
    return table(
        "attention | seed | steps | validation loss after 0, 25, 50, 100 % of the time | last training loss | "
        "weights that are not 0, first / second layer",
        lines,
    )
