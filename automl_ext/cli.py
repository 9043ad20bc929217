"""The command line ``automl-ext``: it parses arguments and calls the modules that do the work."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import tyro

from automl_ext._native import BackendError
from automl_ext.multi_seed import print_seeds, run_command
from automl_ext.parsing import parse, with_extras
from automl_ext.summary import next_commands, only_json, print_evaluation, print_json, print_recording, print_stopped
from automl_ext.training import ranks
from automl_ext.training.ctrl_c import interruptible, sigterm_as_ctrl_c
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.memory import is_out_of_memory
from automl_ext_cli import Command, load
from automl_ext_cli.commands import (
    COMPLETION,
    PIPE_CLOSED,
    answer,
    command_name,
    cut,
    flush_output,
    output_is_closed_pipe,
    output_lost,
    refuse,
)
from automl_ext_cli.options import parse_options
from automl_ext_cli.table import COMMANDS, RUNS

if TYPE_CHECKING:
    from automl_ext.rl.reports.record import RecordCommand

Options = TypeVar("Options")
Settings = TypeVar("Settings")
Trust = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass
class RunCommand(Generic[Options, Settings]):
    options: Annotated[Options, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="Run")]
    settings: Annotated[Settings, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="Algorithm")]


@dataclass
class PlotCommand:
    runs: Annotated[list[Path], tyro.conf.Positional] = field(default_factory=list)
    """Run directories. Training curves, and the cell that a search found, are drawn into each of them. Several training
    runs of agents are also drawn into one plot: the seeds and their median, or, from five seeds on, the mean with
    a band."""
    genotype: str | None = None
    """Draw this cell instead, into --out."""
    space: str = "nb201"
    """Search space of --genotype; MODULE:CLASS for your own."""
    out: Path = Path(".")
    """Folder for the plot of --genotype, or of several runs of agents."""
    trust: Trust = ()
    """Python module that a run's configuration may name; it is imported. May be repeated."""


@dataclass
class EvalCommand:
    run: Annotated[Path, tyro.conf.Positional]
    """Run directory of a training (command train)."""
    episodes: int = 30
    """Number of whole episodes, played with the deterministic policy unless the run has --eval-sample."""
    seed: int = 0
    """Seed of the episodes."""
    policy: Literal["best", "last"] = "best"
    """"best": the policy with the best evaluation in training. "last": the policy of the newest checkpoint."""
    eval_max_steps: int | None = None
    """Maximum length of an episode in steps; the result counts the truncated episodes. Default: as in training."""
    gif: Path | None = None
    """Record one more episode to this GIF file."""
    mp4: Path | None = None
    """Record one more episode to this MP4 file."""
    trust: Trust = ()
    """Python module that the run's configuration may name (env_id, wrapper, a potential); it is imported. May be
    repeated."""
    json: bool = False
    """Print the result as JSON, and nothing else, on standard output."""


@dataclass
class ExportCommand:
    run: Annotated[Path, tyro.conf.Positional]
    """Run directory of a finished retrain or search over a supernet, of search auto, or of train (not of dreamer)."""
    out: Path
    """A network: NAME.pt2 (torch.export), NAME.py (a Python module, its weights in NAME.pt), or NAME for all of them. A
    policy: the folder of policy.pt2 (torch.export), policy.json and README.md."""
    policy: Literal["best", "last"] = "best"
    """Policy of a run of train: "best" by the evaluations, or "last", that of the newest checkpoint."""
    trust: Trust = ()
    """Python module that the run may name (space); it is imported. May be repeated."""


@dataclass
class DemoCommand:
    out: Path = Path("runs/demo")
    """Folder of the demonstration; a finished part is not repeated."""


def run(command: Command, prog: str, args: Sequence[str]) -> int:
    """Parse the options of a command that makes a run directory, and run it."""
    settings, kind = load(command.options), load(command.flags)
    parsed = parse(
        RunCommand[kind, settings],  # type: ignore[valid-type]
        (kind, settings),
        lambda defaults: RunCommand(kind(Path("runs") / prog.split()[-1]), defaults),
        prog,
        args,
    )
    options, config = parsed.options, parsed.settings
    if options.instead(prog, config):
        return 0
    ranks.join()
    with only_json(options.json):
        result = run_command(command, prog, config, options)
    if ranks.rank() > 0:  # rank 0 prints
        return 0
    if options.json:
        print_json(result)
    elif result is not None and options.seeds is not None:
        print_seeds(prog, options.out, result, command.columns)
    elif result is not None:
        following = next_commands(command.next, options.out, config, result)
        load(command.report)(prog, options.out, config, result, following)
    if result is None:
        print_stopped(prog, options.out, sys.stderr if options.json else sys.stdout)
    return 0


def plot(command: PlotCommand) -> int:
    from automl_ext.nas.plot import plot_genotype, plot_run
    from automl_ext.rl.registry import is_agent_run
    from automl_ext.rl.reports.plot import plot_runs

    if not command.runs and command.genotype is None:
        raise UserError("plot: expected run directories or --genotype")
    if command.genotype is None and command.space != PlotCommand.space:
        raise UserError("plot: --space is that of --genotype; a run has its own")
    learning = [run for run in command.runs if is_agent_run(run)]
    if command.genotype is None and command.out != PlotCommand.out and len(learning) < 2:
        raise UserError(
            "plot: --out is for --genotype and for several runs of agents; a run is drawn into its directory"
        )
    written = [path for run in command.runs if run not in learning for path in plot_run(run, command.trust)]
    if learning:
        written += plot_runs(learning, command.out, command.trust)
    if command.genotype is not None:
        written += plot_genotype(command.genotype, command.out, command.space)
    for path in written:
        print(path)
    return 0


def evaluate(command: EvalCommand) -> int:
    from automl_ext.rl.reports.evaluate_run import evaluate_run

    videos = tuple(path for path in (command.gif, command.mp4) if path is not None)
    with only_json(command.json):
        result = evaluate_run(
            command.run, command.episodes, command.seed, command.policy, videos, command.eval_max_steps, command.trust
        )
    if command.json:
        print_json(result)
    else:
        print_evaluation(command.run, result, videos)
    return 0


def record(command: RecordCommand) -> int:
    from automl_ext.rl.reports.record import record_run

    with only_json(command.json):
        result = record_run(command)
    if command.json:
        print_json(result)
    else:
        print_recording(command.run, command.out, result)
    return 0


def export(command: ExportCommand) -> int:
    from automl_ext.rl.registry import is_agent_run

    if is_agent_run(command.run):
        from automl_ext.rl.export import export_policy

        written = export_policy(command.run, command.out, command.policy, command.trust)
    else:
        from automl_ext.nas.export.export import export as export_network

        written = export_network(command.run, command.out, trust=command.trust)
    for path in written:
        print(path)
    return 0


def demo(command: DemoCommand) -> int:
    from automl_ext.demo import demo as demonstrate

    demonstrate(command.out)
    return 0


def completion(prog: str, args: Sequence[str]) -> int:
    """Print a completion script for a shell."""
    from automl_ext.completion import print_script
    from automl_ext.tune_command import tune_forms

    forms: dict[str, tuple[str, Any]] = {}
    for name, command in COMMANDS.items():
        if run := RUNS.get(name):
            forms[name] = command.help, RunCommand[load(run.flags), with_extras(load(run.options))]  # type: ignore[misc]
        elif name != "tune":
            forms[name] = command.help, load(command.options)
    print_script(args, forms | tune_forms())
    return 0


def _check_ranks(name: str) -> None:
    """Raise UserError if torchrun has started several processes of a command that runs in one."""
    ranked = [ranked for ranked, command in COMMANDS.items() if command.ranked]
    if ranks.requested() > 1 and name not in ranked:
        raise UserError(f"{name}: expected one process, got {ranks.requested()}: torchrun is for {', '.join(ranked)}")


def _fail(error: Exception) -> int:
    """Print one line for an error of the user or the machine; raise any other error again. Return the exit code."""
    if isinstance(error, BrokenPipeError) and output_is_closed_pipe():
        return output_lost(error)
    own_module = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("automl_ext")
    if ranks.count() > 1 and isinstance(error, RuntimeError) and re.search("gloo|nccl|connection", str(error), re.I):
        reason = str(error).partition("\n")[0].partition(". This is typically")[0]
        message = f"rank {ranks.rank()} lost the connection to the other ranks: {reason}"
    elif is_out_of_memory(error):
        message = f"not enough memory: {short(error)}"
    # The messages of missing extras and kernels are complete. OSError: for example a full disk or no permission.
    elif isinstance(error, (UserError, ModuleNotFoundError, BackendError, OSError)) and not own_module:
        message = str(error)
    else:
        raise error
    return flush_output() or refuse(" ".join(cut(word) for word in message.split()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code. 0: success. 1: doctor or bench found a fault. 2: wrong input, or not enough disk or memory; one
        line on standard error says which. 130: interrupted. 141: standard output is a pipe that was closed.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    code = answer(argv)
    if code is not None:
        return code
    name = COMPLETION if argv[0] == COMPLETION else command_name(argv, COMMANDS)
    assert name is not None
    try:
        with interruptible(), sigterm_as_ctrl_c():
            code = _call(name, argv[len(name.split()) :])
        return flush_output() or code
    except SystemExit as end:
        # tyro exits with 0 (--help) or 2 (wrong options), rich with 1 if standard output is a closed pipe.
        if failed := PIPE_CLOSED if end.code == 1 else flush_output():
            return failed
        raise
    except KeyboardInterrupt as error:
        continues = name == "tune" or name in RUNS
        advice = str(error) or "--resume auto continues the run" * continues
        print(f"interrupted{'; ' * bool(advice)}{advice}", file=sys.stderr)
        flush_output()
        return 130
    except Exception as error:
        return _fail(error)


def _call(name: str, args: Sequence[str]) -> int:
    """Run the command with this name. Return its exit code."""
    _check_ranks(name)
    prog = f"automl-ext {name}"
    if name == COMPLETION:
        return completion(prog, args)
    if name in RUNS:
        return run(RUNS[name], prog, args)
    command = COMMANDS[name]
    function = load(command.run)
    if not command.options:
        return int(function(prog, args))
    text = f"{command.help[:1].upper()}{command.help[1:]}."
    return int(function(parse_options(load(command.options), prog, args, description=text)))
