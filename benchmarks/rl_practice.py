"""Train agents with and without the parts that make reinforcement learning work in practice, and compare them.

    OMP_NUM_THREADS=1 python benchmarks/rl_practice.py --out runs/practice [--only TASK ...] [--part PART ...] \\
        [--json benchmarks/results/rl_practice.json] [--pictures docs/images]
    python benchmarks/rl_practice.py --json benchmarks/results/rl_practice.json --pictures docs/images [--only TASK ...]

The tasks are in ``benchmarks/practice/PART.toml``. A task has variants, usually with and without a part, each a command
of ``automl-ext train``. ``prepare`` holds commands that run once before; ``{out}`` in any command is the folder of the
task. Finished runs are not repeated and interrupted ones are resumed. ``--json`` replaces the rows of these tasks in
the file; ``--pictures`` draws the mean return of every variant over the steps, with the 95 % interval, or with
``picture = "tasks"`` the returns of the last policies on each of several tasks. Without ``--out`` nothing is trained:
the pictures are drawn from the rows of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tomllib

from automl_ext.training.intervals import t_quantile
from automl_ext.training.pictures.colors import PALETTE
from automl_ext.training.pictures.curves import figure, read_metrics, set_axes

TASKS = Path(__file__).parent / "practice"


def read_tasks() -> dict[str, dict[str, Any]]:
    """Return the tasks of all files by name, each with the name of its part."""
    tasks: dict[str, dict[str, Any]] = {}
    for path in sorted(TASKS.glob("*.toml")):
        for name, task in tomllib.loads(path.read_text()).items():
            tasks[name] = {"part": path.stem, "seeds": 5, **task}
    return tasks


def command(arguments: str) -> int:
    """Run a command of automl-ext; return its peak memory in megabytes."""
    process = subprocess.Popen([sys.executable, "-m", "automl_ext", *arguments.split()])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_maxrss // 1000  # kilobytes on Linux


def run_task(name: str, task: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Train all variants of a task with all seeds; return a row per run."""
    folder = out / name
    done = folder / "prepared"
    if task.get("prepare") and not done.exists():
        for line in task["prepare"]:
            command(line.format(out=folder))
        done.touch()
    rows = []
    for variant, arguments in task["variants"].items():
        for seed in range(task["seeds"]):
            run = folder / re.sub(r"[^A-Za-z0-9]+", "-", variant) / f"seed-{seed}"
            given = arguments.format(out=folder)
            memory = {}
            if not (run / "result.json").exists():
                megabytes = command(f"train {given} --seed {seed} --out {run} --resume auto")
                memory = {"peak_memory_mb": megabytes}
            result = json.loads((run / "result.json").read_text())
            rows.append(
                {
                    "part": task["part"],
                    "task": name,
                    "title": task["title"],
                    **({"x": task["x"]} if "x" in task else {}),
                    "variant": variant,
                    "seed": seed,
                    "command": f"automl-ext train {arguments} --seed {seed}",
                    "last": round(result["eval_return_mean"], 3),
                    "best": round(result["best_eval_return"], 3),
                    **{
                        key: round(result[key], 3) for key in result if key.startswith("eval_return/")
                    },  # agents or tasks
                    "env_steps": result["env_steps"],
                    "seconds": round(result["seconds"], 1),
                    "cpu_seconds": round(result["cpu_seconds"], 1),
                    **memory,
                    "machine": platform.machine(),
                    "evaluations": evaluations(run),
                }
            )
    return rows


def evaluations(run: Path) -> list[tuple[int, float]]:
    """Return the learning curve: pairs of environment steps and mean evaluation return."""
    rows = read_metrics(run)
    return [(row["step"], round(row["eval_return"], 3)) for row in rows if row.get("eval_return") is not None]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the mean return of each variant over the steps, with the 95 % interval of the mean over the seeds.

    The intervals are clipped to the returns that were observed. Two seeds are drawn each, since their interval is too
    wide to show anything.
    """
    picture = figure(7, 4.4)
    axes = picture.add_subplot()
    for variant, color in zip(dict.fromkeys(row["variant"] for row in rows), PALETTE, strict=False):
        curves = [np.array(row["evaluations"], float) for row in rows if row["variant"] == variant]
        steps = curves[0][:, 0]
        returns = np.array([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in curves])
        mean, label = returns.mean(0), f"{variant}, {len(curves)} seed{'s' * (len(curves) > 1)}"
        axes.plot(steps, mean, color=color, label=label, linewidth=2)
        if len(curves) == 2:
            axes.plot(steps, returns.T, color=color, linewidth=0.8)
        elif len(curves) > 2:
            error = t_quantile(len(curves)) * returns.std(0, ddof=1) / np.sqrt(len(curves))
            low, high = returns.min(), returns.max()
            axes.fill_between(
                steps, np.clip(mean - error, low, high), np.clip(mean + error, low, high), color=color, alpha=0.2, lw=0
            )
    set_axes(axes, rows[0].get("x", "environment steps"), rows[0].get("y", "return of evaluation episodes"))
    axes.spines[["top", "right"]].set_visible(False)
    shown = "mean, 95 % interval" if len({row["seed"] for row in rows}) > 2 else "mean and each seed"
    picture.suptitle(f"{rows[0]['title']}: {shown}", fontsize=11)
    picture.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    picture.savefig(path, dpi=130)


def draw_tasks(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the return of the last policies on each task, a panel each: of the agents for it alone, and for all tasks.

    The bars are means over the seeds, with their 95 % interval.
    """
    together = [row for row in rows if "," in environments(row)]
    names = environments(together[0]).split(",")
    picture = figure(2.1 * len(names), 3.4)
    for axes, name in zip(picture.subplots(1, len(names)), names, strict=True):
        bars = {"alone": [row["last"] for row in rows if environments(row) == name]}
        for row in together:
            bars.setdefault(row["variant"], []).append(row[f"eval_return/{name}"])
        for i, (label, color) in enumerate(zip(bars, PALETTE, strict=False)):
            values = np.array(bars[label])
            error = t_quantile(len(values)) * values.std(ddof=1) / np.sqrt(len(values))
            axes.bar(i, values.mean(), yerr=error, color=color, label=label, capsize=3, alpha=0.9)
            axes.plot(np.full(len(values), i), values, ".", color="black", markersize=4)
        axes.set_title(name.split("/")[-1].split("-")[0], fontsize=10)
        axes.set_ylim(bottom=0)  # rewards are never negative
        axes.set_xticks([])
        axes.spines[["top", "right"]].set_visible(False)
    picture.axes[0].set_ylabel("return of the last policy")
    picture.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(bars), frameon=False)
    picture.suptitle(f"{rows[0]['title']}: mean, 95 % interval and {len(values)} seeds")
    picture.savefig(path, dpi=110)


def draw_rows(task: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the rows of a task, if there are any."""
    if rows:
        rows = [row | {name: task[name] for name in ("title", "x", "y") if name in task} for row in rows]
        folder.mkdir(parents=True, exist_ok=True)
        draw_one = draw_tasks if task.get("picture") == "tasks" else draw
        draw_one(rows, folder / f"practice_{rows[0]['task']}.png")


def environments(row: dict[str, Any]) -> str:
    """Return the value of ``--env-id`` in a row's command: one environment, or several with commas between them."""
    words = row["command"].split()
    return str(words[words.index("--env-id") + 1])


def describe(rows: list[dict[str, Any]]) -> list[str]:
    """Return one line per variant: mean last and best return over the seeds."""
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        last, best = ([row[key] for row in mine] for key in ("last", "best"))
        lines.append(
            f"{rows[0]['task']}: {variant}: last {np.mean(last):.2f} {last}, best {np.mean(best):.2f}, "
            f"{np.mean([row['cpu_seconds'] for row in mine]):.0f} CPU-s"
        )
    return lines


def main() -> None:
    tasks = read_tasks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", choices=tasks)
    parser.add_argument("--part", nargs="+", choices=sorted({task["part"] for task in tasks.values()}))
    parser.add_argument("--seeds", type=int, help="number of seeds, in place of the one that a task names")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder of the pictures practice_TASK.png")
    args = parser.parse_args()
    if args.out is None and not (args.json and args.pictures):
        parser.error("expected --out, or --json and --pictures")
    for name, task in tasks.items():
        if (args.only and name not in args.only) or (args.part and task["part"] not in args.part):
            continue
        if args.out is None:
            draw_rows(task, [row for row in json.loads(args.json.read_text()) if row["task"] == name], args.pictures)
            continue
        rows = run_task(name, task | ({"seeds": args.seeds} if args.seeds else {}), args.out)
        print("\n".join(describe(rows)), flush=True)
        if args.json:
            others = json.loads(args.json.read_text()) if args.json.exists() else []
            kept = sorted([r for r in others if r["task"] != name] + rows, key=lambda r: (r["part"], r["task"]))
            args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n")
        if args.pictures:
            draw_rows(task, rows, args.pictures)


if __name__ == "__main__":
    main()
