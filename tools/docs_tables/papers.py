"""Tables of docs/results/papers.md."""

from __future__ import annotations

import statistics
from typing import Any

from docs_tables.text import load, percent, returns, span, table


def groups(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def papers_dreamer() -> str:
    return agents([row for row in load("papers_agents") if row["task"].startswith("dreamer")])


def agents(rows: list[dict[str, Any]]) -> str:
    lines = []
    for (title, variant), runs in groups(rows, "title", "variant").items():
        steps, cost = f"{round(runs[0]['env_steps'], -3):,}", span([run["cpu_seconds"] for run in runs])
        last, best = ([run[key] for run in runs] for key in ("last", "best"))
        lines.append([title, variant, steps, returns(last, 0), returns(best, 0), cost])
    return table("task | algorithm | steps | last policy, per seed | best policy, per seed | CPU-seconds", lines)


def papers_pronunciation() -> str:
    rows = load("pronunciation")
    lines = []
    for (attention, output), runs in groups(rows, "attention", "output").items():
        words, phonemes, beams, cost = (
            [run[key] for run in runs]
            for key in ("word_error_rate", "phoneme_error_rate", "complete_beams", "ms_per_step")
        )
        errors = f"{returns([100 * value for value in words], 1)}; mean {100 * statistics.mean(words):.1f}"
        mean = f"{100 * statistics.mean(phonemes):.1f}"
        lines.append([attention, output, errors, mean, percent(statistics.mean(beams)), f"{statistics.mean(cost):.0f}"])
    return table(
        "attention | output and loss | word error rate in %, per seed | phoneme error rate, % | "
        "words whose beam of 5 holds every hypothesis | ms per step",
        lines,
    )


def papers_language_model() -> str:
    lines = []
    for row in load("language_model_training"):
        marks = row["marks"]
        shares = "; ".join(" / ".join(percent(share) for share in mark["nonzero"]) for mark in marks)
        losses = ", ".join(f"{mark['loss']:.3f}" for mark in marks)
        lines.append(
            [
                row["attention"],
                str(row["seed"]),
                f"{marks[-1]['steps']:,}",
                losses,
                f"{row['training_loss']:.3f}",
                shares,
            ]
        )
    return table(
        "attention | seed | steps | validation loss after 0, 25, 50, 100 % of the time | last training loss | "
        "weights that are not 0, first / second layer",
        lines,
    )
