"""The command ``automl-ext tune``, which is followed by the command to tune and its options."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from automl_ext.parallel.cluster import Cluster
from automl_ext.parsing import option_value, parse, with_extras
from automl_ext.run_options import LearnerOptions, TrainOptions
from automl_ext.summary import only_json, print_json, print_stopped, print_tuning
from automl_ext.training.errors import UserError
from automl_ext.tune.commands.command import CommandTuneConfig, tune_command
from automl_ext.tune.commands.objective import TunedBy
from automl_ext_cli import Command, load
from automl_ext_cli.commands import command_name, complain, lines, unknown_command
from automl_ext_cli.table import COMMANDS, LEARNERS, RUNS

Options = TypeVar("Options")
Settings = TypeVar("Settings")
TUNABLE = {name: command for name, command in RUNS.items() if command.metric} | {
    "fit": LEARNERS[LearnerOptions.learner]
}


@dataclass
class TuneCommand(Generic[Options, Settings]):
    options: Annotated[Options, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="Run")]
    tuning: Annotated[CommandTuneConfig, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="Tuning")]
    settings: Annotated[Settings, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="Algorithm")]


def run_tune(prog: str, args: Sequence[str]) -> int:
    """Parse the options of tuning and of the tuned command, and tune it. Return the exit code."""
    name = command_name(args, TUNABLE)
    if name is None:
        if args and args[0] not in ("-h", "--help"):
            raise UserError(f"tune: {unknown_command(args, list(TUNABLE))}")
        usage = f"usage: {prog} COMMAND [OPTIONS]   (COMMAND --help lists the options)"
        text = "\n".join([usage, "", *lines(TUNABLE)])
        if not args:
            return complain(text)
        print(text)
        return 0
    tuned, prog, words = TUNABLE[name], f"{prog} {name}", args[len(name.split()) :]
    again = None
    if name == "fit":
        learner = option_value("--learner", words) or LearnerOptions.learner
        tuned, name = LEARNERS.get(learner, tuned), f"fit --learner {learner}"
        again = f"tune {name} --trials 1"
    flags, kind = flags_of(tuned), load(tuned.options)
    hidden = without_shared(kind)
    parsed = parse(
        TuneCommand[flags, hidden],  # type: ignore[valid-type]
        (flags, CommandTuneConfig, kind),
        default_of(name, flags, hidden),
        prog,
        words,
    )
    options, settings = parsed.options, with_class(parsed.settings, kind)
    if options.seeds is not None:
        raise UserError(
            f"--seeds: expected --seed, or --trial-seeds for several runs a trial, got --seeds {options.seeds}"
        )
    if again is not None and options.resume is None:
        from automl_ext.tabular.runs import read_problem

        read_problem(settings)  # before the run directory is made: each trial reads the table, and would fail
    cluster = Cluster(options.cluster, options.cpus_per_trial, options.gpus_per_trial)
    with cluster, only_json(options.json):
        how: dict[str, Any] = {"resume": options.resume, "stop_after": options.stop_after, "again": again}
        result = tune_command(name, tuned.load, TunedBy(*tuned.metric), settings, parsed.tuning, options.out, **how)
    if options.json:
        print_json(result)
    elif result is not None:
        print_tuning(options.out, result)
    if result is None:
        print_stopped(prog, options.out, sys.stderr if options.json else sys.stdout)
    return 0


def tune_forms() -> dict[str, tuple[str, Any]]:
    """Return help text and dataclass of the options of each command, for completion."""
    return {
        f"tune {name}": (
            COMMANDS[name].help,
            TuneCommand[flags_of(tuned), with_extras(without_shared(load(tuned.options)))],  # type: ignore[misc]
        )
        for name, tuned in TUNABLE.items()
    }


def flags_of(command: Command) -> type:
    """Return the options of a command that a trial can have; an ablation cannot be a trial."""
    flags: type = load(command.flags)
    return TrainOptions if issubclass(flags, TrainOptions) else flags


def without_shared(kind: type) -> type:
    """Return a configuration's class without the flag --workers, which is that of tuning: a trial has one worker."""
    if "workers" not in {field.name for field in dataclasses.fields(kind)}:
        return kind

    @dataclass
    class OneWorker(kind):
        workers: tyro.conf.Suppress[int] = 1
        """Number of trials at the same time, as in the options of tuning."""

    return OneWorker


def with_class(config: Any, kind: type) -> Any:
    """Return a configuration as an instance of another class with the same fields."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


def default_of(name: str, flags: type, kind: type) -> Callable[[Any], Any]:
    """Return a function from the settings of the tuned command to the default values of the options of ``tune``."""
    out = Path("runs") / f"tune-{name.split()[-1]}"

    def default(settings: Any) -> Any:
        return TuneCommand(flags(out), CommandTuneConfig(), with_class(settings, kind))

    return default
