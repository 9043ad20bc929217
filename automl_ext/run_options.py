"""The options of commands that make a run directory, beside the configurations: ``flags`` in the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from automl_ext.parallel.cluster import Cluster
from automl_ext.parallel.seeds import parse_seeds
from automl_ext.summary import only_json, print_json, report_ablation
from automl_ext.training import ranks
from automl_ext.training.checks import MOST_WORKERS, check_range
from automl_ext.training.errors import UserError


@dataclass
class RunOptions:
    """Options: where to write, when to stop and what to print."""

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

    def instead(self, prog: str, config: Any) -> bool:
        """If an option replaces the run by something else, do that. Return whether there is such an option."""
        return False


@dataclass
class TrainOptions(RunOptions):
    """Options: where to write, when to stop and what to print, and named values for the settings."""

    presets: ClassVar[str] = "automl_ext.rl.presets"
    preset: str | None = None
    """Named values for the options below, for example "minatar"; --config and flags override them."""


@dataclass
class DQNOptions(TrainOptions):
    """Options of every agent, and whether to run an ablation instead of one training."""

    ablate: bool = False
    """Train Rainbow, Rainbow without each of its parts, and DQN with the settings below; plot the comparison."""

    def instead(self, prog: str, config: Any) -> bool:
        if self.ablate:
            from automl_ext.rl.reports.ablation import ablate

            if self.seed_workers > 1 or self.cluster is not None or self.stop_after is not None:
                raise UserError(
                    "--ablate: trains one network after the other; leave out --seed-workers, --cluster, --stop-after"
                )
            seeds = parse_seeds(self.seeds) if self.seeds is not None else None
            with only_json(self.json), Cluster(None, self.cpus_per_trial, self.gpus_per_trial):
                result = ablate(config, self.out, seeds, resume=self.resume)
            if self.json:
                print_json(result)
            else:
                report_ablation(prog, self.out, config, result)
        return self.ablate


@dataclass
class AutoOptions(RunOptions):
    """Options: where to write, when to stop and what to print, and whether to print the plan only."""

    dry_run: bool = False
    """Print the plan of the search for this machine, and do nothing else."""

    def instead(self, prog: str, config: Any) -> bool:
        if self.dry_run:
            from automl_ext.nas.auto.auto import plan_text

            if self.json:
                raise UserError("--dry-run: prints the plan as text and writes no result.json; leave out --json")
            print(plan_text(config))
        return self.dry_run


@dataclass
class SupernetOptions(RunOptions):
    """Options: where to write, when to stop and what to print, and named values for the settings."""

    presets: ClassVar[str] = "automl_ext.nas.supernets.presets"
    preset: str | None = None
    """"paper": the publication's values of the options below; --config and flags override them."""


@dataclass
class LearnerOptions(RunOptions):
    """Options: where to write, when to stop and what to print, and which learner is tuned."""

    learner: Literal["lightgbm", "xgboost", "forest"] = "lightgbm"
    """Learner that is tuned. Its settings are among the options below."""
