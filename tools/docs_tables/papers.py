"""Tables of docs/results/papers.md."""

from __future__ import annotations

import statistics
from operator import itemgetter

from docs_tables.text import grouped, integer, load, percent, returns, span, table

# Mean returns that Stable-Baselines3's zoo reports for PPO after 1,000,000 steps of version 3, each of one run.
ZOO = {"mujoco-hopper": 2410, "mujoco-halfcheetah": 5819, "mujoco-walker2d": 3479}


def papers_dreamer() -> str:
    return agents("dreamer")


def papers_atari() -> str:
    return agents("atari")


def papers_atari_speed() -> str:
    lines = []
    for row in load("atari"):
        ours, fast, peer, alone = (f"{median:,.0f}" for median in row["medians"].values())
        exact, bfloat16 = (f"{ratio:.2f}×" for ratio in row["ratios"].values())
        lines.append([row["algorithm"].upper(), f"{ours} ({exact})", f"{fast} ({bfloat16})", peer, alone])
    return table("steps per CPU-second | float32 | `--bfloat16` | Stable-Baselines3 | random actions", lines)


def papers_mujoco() -> str:
    lines = []
    for task, runs in grouped(load("papers_agents"), itemgetter("task")).items():
        if task in ZOO:
            last = [run["last"] for run in runs]
            mean, cost = integer(sum(last) / len(last)), span([run["cpu_seconds"] for run in runs])
            lines.append([runs[0]["title"], returns(last, 0), mean, integer(ZOO[task]), cost])
    return table("task | last policy, per seed | mean | reported by the zoo | CPU-seconds", lines)


def papers_inheritance() -> str:
    lines = []
    for search, rows in grouped(load("inheritance"), itemgetter("search")).items():
        found = [row["table_test_accuracy"] for row in rows]
        each, mean = ", ".join(f"{accuracy:.2f}" for accuracy in found), f"{statistics.fmean(found):.2f}"
        above = ", ".join(percent(row["cells_of_table_above"], 1) for row in rows)
        cells, cost = (span([row[key] for row in rows]) for key in ("evaluated", "cpu_seconds"))
        lines.append([f"`{search}`", cells, each, mean, above, cost])
    head = "search | cells trained | accuracy of the found cell, per seed | mean | share of the space that is better"
    return table(f"{head} | CPU-seconds", lines)


def agents(task: str) -> str:
    rows = [row for row in load("papers_agents") if row["task"].startswith(task)]
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


def papers_pronunciation() -> str:
    lines = []
    for (attention, output), rows in grouped(load("pronunciation"), itemgetter("attention", "output")).items():
        words = ", ".join(percent(row["word_error_rate"], 1) for row in rows)
        means = (sum(row[key] for row in rows) / len(rows) for key in ("phoneme_error_rate", "complete_beams"))
        lines.append(
            [attention, output, words, *(percent(mean, 1) for mean in means), span([r["ms_per_step"] for r in rows])]
        )
    head = "attention | output | word error rate, per seed | phoneme error rate | complete beams | ms per step"
    return table(head, lines)
