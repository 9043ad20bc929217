"""Runs a command on the cluster that its options name: once, or with ``--seeds`` once per seed, with one table."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from automl_ext.parallel.cluster import Cluster
from automl_ext.parallel.seeds import FILE, parse_seeds, run_of, run_seeds
from automl_ext.run_options import RunOptions
from automl_ext.summary import formatted_alike, words
from automl_ext.training.errors import UserError
from automl_ext_cli import Command, load


def run_command(command: Command, prog: str, config: Any, options: RunOptions) -> dict[str, Any] | None:
    """Run a command, once or for each seed (:func:`automl_ext.parallel.seeds.run_seeds`).

    With seeds, trainings of agents are drawn together in ``OUT/learning.png``, if matplotlib is installed.

    Returns:
        The content of ``result.json`` or ``seeds.json``; None if it was interrupted.

    Raises:
        UserError: an option is invalid, or the run failed.
    """
    seeds = parse_seeds(options.seeds) if options.seeds is not None else None
    cluster = Cluster(options.cluster, options.cpus_per_trial, options.gpus_per_trial)
    if options.cluster is not None and seeds is None and not command.divides:
        raise UserError(f"--cluster: {prog} is one run, which cannot be divided; add --seeds to run several")
    _, function = command.load()
    out, resume, stop_after = options.out, options.resume, options.stop_after
    with cluster:
        if seeds is None:
            result: dict[str, Any] | None = function(config, out, resume=resume, stop_after=stop_after)
            return result
        result = run_seeds(function, command.name, config, out, seeds, options.seed_workers, resume, stop_after)
    if result is not None and command.draw_seeds and importlib.util.find_spec("matplotlib"):
        load(command.draw_seeds)([run_of(out, seed) for seed in seeds], out)
    return result


def print_seeds(prog: str, out: Path, result: dict[str, Any], columns: Sequence[str]) -> None:
    """Print a table: the results per seed, their mean, and its 95 % interval.

    Args:
        columns: the results to show, of those that all seeds have; without one, the first five.
    """
    summary = result["summary"]
    names = [name for name in columns if name in summary] or list(summary)[:5]
    table = Table("seed", *(words(name) for name in names), title=f"{prog}: {len(result['seeds'])} seeds")
    seeds = result["seeds"]
    cells = [
        formatted_alike(name, [*summary[name]["values"], summary[name]["mean"], *(summary[name].get("ci95") or [])])
        for name in names
    ]
    for i, seed in enumerate(seeds):
        table.add_row(str(seed), *(column[i] for column in cells))
    table.add_section()
    table.add_row("mean", *(column[len(seeds)] for column in cells))
    if len(seeds) > 1:
        table.add_row("95 % interval", *(f"{column[-2]} to {column[-1]}" for column in cells))
    console = Console()
    console.print(table)
    console.print(f"written to {out}/{FILE}; the runs are {out}/seed-*", soft_wrap=True)
