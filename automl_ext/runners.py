"""The commands that make a run directory: per command its help text, configuration and function.

Modules are named by strings and imported when a command is used: each takes time to import.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from automl_ext.nas.strategies.registry import ALIASES, STRATEGIES
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.training.checks import check_range

Run = Callable[..., dict[str, Any] | None]  # (configuration, out, resume, stop_after) -> result, None when interrupted


@dataclass
class RunOptions:
    """Options of a run that are not part of its configuration."""

    out: Path
    """Run directory; must be absent or empty, unless --resume is given."""
    resume: str | None = None
    """"auto": continue from the newest intact checkpoint, or start a new run. A path: continue from that checkpoint."""
    stop_after: int | None = None
    """Write a checkpoint and stop after this number of epochs, of evaluations (search strategies), or of steps
    (``train``)."""
    config: Path | None = None
    """TOML file with values for the options below; flags override it."""

    def __post_init__(self) -> None:
        check_range(self, "stop_after", low=1)


@dataclass
class TrainOptions(RunOptions):
    """Options of a training run of a reinforcement-learning agent."""

    preset: str | None = None
    """Named values for the options below, for example "minatar"; --config and flags override them."""


@dataclass
class DQNOptions(TrainOptions):
    """Options of a training run of DQN."""

    ablate: bool = False
    """Train Rainbow, Rainbow without each of its parts, and DQN with the settings below; plot the comparison."""


@dataclass
class ScoreOptions(RunOptions):
    """Options of ``score``."""

    json: bool = False
    """Print the result as JSON instead of tables."""


class Runner(NamedTuple):
    """A command that makes a run directory.

    Attributes:
        help: one line for the list of commands.
        load: imports and returns the configuration's class and the function that runs it.
        options: the options in addition to the configuration.
    """

    help: str
    load: Callable[[], tuple[type, Run]]
    options: type[RunOptions] = RunOptions


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


# Per command: help text, configuration, function.
_NAMED = {
    "search gdas": (
        "search a cell with GDAS, then train it",
        "nas.differentiable.gdas:GDASConfig",
        "nas.differentiable.gdas:search",
    ),
    "search entmax-gdas": (
        "search a cell with GDAS and entmax: a few operations per edge and pass",
        "nas.differentiable.entmax_gdas:EntmaxGDASConfig",
        "nas.differentiable.entmax_gdas:search",
    ),
    "search darts": (
        "search a cell with DARTS: all operations in every pass",
        "nas.differentiable.darts:DARTSConfig",
        "nas.differentiable.darts:search",
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

RUNNERS: dict[str, Runner] = {
    **{name: Runner(text, functools.partial(_load, *names)) for name, (text, *names) in _NAMED.items()},
    **{
        f"search {name}": Runner(f"search with the strategy {name}", functools.partial(_strategy, name))
        for name in STRATEGIES
    },
    **{
        f"search {alias}": Runner(f"the same as search {name}", functools.partial(_strategy, name))
        for alias, name in ALIASES.items()
    },
    **{
        f"train {name}": Runner(f"train an agent with {name}", functools.partial(_algorithm, name), TrainOptions)
        for name in ALGORITHMS
    },
}
RUNNERS["score"] = RUNNERS["score"]._replace(options=ScoreOptions)
RUNNERS["train dqn"] = RUNNERS["train dqn"]._replace(
    help="train an agent with dqn; --ablate compares Rainbow's parts", options=DQNOptions
)
