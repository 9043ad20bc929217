"""The command line ``automl-ext``: it parses arguments and calls the modules that do the work."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from rich.console import Console

from automl_ext import __version__
from automl_ext._native import BackendError
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.training.config import apply_toml
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

Options = TypeVar("Options")
Settings = TypeVar("Settings")


@dataclass
class RunOptions:
    """Where a run lives and how far it goes; no part of its configuration."""

    out: Path
    """Run directory; must be absent or empty, unless --resume is given."""
    resume: str | None = None
    """"auto": go on from the newest intact checkpoint, or start afresh. A path: from that checkpoint."""
    stop_after: int | None = None
    """Interrupt, with a checkpoint, after so many epochs; of a search, evaluations; of ``train``, steps."""
    config: Path | None = None
    """TOML file with values for the options below; flags override it."""

    def __post_init__(self) -> None:
        if self.stop_after is not None and self.stop_after < 1:
            raise ValueError(f"--stop-after: expected at least 1, got {self.stop_after}")


@dataclass
class TrainOptions(RunOptions):
    """The same of an agent's training."""

    preset: str | None = None
    """Other values for the options below, by name ("minatar"); --config and flags override it."""


@dataclass
class DQNOptions(TrainOptions):
    """Those of DQN's training."""

    ablate: bool = False
    """Train Rainbow, Rainbow less one part each, and DQN with the settings below, and draw the comparison."""


@dataclass
class RunCommand(Generic[Options, Settings]):
    options: Annotated[Options, tyro.conf.OmitArgPrefixes]
    settings: Annotated[Settings, tyro.conf.OmitArgPrefixes]


@dataclass
class PlotCommand:
    runs: Annotated[list[Path], tyro.conf.Positional] = field(default_factory=list)
    """Run directories: training curves, and the picture of the cell that a search found, are drawn into each. Runs of
    ``train`` given together are also drawn into one picture, their seeds' mean with a confidence band."""
    genotype: str | None = None
    """Draw this cell instead, into --out."""
    space: str = "nb201"
    """The search space of --genotype."""
    out: Path = Path(".")
    """Folder for the picture of --genotype, or of several runs together."""


@dataclass
class EvalCommand:
    run: Annotated[Path, tyro.conf.Positional]
    """Run directory of ``train``."""
    episodes: int = 30
    """Whole episodes, played with the deterministic policy."""
    seed: int = 0
    """Of these episodes."""
    policy: Literal["best", "last"] = "best"
    """The one that did best in training's evaluations, or that of the newest checkpoint."""
    eval_max_steps: int | None = None
    """Longer episodes are cut; the result counts them. Default: as in training."""
    gif: Path | None = None
    """Show one more episode in this file."""
    mp4: Path | None = None
    """The same as a video."""


@dataclass
class ExportCommand:
    run: Annotated[Path, tyro.conf.Positional]
    """Run directory of a finished ``retrain`` or ``search``."""
    out: Path
    """NAME.pt2 (torch.export), NAME.py (a Python module, its weights in NAME.pt), or NAME: all of them."""


@dataclass
class DoctorCommand:
    device: str = "auto"
    """Where to check the ops: auto, cpu or cuda."""


@dataclass
class NASTableCommand:
    source: Annotated[Path, tyro.conf.Positional]
    """NATS-tss-v1_0-….pickle.pbz2, or the folder NATS-tss-v1_0-…-simple."""
    out: Path = Path("nasbench201_cifar10.csv.gz")
    """The table, for --table and AUTOML_EXT_NB201."""


@dataclass
class DemoCommand:
    out: Path = Path("runs/demo")
    """Folder of the demonstration; a finished part is not done again."""


Runner = tuple[type, Callable[..., dict[str, Any] | None]]  # a configuration, and what runs with it


def _run_command(
    load: Callable[[], Runner], options_of: type[RunOptions] = RunOptions
) -> Callable[[str, Sequence[str]], int]:
    def command(prog: str, args: Sequence[str]) -> int:
        settings, run = load()
        try:  # the dataclasses check their values themselves, with a ValueError
            defaults, toml, preset = settings(), _value("--config", args), _value("--preset", args)
            if preset is not None and issubclass(options_of, TrainOptions):
                from automl_ext.rl.presets import preset as with_preset

                defaults = with_preset(preset, defaults)
            if toml is not None:
                defaults = apply_toml(defaults, toml)
            default = RunCommand(options_of(Path("runs") / prog.split()[-1]), defaults)
            with _one_line(settings), _one_line(options_of):
                parsed = tyro.cli(
                    RunCommand[options_of, settings],  # type: ignore[valid-type]
                    prog=prog,
                    args=args,
                    default=default,
                )
        except (ValueError, OverflowError) as error:  # an int with hundreds of digits overflows
            raise UserError(str(error)) from None
        options = parsed.options
        if isinstance(options, DQNOptions) and options.ablate:
            from automl_ext.rl.dqn.ablation import ablate

            ablate(parsed.settings, options.out, resume=options.resume)
            print(f"written to {options.out}/ablation.json and ablation.png")
            return 0
        result = run(parsed.settings, options.out, resume=options.resume, stop_after=options.stop_after)
        if result is None:
            print(f"stopped; go on with: {prog} --out {options.out} --resume auto and the same options")
        else:
            Console().print_json(data={k: v for k, v in result.items() if k not in ("alpha", "network")})
            print(f"written to {options.out}/result.json")
        return 0

    return command


@contextlib.contextmanager
def _one_line(kind: type) -> Iterator[None]:
    """Within, what a dataclass's own checks refuse is a UserError: tyro draws a box of several lines for a ValueError.

    Args:
        kind: a dataclass; one without ``__post_init__`` stays as it is.
    """
    check, own = getattr(kind, "__post_init__", None), "__post_init__" in vars(kind)
    if check is None:
        yield
        return

    def checked(self: Any) -> None:
        try:
            check(self)
        except (ValueError, OverflowError) as error:
            raise UserError(str(error)) from None

    kind.__post_init__ = checked  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if own:
            kind.__post_init__ = check  # type: ignore[attr-defined]
        else:
            del kind.__post_init__  # type: ignore[attr-defined]


def _value(flag: str, args: Sequence[str]) -> str | None:
    """The value of --config or --preset, needed before the other arguments: they change their defaults."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(f"{flag}="):
            return arg.removeprefix(f"{flag}=")
    return None


def _gdas() -> Runner:
    from automl_ext.nas.differentiable.gdas import GDASConfig, search

    return GDASConfig, search


def _strategy(name: str) -> Runner:
    from automl_ext.nas.search.search import search
    from automl_ext.nas.strategies.registry import STRATEGIES

    return STRATEGIES[name], functools.partial(search, name)


def _nas_bench() -> Runner:
    from automl_ext.nas.benchmarks.nats_bench import NASBenchConfig, nas_bench

    return NASBenchConfig, nas_bench


def _entmax_gdas() -> Runner:
    from automl_ext.nas.differentiable.entmax_gdas import EntmaxGDASConfig, search

    return EntmaxGDASConfig, search


def _darts() -> Runner:
    from automl_ext.nas.differentiable.darts import DARTSConfig, search

    return DARTSConfig, search


def _retrain() -> Runner:
    from automl_ext.nas.retraining.retrain import RetrainConfig, retrain

    return RetrainConfig, retrain


def _compare() -> Runner:
    from automl_ext.nas.retraining.compare import CompareConfig, compare

    return CompareConfig, compare


def _ensemble() -> Runner:
    from automl_ext.nas.ensembles.ensemble import EnsembleConfig, ensemble

    return EnsembleConfig, ensemble


def _train(name: str) -> Runner:
    found = algorithm(name)
    return found.config, found.train


def _plot(prog: str, args: Sequence[str]) -> int:
    command = tyro.cli(PlotCommand, prog=prog, args=args, description="Draw runs, or one cell.")
    from automl_ext.nas.plot import plot_genotype, plot_run
    from automl_ext.rl.reports.plot import plot_runs
    from automl_ext.training.run import algorithm_of

    if not command.runs and command.genotype is None:
        raise UserError("plot: expected run directories or --genotype")
    learning = [run for run in command.runs if algorithm_of(run) in ALGORITHMS]
    written = [path for run in command.runs if run not in learning for path in plot_run(run)]
    if learning:
        written += plot_runs(learning, command.out)
    if command.genotype is not None:
        written += plot_genotype(command.genotype, command.out, command.space)
    for path in written:
        print(path)
    return 0


def _eval(prog: str, args: Sequence[str]) -> int:
    command = tyro.cli(EvalCommand, prog=prog, args=args, description="Play episodes with a trained policy.")
    from automl_ext.rl.reports.evaluate_run import evaluate_run

    videos = tuple(path for path in (command.gif, command.mp4) if path is not None)
    result = evaluate_run(command.run, command.episodes, command.seed, command.policy, videos, command.eval_max_steps)
    Console().print_json(data=result)
    for path in videos:
        print(path)
    return 0


def _export(prog: str, args: Sequence[str]) -> int:
    command = tyro.cli(ExportCommand, prog=prog, args=args, description="A trained network, without automl_ext.")
    from automl_ext.nas.export.export import export

    for path in export(command.run, command.out):
        print(path)
    return 0


def _doctor(prog: str, args: Sequence[str]) -> int:
    command = tyro.cli(
        DoctorCommand, prog=prog, args=args, description="Build facts, backend, and every op against its reference."
    )
    from automl_ext.doctor import doctor

    return 0 if doctor(command.device) else 1


def _nas_table(prog: str, args: Sequence[str]) -> int:
    command = tyro.cli(
        NASTableCommand, prog=prog, args=args, description="The official files of NATS-Bench as a table."
    )
    from automl_ext.nas.benchmarks.nats_files import convert

    convert(command.source, command.out)
    print(command.out)
    return 0


def _demo(prog: str, args: Sequence[str]) -> int:
    command = tyro.cli(
        DemoCommand, prog=prog, args=args, description="GDAS on the digits data, against randomly drawn cells."
    )
    from automl_ext.nas.demo import demo

    demo(command.out)
    return 0


def _bench(prog: str, args: Sequence[str]) -> int:
    from automl_ext.bench.command import main  # parses for itself: it also runs where tyro is missing

    return main(prog, args)


COMMANDS: dict[str, tuple[str, Callable[[str, Sequence[str]], int]]] = {
    "search gdas": ("search an architecture, then train it", _run_command(_gdas)),
    "search entmax-gdas": ("the same, with a few operations per edge in a pass", _run_command(_entmax_gdas)),
    "search darts": ("the same, with all operations in every pass", _run_command(_darts)),
    **{
        f"search {name}": (f"search by {name}", _run_command(functools.partial(_strategy, name)))
        for name in ("random", "reinforce", "rea", "renas", "successive-halving")
    },
    "search reinas": ("the same as search renas", _run_command(functools.partial(_strategy, "renas"))),
    "nas-bench": ("search strategies on the table of NAS-Bench-201", _run_command(_nas_bench)),
    "nas-table": ("make that table of the benchmark's official files", _nas_table),
    "retrain": ("train one architecture from scratch", _run_command(_retrain)),
    "compare": ("train uniformly drawn architectures alike", _run_command(_compare)),
    "ensemble": ("train several networks and choose those that are best together", _run_command(_ensemble)),
    **{
        f"train {name}": (f"learn by {name}", _run_command(functools.partial(_train, name), TrainOptions))
        for name in ALGORITHMS
    },
    "train dqn": ("learn by dqn; --ablate: Rainbow's parts compared", _run_command(lambda: _train("dqn"), DQNOptions)),
    "eval": ("play episodes with a trained policy", _eval),
    "plot": ("draw runs, or one cell", _plot),
    "export": ("write a trained network as files that need no automl_ext", _export),
    "doctor": ("check this installation", _doctor),
    "bench": ("measure every op beside PyTorch and the packages people use", _bench),
    "demo": ("a search on the digits data, in minutes", _demo),
}


def _usage() -> str:
    lines = [f"  {name:<26}{text}" for name, (text, _) in COMMANDS.items()]
    return "usage: automl-ext COMMAND [OPTIONS]   (COMMAND --help lists the options)\n\n" + "\n".join(lines)


def _flush_output() -> None:
    """Flush standard output. What a full disk refuses is dropped, or Python would try again as it ends: code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code: 0 done, 1 doctor or bench found a fault, 2 wrong input, full disk: one line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv in ([], ["-h"], ["--help"]):
        print(_usage())
        return 0 if argv else 2
    if argv == ["--version"]:
        print(__version__)
        return 0
    for words in (2, 1):
        name = " ".join(argv[:words])
        if name in COMMANDS:
            try:
                code = COMMANDS[name][1](f"automl-ext {name}", argv[words:])
                _flush_output()  # a full disk shows here
                return code
            # A missing extra and a missing kernel name themselves; OSError: a full disk, no permission.
            except (UserError, ModuleNotFoundError, BackendError, OSError) as error:
                with contextlib.suppress(OSError):
                    _flush_output()
                print(f"error: {error}", file=sys.stderr)
                return 2
            except MemoryError as error:
                print(f"error: not enough memory: {short(error)}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print("interrupted; --resume auto goes on from the last checkpoint", file=sys.stderr)
                return 130
    print(f"error: unknown command {' '.join(argv[:1])!r}\n{_usage()}", file=sys.stderr)
    return 2
