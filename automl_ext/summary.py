"""The summary that the command line prints after a run or an evaluation."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from automl_ext.nas.auto.auto_report import table_of
from automl_ext.training.config import to_dict
from automl_ext.training.files.atomic import strict
from automl_ext.training.files.reading import read_object
from automl_ext.training.numbers import alike, number
from automl_ext.training.user_code import module_in, own_names
from automl_ext.tune.commands.flags import as_flags
from automl_ext.tune.commands.report import summary_rows
from automl_ext.tune.commands.report import table_of as table_of_trials

Row = tuple[str, str]  # name, value with its unit
# Options that say what a run is about, in this order.
SUBJECT = {"env_id": "environment", "data": "data", "space": "search space", "seed": "seed"}
PERCENT = ("accuracy", "score", "random_mean", "random_median", "random_std")  # ends of the names of fractions
# Names of results that are shown in other words.
NAMES = {
    "genotype": "architecture",
    "score": "score, validation accuracy",
    "random_mean": "random cells, mean test accuracy",
    "random_median": "random cells, median",
    "random_std": "random cells, standard deviation",
    "eval_return_mean": "return, last policy",
    "best_eval_return": "return, best policy",
}


@contextlib.contextmanager
def only_json(json: bool) -> Iterator[None]:
    """With ``json``, print to standard error in this context, so that standard output holds only the result.

    This includes the output of child processes and of libraries in C, which write to the file descriptor 1 directly.
    """
    if not json:
        yield
        return
    _flush()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # one of the two is closed
            kept = os.dup(1)
            stack.callback(os.close, kept)
            os.dup2(2, 1)
            stack.callback(os.dup2, kept, 1)
            stack.callback(_flush)  # before the descriptor is restored
        with contextlib.redirect_stdout(sys.stderr):
            yield


def _flush() -> None:
    """Flush the buffers of Python and of the C library for standard output."""
    if sys.__stdout__ is not None:  # None: it is closed
        sys.__stdout__.flush()
    with contextlib.suppress(OSError, AttributeError):  # no C library of this kind
        ctypes.CDLL(None).fflush(None)


def print_json(result: Any) -> None:
    """Print a result as strict JSON."""
    Console().print_json(data=strict(result))


def print_stopped(prog: str, out: Path, file: TextIO) -> None:
    """Print how a run that ``--stop-after`` stopped is continued."""
    print(f"stopped; continue with: {prog} --out {shlex.quote(str(out))} --resume auto and the same options", file=file)


def report_networks(
    prog: str, out: Path, config: Any, result: dict[str, Any], following: Sequence[str], more: Sequence[Row] = ()
) -> None:
    """Print the results of networks, where they are, and the commands that may come next.

    Args:
        more: further rows, for results that only some commands have.
    """
    rows = [*subject_rows(config), *network_rows(result), *more, ("written to", f"{out}/result.json")]
    _print(f"{prog}: finished", rows, following)


def report_search(prog: str, out: Path, config: Any, result: dict[str, Any], following: Sequence[str]) -> None:
    """Print the result of a search with a strategy."""
    more = []
    if result.get("finalists"):  # of the evaluator "train"
        again, before = (
            ", ".join(formatted("score", one[key]) for one in result["finalists"]) for key in ("score", "search_score")
        )
        more = [("finalists, trained again", f"{again} (in the search {before})")]
    report_networks(prog, out, config, result, following, more)


def report_auto(prog: str, out: Path, config: Any, result: dict[str, Any], following: Sequence[str]) -> None:
    """Print the result of ``automl-ext search auto``."""
    Console().print(table_of(result, f"{prog} on {config.data}"))
    costs = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in result["stages"].items())
    facts = {name: value for name, value in result.items() if name != "stages"}
    report_networks(prog, out, config, facts, following, [("cost by stage", costs)])


def report_scores(prog: str, out: Path, config: Any, result: dict[str, Any], following: Sequence[str]) -> None:
    """Print the result of ``automl-ext score``."""
    from automl_ext.nas.screening.score_report import print_scores

    print_scores(result)
    Console().print(f"written to {out}/scores.csv and result.json", soft_wrap=True)


def report_nas_bench(prog: str, out: Path, config: Any, result: dict[str, Any], following: Sequence[str]) -> None:
    """Print the result of ``automl-ext nas-bench``."""
    rows = subject_rows(config)
    for name, runs in result.items():
        spread = "" if runs["std"] is None else f" ± {runs['std']:.2f}"
        rows.append((name, f"test accuracy {runs['mean']:.2f}{spread} % in {runs['runs']:,} runs"))
    _print(f"{prog}: finished", [*rows, ("written to", f"{out}/result.json")], following)


def report_training(prog: str, out: Path, config: Any, result: dict[str, Any], following: Sequence[str]) -> None:
    """Print the result of ``automl-ext train``."""
    rows = [*subject_rows(config), *training_rows(result, config.final_episodes), ("written to", f"{out}/result.json")]
    _print(f"{prog}: finished", rows, following)


def report_ablation(prog: str, out: Path, config: Any, result: dict[str, Any]) -> None:
    """Print the result of ``automl-ext train dqn --ablate``: the mean over seeds of each variant's final return."""
    rows = subject_rows(config)
    for name, runs in result.items():
        mean = sum(run["eval_return_mean"] for run in runs) / len(runs)
        rows.append((name, f"return of the last policy {mean:,.2f}"))
    _print(f"{prog}: finished", [*rows, ("written to", f"{out}/ablation.json and ablation.png")], [])


def print_tuning(out: Path, result: dict[str, Any]) -> None:
    """Print the result of ``automl-ext tune``."""
    Console().print(table_of_trials(result, read_object(out / "config.json")["space"]))
    rows = [*summary_rows(result), ("written to", f"{out}/result.json, best.toml")]
    _print(f"automl-ext tune {result['command']}: finished", rows, [result["command_line"]])


def print_evaluation(run: Path, result: dict[str, Any], videos: Sequence[Path]) -> None:
    """Print the result of ``automl-ext eval``."""
    rows = evaluation_rows(result) + [("written to", str(path)) for path in videos]
    _print(f"automl-ext eval {run}", rows, [])


def print_recording(run: Path, out: Path, result: dict[str, Any]) -> None:
    """Print the result of ``automl-ext record`` of a run."""
    from automl_ext.rl.algorithms.bc import BCConfig
    from automl_ext.rl.envs.making import EnvOptions

    stored = read_object(run / "config.json")
    options: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in stored["env"].items()}
    flags = as_flags(BCConfig(env_id=stored["env_id"], env=EnvOptions(**options), episodes=(str(out),)))
    rows = [
        ("episodes", f"{result['episodes']:,}, {result['steps']:,} steps"),
        ("return", f"{result['return_mean']:,.2f} ± {result['return_std']:,.2f} (mean ± std)"),
        ("written to", str(out)),
    ]
    _print("automl-ext record: finished", rows, [f"automl-ext train bc {flags}"])


def next_commands(names: Sequence[str], out: Path, config: Any, result: dict[str, Any]) -> list[str]:
    """Return suggestions for the next command line after a run, one for each of these commands."""
    run = shlex.quote(str(out))
    modules = dict.fromkeys(module_in(name) for name in own_names(to_dict(config)))
    trust = "".join(f" --trust {shlex.quote(module)}" for module in modules)
    arguments = {
        "plot": lambda: f"{run}{trust}",
        "eval": lambda: f"{run} --episodes 100{trust}",
        "export": lambda: f"{run} --out {run}/network{trust}",
        "retrain": lambda: f"{retrain_flags(config, result)} --out {run}-retrained",
    }
    return [f"automl-ext {name} {arguments[name]()}" for name in names]


def retrain_flags(config: Any, result: dict[str, Any]) -> str:
    """Return the options of ``automl-ext retrain`` that train the architecture that a search found."""
    from automl_ext.nas.strategies.search_options import SearchConfig
    from automl_ext.nas.training.retrain import RetrainConfig
    from automl_ext.nas.training.training_options import SAME_IMAGES

    # Without limits, the default network, larger than that of most searches. Limits hold for one size only.
    size = ("channels", "cells") if isinstance(config, SearchConfig) and config.cost_limits() else ()
    same = {name: getattr(config, name) for name in (*SAME_IMAGES, *size) if hasattr(config, name)}
    same |= result.get("recipe", {})  # of search auto
    return as_flags(RetrainConfig(genotype=result["genotype"], **same))


def subject_rows(config: Any) -> list[Row]:
    """Return the rows that name the subject of a run, such as its environment or data set."""
    rows = [(label, str(getattr(config, name))) for name, label in SUBJECT.items() if hasattr(config, name)]
    if getattr(config, "evaluator", None) == "table":  # it reads no images
        rows = [("table", config.table or "cifar10") if label == "data" else (label, text) for label, text in rows]
    return rows


def training_rows(result: dict[str, Any], episodes: int) -> list[Row]:
    """Return the results of ``automl-ext train``."""
    mean, std = result["eval_return_mean"], result["eval_return_std"]
    rows = [
        ("return, last policy", f"{mean:,.2f} ± {std:,.2f} (mean ± std of {episodes} new episodes)"),
        ("return, best policy", f"{result['best_eval_return']:,.2f} (the policy of step {result['best_step']:,})"),
    ]
    rows += group_rows(result)
    cut = max(result["episodes_cut"], result["best_episodes_cut"])
    if cut:
        rows.append(("episodes cut", f"{cut} of {episodes}: the returns are those up to --eval-max-steps"))
    speed = f"{result['steps_per_second']:,.0f} steps/s"
    seconds = f"{duration(result['seconds'])}, {speed}; CPU time {duration(result['cpu_seconds'])}"
    rows.append(("steps", f"{result['env_steps']:,} in {seconds}"))
    if "updates" in result:
        rows.append(("updates", f"{result['updates']:,}, {result['updates_per_second']:,.1f} updates/s"))
    return rows


def group_rows(result: dict[str, Any]) -> list[Row]:
    """Return the mean returns of single agents or tasks, if there are several."""
    prefix = "eval_return/"
    means = {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}
    return [(f"return, {name}", f"{mean:,.2f}") for name, mean in means.items()]


def evaluation_rows(result: dict[str, Any]) -> list[Row]:
    """Return the results of ``automl-ext eval``."""
    rows = [
        ("policy", f"{result['policy']}, of step {result['policy_step']:,}"),
        ("episodes", f"{result['episodes']:,}, {result['episodes_cut']:,} of them cut at the limit of steps"),
        ("return", f"{result['eval_return_mean']:,.2f} ± {result['eval_return_std']:,.2f} (mean ± std)"),
        ("return, range", f"{result['eval_return_min']:,.2f} to {result['eval_return_max']:,.2f}"),
        *group_rows(result),
    ]
    if "video_return" in result:
        cut = ", cut" * bool(result["video_cut"])
        rows.append(("recorded episode", f"return {result['video_return']:,.2f}, {result['video_steps']:,} steps{cut}"))
    return rows


def network_rows(result: dict[str, Any], prefix: str = "") -> Iterator[Row]:
    """Yield the results of an architecture search or of a training of networks; only ``result.json`` has lists."""
    for name, value in result.items():
        if isinstance(value, dict):
            if name != "network":
                yield from network_rows(value, prefix if name == "times" else f"{name.replace('_', ' ')}: ")
        elif not isinstance(value, list):
            yield prefix + words(name), formatted(name, value)


def formatted(name: str, value: Any) -> str:
    """Format a value of ``result.json`` with the unit that its name implies."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, (str, bool)):
        return str(value)
    if name in ("score", "test_accuracy") and value > 1:  # the table of NAS-Bench-201 has percent
        return f"{value:.2f} %"
    if name.endswith(PERCENT):
        return f"{100 * value:.2f} %"
    if name.endswith("log_loss"):
        return f"{value:.4f} nats"
    if name.endswith("seconds"):
        return duration(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def formatted_alike(name: str, values: Sequence[float]) -> list[str]:
    """Format a column of numbers of the same name, as :func:`formatted` does, but with equally many decimals."""
    has_unit = name.endswith((*PERCENT, "log_loss", "seconds"))
    return [formatted(name, value) for value in values] if has_unit else alike(values)


def duration(seconds: float) -> str:
    """Format a duration with its unit."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def words(name: str) -> str:
    """Return the name of a result in words."""
    if name in NAMES:
        return NAMES[name]
    text = name.removesuffix("_seconds").replace(".", ": ").replace("_", " ").replace("cpu", "CPU")
    return text + " time" * name.endswith("_seconds")


def _print(title: str, rows: Sequence[Row], commands: Sequence[str]) -> None:
    console = Console()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(Text(title, style="bold"))
    console.print(table)
    if commands:
        console.print(Text("next:", style="bold"))
        for command in commands:
            console.print(Text(f"  {command}"), soft_wrap=True)
