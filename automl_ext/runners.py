"""The commands that make a run directory: per command its help text, configuration and function.

Modules are named by strings and imported when a command is used: each takes time to import.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from automl_ext.nas.strategies.registry import ALIASES, STRATEGIES
from automl_ext.parallel.seeds import parse_seeds
from automl_ext.parallel.workers import MOST_WORKERS
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.training import ranks
from automl_ext.training.checks import check_range
from automl_ext.tune.commands.objective import TunedBy

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
    runs of strategies (nas-bench) or epochs (all other commands)."""
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
            raise ValueError(f"seed_workers: expected --seeds beside it, got {self.seed_workers}")
        if ranks.requested() > 1 and (self.seeds is not None or self.cluster is not None):
            raise ValueError("seeds, cluster: torchrun trains one network; leave them out, or start one process")


@dataclass
class TrainOptions(RunOptions):
    """Where to write, when to stop and what to print, and named values for the settings."""

    preset: str | None = None
    """Named values for the options below, for example "minatar"; --config and flags override them."""


@dataclass
class DQNOptions(TrainOptions):
    """Where to write, when to stop and what to print, named values for the settings, and whether to run an ablation."""

    ablate: bool = False
    """Train Rainbow, Rainbow without each of its parts, and DQN with the settings below; plot the comparison."""


@dataclass
class SupernetOptions(RunOptions):
    """Options of a differentiable search."""

    recipe: str = "robust"
    """Named values for the options below: "robust" (against collapse to operations without weights) or "paper"
    (without these switches); --config and flags override them."""


class Runner(NamedTuple):
    """A command that makes a run directory.

    Attributes:
        help: one line for the list of commands.
        load: imports and returns the configuration's class and the function that runs it.
        options: the options in addition to the configuration.
        metric: what ``automl-ext tune`` tunes the command by; None: it cannot be tuned.
    """

    help: str
    load: Callable[[], tuple[type, Run]]
    options: type[RunOptions] = RunOptions
    metric: TunedBy | None = None


def _load(config: str, function: str) -> tuple[type, Run]:
    """Import a configuration and a function, both named "module:name" below ``automl_ext``."""
    (config_module, config_name), (module, name) = config.split(":"), function.split(":")
    kind: type = getattr(import_module(f"automl_ext.{config_module}"), config_name)
    return kind, getattr(import_module(f"automl_ext.{module}"), name)


def _strategy(name: str) -> tuple[type, Run]:
    from automl_ext.nas.search.search import search

    return STRATEGIES[name], functools.partial(search, name)


def _algorithm(name: str) -> tuple[type, Run]:
    found = algorithm(name)
    return found.config, found.train


# The metrics of commands that can be tuned; none is measured on test data.
_RETURN = TunedBy("eval_return_mean", "eval_return")  # of the last policy, in new episodes; on the way: evaluations
_SUPERNET = TunedBy("supernet_accuracy", "search_supernet_accuracy")  # of the derived architecture, validation images
_SCORE = TunedBy("score", "best_score")  # of the best architecture, validation images
_VALID = TunedBy("negative_loss", "negative_loss")  # of the cross-validation of a table's rows
_RETRAIN = TunedBy("retrain_valid_accuracy", "retrain_valid_accuracy", (("validate", True),))

# Per search over a supernet: help text, configuration, function.
_SUPERNETS = {
    "gdas": (
        "search for a cell with GDAS (Dong & Yang 2019), then train it",
        "nas.differentiable.gdas:GDASConfig",
        "nas.differentiable.gdas:search",
    ),
    "entmax-gdas": (
        "GDAS with entmax: evaluates only a few operations per edge in each forward pass",
        "nas.differentiable.entmax_gdas:EntmaxGDASConfig",
        "nas.differentiable.entmax_gdas:search",
    ),
    "darts": (
        "search for a cell with first-order DARTS (Liu et al. 2019): evaluates all operations",
        "nas.differentiable.darts:DARTSConfig",
        "nas.differentiable.darts:search",
    ),
}
# Per other command: help text, configuration, function.
_NAMED = {
    "search auto": (
        "search within a budget: screening, short trainings, full trainings, an ensemble",
        "nas.auto.config:AutoConfig",
        "nas.auto.auto:auto",
    ),
    "score": (
        "rank architectures without training them",
        "nas.screening.score:ScoreConfig",
        "nas.screening.score:score",
    ),
    "nas-bench": (
        "compare search strategies on the table of NAS-Bench-201",
        "nas.benchmarks.nats_bench:NASBenchConfig",
        "nas.benchmarks.nats_bench:nas_bench",
    ),
    "retrain": (
        "train one architecture from scratch",
        "nas.retraining.retrain:RetrainConfig",
        "nas.retraining.retrain:retrain",
    ),
    "compare": (
        "train random architectures with the same settings",
        "nas.retraining.compare:CompareConfig",
        "nas.retraining.compare:compare",
    ),
    "ensemble": (
        "train several networks and select an ensemble",
        "nas.ensembles.ensemble:EnsembleConfig",
        "nas.ensembles.ensemble:ensemble",
    ),
}
# Per learner of tables: help text, configuration, function.
_TABLES = {
    "train lightgbm": (
        "cross-validate LightGBM (Ke et al. 2017) on a table",
        "tabular.runs:LightGBMRun",
        "tabular.runs:train_lightgbm",
    ),
    "train xgboost": (
        "cross-validate XGBoost (Chen and Guestrin 2016) on a table",
        "tabular.runs:XGBoostRun",
        "tabular.runs:train_xgboost",
    ),
    "train forest": (
        "cross-validate a forest of randomized trees on a table",
        "tabular.runs:ForestRun",
        "tabular.runs:train_forest",
    ),
}

# Per strategy and algorithm: help text.
_HELP = {
    "search random": "search by drawing architectures uniformly",
    "search reinforce": "search with a policy that REINFORCE learns (Williams 1992)",
    "search rea": "search with regularized evolution (Real et al. 2019)",
    "search renas": "search with evolution whose mutations a learned controller chooses (Chen et al. 2019)",
    "search successive-halving": "search with successive halving (Jamieson & Talwalkar 2016)",
    "train reinforce": "train an agent with REINFORCE and a baseline (Williams 1992)",
    "train a2c": "train an agent with A2C, synchronous advantage actor-critic (Mnih et al. 2016)",
    "train a3c": "train an agent with A3C, asynchronous advantage actor-critic (Mnih et al. 2016)",
    "train ppo": "train an agent with PPO, proximal policy optimization (Schulman et al. 2017)",
    "train dqn": "train an agent with DQN (Mnih et al. 2015); --ablate compares Rainbow's parts",
    "train rainbow": "train an agent with Rainbow, DQN with six extensions (Hessel et al. 2018)",
    "train bc": "clone the policy of recorded episodes (behavior cloning)",
    "train cql": "train an agent on recorded episodes with CQL, conservative Q-learning (Kumar et al. 2020)",
    "train iql": "train an agent on recorded episodes with IQL, implicit Q-learning (Kostrikov et al. 2021)",
    "train vdn": "train a team with VDN, whose value is the sum of its agents' values (Sunehag et al. 2017)",
    "train qmix": "train a team with QMIX, whose value is monotonic in its agents' values (Rashid et al. 2018)",
    "train dreamer": "train an agent with Dreamer, in a learned world model (Hafner et al. 2020)",
}

RUNNERS: dict[str, Runner] = {
    **{
        f"search {name}": Runner(text, functools.partial(_load, *names), SupernetOptions, _SUPERNET)
        for name, (text, *names) in _SUPERNETS.items()
    },
    **{name: Runner(text, functools.partial(_load, *names)) for name, (text, *names) in _NAMED.items()},
    **{
        f"search {name}": Runner(
            _HELP.get(f"search {name}", f"search with the strategy {name}"),
            functools.partial(_strategy, name),
            metric=_SCORE,
        )
        for name in STRATEGIES
    },
    **{
        f"search {alias}": Runner(f"the same as search {name}", functools.partial(_strategy, name), metric=_SCORE)
        for alias, name in ALIASES.items()
    },
    **{
        f"train {name}": Runner(
            _HELP.get(f"train {name}", f"train an agent with {name}"),
            functools.partial(_algorithm, name),
            TrainOptions,
            _RETURN,
        )
        for name in ALGORITHMS
    },
    **{name: Runner(text, functools.partial(_load, *names), metric=_VALID) for name, (text, *names) in _TABLES.items()},
}
# The commands that torchrun may start in several processes.
RANKED = ("search gdas", "search entmax-gdas", "search darts", "retrain", "train a2c", "train ppo", "train dreamer")
RUNNERS["train dqn"] = RUNNERS["train dqn"]._replace(options=DQNOptions)
RUNNERS["retrain"] = RUNNERS["retrain"]._replace(metric=_RETRAIN)
TUNABLE = {name: runner for name, runner in RUNNERS.items() if runner.metric is not None}
