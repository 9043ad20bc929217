"""Runs a command on the cluster that its options name: once, or with ``--seeds`` once per seed, with one table."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from automl_ext.parallel.cluster import Cluster
from automl_ext.parallel.seeds import FILE, parse_seeds, run_of, run_seeds
from automl_ext.runners import DQNOptions, Run, RunOptions
from automl_ext.summary import NAMES, formatted_alike
from automl_ext.training.errors import UserError
from automl_ext_cli.table import ALIASES, named

# Results that the table shows, if a command has them.
SHOWN = {
    "eval_return_mean": "return, last policy",
    "best_eval_return": "return, best policy",
    "test_accuracy": "test accuracy",
    "score": NAMES["score"],
    "random_mean": NAMES["random_mean"],
}


def run_command(prog: str, function: Run, config: Any, options: RunOptions) -> dict[str, Any] | None:
    """Run a command, once or for each seed (:func:`automl_ext.parallel.seeds.run_seeds`).

    With seeds, trainings of agents are drawn together in ``OUT/learning.png``, if matplotlib is installed.

    Returns:
        The content of ``result.json`` or ``seeds.json``; None if it was interrupted.

    Raises:
        UserError: an option is invalid, or the run failed.
    """
    seeds = parse_seeds(options.seeds) if options.seeds is not None else None
    cluster = Cluster(options.cluster, options.cpus_per_trial, options.gpus_per_trial)
    ablates = isinstance(options, DQNOptions) and options.ablate
    if ablates and (options.seed_workers > 1 or options.cluster is not None or options.stop_after is not None):
        raise UserError(
            "--ablate: trains one network after the other; leave out --seed-workers, --cluster, --stop-after"
        )
    one_run = seeds is None and (prog.split()[1] == "train" or not hasattr(config, "workers"))
    if options.cluster is not None and one_run:
        raise UserError(f"--cluster: {prog} is one run, which cannot be divided; add --seeds to run several")
    with cluster:
        if ablates:
            from automl_ext.rl.reports.ablation import ablate

            return ablate(config, options.out, seeds, resume=options.resume)
        if seeds is None:
            return function(config, options.out, resume=options.resume, stop_after=options.stop_after)
        name = prog.split()[-1]
        algorithm = ALIASES.get(name, name)
        result = run_seeds(
            function, algorithm, config, options.out, seeds, options.seed_workers, options.resume, options.stop_after
        )
    if result is not None and name in named("agent") and importlib.util.find_spec("matplotlib"):
        from automl_ext.rl.reports.plot import draw_seeds

        draw_seeds([run_of(options.out, seed) for seed in seeds], options.out)
    return result


def print_seeds(prog: str, out: Path, result: dict[str, Any]) -> None:
    """Print a table: the results per seed, their mean, and its 95 % interval."""
    summary = result["summary"]
    names = [name for name in SHOWN if name in summary] or list(summary)[:5]
    table = Table("seed", *(SHOWN.get(name, name) for name in names), title=f"{prog}: {len(result['seeds'])} seeds")
    seeds = result["seeds"]
    columns = [
        formatted_alike(name, [*summary[name]["values"], summary[name]["mean"], *(summary[name].get("ci95") or [])])
        for name in names
    ]
    for i, seed in enumerate(seeds):
        table.add_row(str(seed), *(column[i] for column in columns))
    table.add_section()
    table.add_row("mean", *(column[len(seeds)] for column in columns))
    if len(seeds) > 1:
        table.add_row("95 % interval", *(f"{column[-2]} to {column[-1]}" for column in columns))
    console = Console()
    console.print(table)
    console.print(f"written to {out}/{FILE}; the runs are {out}/seed-*", soft_wrap=True)
