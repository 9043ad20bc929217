"""Tables of reinforcement learning: docs/results/rl.md and docs/choosing.md."""

from __future__ import annotations

import statistics
from typing import Any

from docs_tables.text import integer, load, returns, span, table


def grouped(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["what"], []).append(row)
    return groups


def learning(rows: list[dict[str, Any]]) -> str:
    lines = []
    for what, runs in grouped(rows).items():
        digits = 1 if "MinAtar" in what else 0
        last, best = ([run[key] for run in runs] for key in ("eval_return_mean", "best_eval_return"))
        steps = f"{round(runs[0]['env_steps'], -3):,}"
        cost = span([run["cpu_seconds"] for run in runs])
        lines.append([what, steps, returns(last, digits), returns(best, digits), cost])
    return table(
        "algorithm and environment | steps, rounded | last policy, per seed | best policy, per seed | CPU-seconds",
        lines,
    )


def rl_learning() -> str:
    return learning(load("rl_learning"))


def dreamer_learning() -> str:
    return learning(load("rl_dreamer")["learning"]["rows"])


def peers() -> str:
    a2c, ppo, a3c, dqn = load("rl_a2c"), load("rl_ppo"), load("rl_a3c"), load("rl_dqn")
    dreamer = load("rl_dreamer")["updates"]
    steps, updates = dqn["steps_per_cpu_second"], dreamer["updates_per_cpu_second"]
    q, d = ({name: statistics.median(rates) for name, rates in of.items()} for of in (steps, updates))
    m, o, p = a2c["medians"], ppo["medians"], a3c["medians"]
    sb3, unit = "stable_baselines3", "steps per CPU-second"
    lines = [
        ["A2C", unit, integer(m["automl_ext"]), f"{integer(m[sb3])} (Stable-Baselines3)", a2c["ratio"]],
        ["PPO", unit, integer(o["automl_ext"]), f"{integer(o[sb3])} (Stable-Baselines3)", ppo["ratio"]],
        [
            "DQN",
            unit,
            integer(q["automl_ext"]),
            f"{integer(q[sb3])} (Stable-Baselines3)",
            statistics.median(dqn["ratio"]),
        ],
        [
            "Dreamer",
            "updates per CPU-second",
            f"{d['automl_ext']:.1f}",
            f"{d['sheeprl']:.1f} (SheepRL)",
            dreamer["median_ratio"],
        ],
        [
            "A3C, two processes",
            "steps per second",
            integer(p["two processes"]),
            f"{integer(p['one process'])} (one process)",
            a3c["ratio"],
        ],
    ]
    reported = {name: f"{ratio:g}×" for name, ratio in load("rl_peers_reported")["ratio"].items()}
    return table(
        "algorithm | unit | here | other | ratio | reported from an AMD EPYC with AVX-512",
        [[*line[:-1], f"{line[-1]:.2f}×", reported.get(line[0], "–")] for line in lines],
    )


def costs_rl() -> str:
    groups = grouped([*load("rl_learning"), *load("rl_dreamer")["learning"]["rows"]])
    lines = []
    for what in (
        "A2C CartPole-v1",
        "A3C CartPole-v1, 2 processes",
        "PPO CartPole-v1, --preset cartpole-zoo",
        "REINFORCE CartPole-v1",
        "DQN CartPole-v1",
        "Dreamer CartPole-v1",
        "A2C LunarLander-v3",
        "DQN MinAtar Breakout",
        "Rainbow MinAtar Breakout",
    ):
        runs = groups[what]
        steps = round(runs[0]["env_steps"], -3)
        cost = statistics.mean(run["cpu_seconds"] for run in runs)
        best = statistics.mean(run["best_eval_return"] for run in runs)
        per = f"{1000 * cost / steps:.2g}"
        lines.append([what, f"{steps:,}", f"{cost:.0f}", per, f"{best:.0f}"])
    return table("run | steps | CPU-seconds | CPU-seconds per 1,000 steps | best policy's return", lines)


def tuned_agents() -> str:
    rows = []
    for row in load("rl_tuning"):
        shipped, tuned, gain = (row[name] for name in ("shipped", "tuned", "gain"))
        means = [f"{integer(part['mean'])} ± {integer(part['half'])}" for part in (shipped, tuned, gain)]
        rows.append([f"`{row['task']}`", integer(row["steps"]), integer(row["trials"]), *means])
    return table("task | steps | trials | shipped options | tuned options | gain", rows)


def rl_defaults() -> str:
    """Return a row per task and algorithm: mean returns and scores of the default settings, ours and the peer's."""
    stored, lines = load("defaults"), []
    runs: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in stored["rows"]:
        runs.setdefault((row["algorithm"], row["task"]), {}).setdefault(row["side"], []).append(row)
    for (algorithm, task), sides in runs.items():
        ends = stored["ends"][task]
        low, high = ends["random"], ends["best"]
        digits = 2 if max(abs(low), abs(high)) < 10 else 0
        cells = []
        for side in ("ours", "sb3"):
            found = sides.get(side)
            if found is None:
                cells += ["not run", "–", "–"]
                continue
            scores = [(row["return"] - low) / (high - low) for row in found]
            score = f"{statistics.fmean(scores):.2f}"
            if len(scores) > 1:
                score += f" ± {statistics.stdev(scores) / len(scores) ** 0.5:.2f}"
            shown = returns([row["return"] for row in found], digits)
            cells += [shown, score, f"{statistics.fmean(row['cpu_seconds'] for row in found):.0f}"]
        lines.append(
            [
                f"{algorithm.upper()} {task}",
                ", ".join(f"{end:.{digits}f}".replace("-", "−") for end in (low, high)),
                *[cell.replace("-", "−") for cell in cells],
            ]
        )
    header = "task | random, best | returns | score | CPU-s | Stable-Baselines3 | score | CPU-s"
    return table(header, lines)
