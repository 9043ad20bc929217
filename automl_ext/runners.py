"""The commands that make a run directory: how those of the table ``automl_ext_cli/table.py`` are parsed and run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import tyro

from automl_ext.parallel.seeds import parse_seeds
from automl_ext.training import ranks
from automl_ext.training.checks import MOST_WORKERS, check_range
from automl_ext.tune.commands.objective import TunedBy
from automl_ext_cli.table import COMMANDS, load

Run = Callable[..., dict[str, Any] | None]  # (configuration, out, resume, stop_after) -> result, None when interrupted


@dataclass
class RunOptions:
    """Where to write, when to stop and what to print."""

    out: Path
    """Run directory; must be absent or empty, unless --resume is given."""
    resume: str | None = None
    """"auto": continue from the newest intact checkpoint, or start a new run. A path: continue from that checkpoint."""
    stop_after: int | None = None
    """Save a checkpoint and stop after this number of environment steps (train), evaluations (search strategies),
    trials (tune), runs of strategies (nas-bench), parts of about five seconds (search auto) or epochs (all others)."""
    config: Path | None = None
    """TOML file with values for the options below; flags override it."""
    trust: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Python module that the --config file may name, for example in env_id; it is imported. May be repeated."""
    json: bool = False
    """Print the content of result.json, and nothing else, on standard output."""
    seeds: str | None = None
    """Run once per seed, into OUT/seed-N, and average: FIRST:END (without END), or seeds separated by commas."""
    seed_workers: int = 1
    """Number of --seeds that run at the same time."""
    cluster: str | None = None
    """Run seeds and evaluations on Ray: "ray" (the running cluster, else this machine) or ray://HOST:PORT."""
    cpus_per_trial: int | None = None
    """Number of threads of a seed or evaluation, and of CPUs that Ray reserves for it. Default: the threads of this
    process, divided among the workers, and one CPU."""
    gpus_per_trial: float | None = None
    """Number of GPUs that Ray reserves for a seed or evaluation, or a fraction below 1."""

    def __post_init__(self) -> None:
        check_range(self, "stop_after", low=1)
        check_range(self, "seed_workers", low=1, high=MOST_WORKERS)
        if self.seeds is not None:
            parse_seeds(self.seeds)
        elif self.seed_workers > 1:
            raise ValueError(f"--seed-workers needs --seeds, got --seed-workers {self.seed_workers} without it")
        if ranks.requested() > 1 and (self.seeds is not None or self.cluster is not None):
            raise ValueError("seeds, cluster: torchrun trains one network; leave them out, or start one process")


@dataclass
class TrainOptions(RunOptions):
    """Where to write, when to stop and what to print, and named values for the settings."""

    presets: ClassVar[str] = "automl_ext.rl.presets"
    preset: str | None = None
    """Named values for the options below, for example "minatar"; --config and flags override them."""


@dataclass
class DQNOptions(TrainOptions):
    """Where to write, when to stop and what to print, named values for the settings, and whether to run an ablation."""

    ablate: bool = False
    """Train Rainbow, Rainbow without each of its parts, and DQN with the settings below; plot the comparison."""


@dataclass
class AutoOptions(RunOptions):
    """Where to write, when to stop and what to print, and whether to print the plan only."""

    dry_run: bool = False
    """Print the plan of the search for this machine, and do nothing else."""


@dataclass
class SupernetOptions(RunOptions):
    """Where to write, when to stop and what to print, and named values for the settings."""

    presets: ClassVar[str] = "automl_ext.nas.supernets.presets"
    preset: str | None = None
    """"paper": the publication's values of the options below; --config and flags override them."""


@dataclass
class LearnerOptions(RunOptions):
    """Where to write, when to stop and what to print, and which learner is tuned."""

    learner: Literal["lightgbm", "xgboost", "forest"] = "lightgbm"
    """Learner that is tuned. Its settings are among the options below."""


class Runner(NamedTuple):
    """A command that makes a run directory.

    Attributes:
        load: imports and returns the configuration's class and the function that runs it.
        options: the options in addition to the configuration.
        metric: what ``automl-ext tune`` tunes the command by; None: it cannot be tuned.
    """

    load: Callable[[], tuple[type, Run]]
    options: type[RunOptions] = RunOptions
    metric: TunedBy | None = None


# The metrics of commands that can be tuned; none is measured on test data.
_RETURN = TunedBy("eval_return_mean", "eval_return")  # of the last policy, in new episodes; on the way: evaluations
_SUPERNET = TunedBy("supernet_accuracy", "search_supernet_accuracy")  # of the derived architecture, validation images
_SCORE = TunedBy("score", "best_score")  # of the best architecture, validation images
_VALID = TunedBy("negative_loss", "negative_loss")  # of the cross-validation of a table's rows
_RETRAIN = TunedBy("retrain_valid_accuracy", "retrain_valid_accuracy", (("validate", True),))

# Per kind of command: the options in addition to the configuration, and the metric.
_KINDS: dict[str, tuple[type[RunOptions], TunedBy | None]] = {
    "supernet": (SupernetOptions, _SUPERNET),
    "strategy": (RunOptions, _SCORE),
    "agent": (TrainOptions, _RETURN),
    "run": (RunOptions, None),
}


def _load(name: str) -> tuple[type, Run]:
    """Import the configuration of a command and the function that runs it."""
    command, last = COMMANDS[name], name.split()[-1]
    if command.kind == "strategy":
        from automl_ext.nas.search.search import search

        return load(command.options), functools.partial(search, last)
    if command.kind == "agent":
        from automl_ext.rl.registry import algorithm

        found = algorithm(last)
        return found.config, found.train
    return load(command.options), load(command.run)


RUNNERS: dict[str, Runner] = {
    name: Runner(functools.partial(_load, name), *_KINDS[command.kind])
    for name, command in COMMANDS.items()
    if command.kind in _KINDS
}
RUNNERS |= {name: RUNNERS[command.run] for name, command in COMMANDS.items() if command.kind == "alias"}
# The commands that torchrun may start in several processes.
RANKED = (*(name for name, command in COMMANDS.items() if command.kind == "supernet"), "retrain")
RUNNERS["train dqn"] = RUNNERS["train dqn"]._replace(options=DQNOptions)
RUNNERS["search auto"] = RUNNERS["search auto"]._replace(options=AutoOptions)
RUNNERS["retrain"] = RUNNERS["retrain"]._replace(metric=_RETRAIN)


def _load_learner(name: str) -> tuple[type, Run]:
    """Import the configuration of a learner of tables and the function that cross-validates it."""
    from automl_ext.tabular.runs import RUNS, cross_validate

    return RUNS[name], functools.partial(cross_validate, name)


# What `tune fit --learner` tunes.
LEARNERS = {
    name: Runner(functools.partial(_load_learner, name), LearnerOptions, _VALID)
    for name in ("lightgbm", "xgboost", "forest")
}
TUNABLE = {name: runner for name, runner in RUNNERS.items() if runner.metric is not None}
TUNABLE["fit"] = LEARNERS[LearnerOptions.learner]
