"""The demonstration that ``make`` runs: ops, search strategies, an agent and a search with GDAS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from automl_ext.bench.cases import peers
from automl_ext.bench.cases.case import FORWARD, TRAINING
from automl_ext.bench.cases.table import Shapes, cases
from automl_ext.bench.measure import measure
from automl_ext.bench.reports.cells import duration, times
from automl_ext.bench.timing import warm_allocator
from automl_ext.nas.benchmarks.nas_bench_report import print_table
from automl_ext.nas.benchmarks.nats_bench import NASBenchConfig, nas_bench
from automl_ext.nas.estimators.benchmark_table import Table as NASTable
from automl_ext.nas.plot import plot_genotype
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.rl.registry import algorithm
from automl_ext.rl.reports.plot import plot_runs
from automl_ext.training.files.atomic import write_json, write_picture
from automl_ext.training.files.reading import read_json, read_object
from automl_ext.training.machine.environment import cpu_name
from automl_ext.training.pictures.colors import BLUE, GRAY, GREEN, PURPLE
from automl_ext.training.pictures.curves import add_title, figure, set_axes
from automl_ext.training.run import RESULT

ROW_OPS = ["entmax15", "sparsemax", "gumbel_softmax", "gumbel_entmax15", "gumbel_argmax"]
OPS = [*ROW_OPS, "mixed_op", "cell_aggregate", "gae"]
SHAPES: Shapes = defaultdict(list, rows=[(4096, 32)], mixed=[(8, 64, 16, 32, 32)], returns=[(128, 8)])
OTHERS = {  # name in the measurement: name, color, marker
    "eager": ("eager PyTorch", GRAY, "o"),
    "entmax": ("entmax package", GREEN, "D"),
    "softmax": ("torch.softmax", PURPLE, "s"),
}
SECONDS = 1.0  # per op and pass
STRATEGIES = NASBenchConfig(runs=50)
AGENT = algorithm("ppo").config(env_id="CartPole-v1", total_steps=20_000, eval_every=2_000)
CELL = GDASConfig(epochs=40, none=False, retrain_epochs=20)
PASSES = {FORWARD: "forward", TRAINING: "forward and gradient"}

console = Console()


def demo(out: Path) -> None:
    """Run the four parts, each in a folder of its own below ``out``. A finished part is not repeated.

    Raises:
        UserError: a folder is in use by another process, or has a damaged file.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    torch.set_num_threads(1)  # a second thread slows such small networks down; resuming needs the same number
    for part in (ops, strategies, agent, cell):
        part(out / part.__name__)


def ops(out: Path) -> None:
    _heading("1. Ops", f"Time of one call on one core of this machine ({cpu_name()}).")
    found, skipped = peers.load()
    if not (out / RESULT).exists():
        out.mkdir(parents=True, exist_ok=True)
        warm_allocator()
        chosen = [case for case in cases("cpu", SHAPES, [torch.float32], found) if case.op in OPS]
        measured: list[dict[str, Any]] = []
        for case in track(chosen, "measuring", transient=True, disable=not console.is_terminal):
            measured += measure(case, torch.device("cpu"), SECONDS, compiled=False)
        write_json(out / RESULT, measured)
    rows = read_json(out / RESULT)
    lines = []
    for row in rows:
        name, ours = row["op"] if row["pass"] == FORWARD else "  and gradient", row["seconds"]["ours"]["median"]
        lines.append([name, duration(ours), *(times(_ratio(row, other)) for other in OTHERS)])
    _table(["op", "automl_ext", *(label for label, *_ in OTHERS.values())], lines)
    console.print(
        "2×: twice as long as automl_ext. torch.softmax: for comparison, a simpler function of the same rows."
    )
    if "entmax" in skipped:
        console.print(f"entmax package: {skipped['entmax']}", soft_wrap=True, markup=False)
    _draw_ops(rows, out / "ops.png")
    _end([out / "ops.png"], "automl-ext bench", "all ops and sizes, torch.compile and more packages")


def _ratio(row: dict[str, Any], other: str) -> float | None:
    """Return the time of another implementation, relative to ours; None if it was not measured."""
    times_ = row["seconds"]
    return times_[other]["median"] / times_["ours"]["median"] if other in times_ else None


def _draw_ops(rows: list[dict[str, Any]], path: Path) -> None:
    picture = figure(8, 3.6)
    panels = picture.subplots(1, 2, sharey=True)
    for axes, (pass_, title) in zip(panels, PASSES.items(), strict=True):
        for name, (label, color, marker) in OTHERS.items():
            shown = [row for row in rows if row["pass"] == pass_ and name in row["seconds"]]
            ratios, places = [_ratio(row, name) for row in shown], [OPS.index(row["op"]) for row in shown]
            axes.plot(ratios, places, marker, color=color, label=label, markersize=6)
        axes.axvline(1, color=BLUE, linewidth=1.5, label="as fast as automl_ext")
        axes.set_xscale("log")
        axes.set_yticks(range(len(OPS)), OPS)
        axes.set_ylim(len(OPS) - 0.5, -0.5)
        set_axes(axes, "time ÷ time of automl_ext (right of the line: slower)", "")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        axes.set_title(title, fontsize=9)
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    add_title(picture, f"Time of the ops on {cpu_name()}, one thread, float32")
    write_picture(picture, path, dpi=130)


def strategies(out: Path) -> None:
    _heading(
        "2. Search strategies",
        "NAS-Bench-201 is a table with the accuracy of all 15,625 cells of a search space, so searches can be compared "
        f"without training. {STRATEGIES.runs} runs of each strategy:",
    )
    if (out / RESULT).exists():
        print_table(read_object(out / RESULT), float(NASTable.load().test_200.max()))
    else:
        nas_bench(STRATEGIES, out, resume="auto")
    _end([out / "nas_bench.png"], "automl-ext nas-bench --runs 500", "enough runs to separate the best strategies")


def agent(out: Path) -> None:
    _heading(
        "3. An agent",
        f"PPO learns to balance a pole in {AGENT.total_steps:,} steps (CartPole-v1; the highest return is 500).",
    )
    result = _result(out, lambda: algorithm("ppo").train(AGENT, out, resume="auto"))
    score = f"{result['eval_return_mean']:.1f} ± {result['eval_return_std']:.1f}"
    best = f"{result['best_eval_return']:.1f}"
    _table(
        ["return in new episodes, last policy", "best policy", "steps", "CPU time"],
        [[score, best, f"{result['env_steps']:,}", _seconds(result, "")]],
    )
    pictures = [path for path in plot_runs([out], out) if path.name == "learning.png"]
    _end(pictures, "automl-ext train ppo --env-id LunarLander-v3 --preset lunarlander", "a harder environment")


def cell(out: Path) -> None:
    _heading(
        "4. A cell",
        "GDAS searches for a cell on 8×8 images of handwritten digits; then its network is trained from scratch.",
    )
    result = _result(out, lambda: search_supernet(CELL, out, resume="auto"))
    seconds = [_seconds(result["times"], stage) for stage in ("search_", "retrain_")]
    accuracy, parameters = f"{100 * result['test_accuracy']:.1f} %", f"{result['parameters']:,}"
    _table(
        ["test accuracy", "parameters", "CPU time, search", "CPU time, training"], [[accuracy, parameters, *seconds]]
    )
    title = f"GDAS on digits: {accuracy} test accuracy, {parameters} parameters"
    pictures = plot_genotype(result["genotype"], out, title=title)
    _end(pictures[:1], "automl-ext search auto --data folder:PATH", "a search within a budget, on your own images")


def _result(out: Path, run: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """Return the result of a run, which is started or continued if it is not finished."""
    result = read_object(out / RESULT) if (out / RESULT).exists() else run()
    assert result is not None  # no stop_after
    return result


def _seconds(result: dict[str, Any], stage: str) -> str:
    return f"{result[f'{stage}cpu_seconds']:.1f} s"


def _heading(title: str, text: str) -> None:
    console.print(f"\n[bold]{title}[/bold]\n{text}", highlight=False)


def _table(header: list[str], rows: list[list[str]]) -> None:
    table = Table(*header, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _end(pictures: list[Path], command: str, text: str) -> None:
    console.print(f"picture: {', '.join(map(str, pictures))}", soft_wrap=True, highlight=False)
    console.print(f"for real: {command}   ({text})", soft_wrap=True, highlight=False)
