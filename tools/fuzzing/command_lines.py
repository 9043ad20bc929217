"""Random command lines: small runs with one to three options replaced, and lines that are no commands at all."""

from __future__ import annotations

import dataclasses
import random
import typing
from pathlib import Path
from typing import Any

GENOTYPE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
IMAGES = ["--subset", "60", "--epochs", "1", "--channels", "2", "--batch-size", "16", "--device", "cpu"]
SUPERNET = [*IMAGES, *["--retrain-epochs", "1", "--retrain-channels", "2"]]
SEARCH = [*IMAGES, "--evaluations", "2"]
STEPS = [
    "--total-steps",
    "64",
    "--eval-every",
    "64",
    "--eval-episodes",
    "1",
    "--final-episodes",
    "1",
    "--checkpoint-every",
    "32",
]
Q = [
    *STEPS,
    *["--hidden", "16", "--batch-size", "8", "--buffer-size", "100", "--learning-starts", "16", "--train-freq", "8"],
]
DREAMER = (
    "--prefill 20 --pretrain 1 --batch-size 2 --sequence-length 4 --deter 8 --stoch 4 --hidden 8 --units 8 --horizon 3"
)
# Command → options that keep it small.
SMALL: dict[str, list[str]] = {
    "search gdas": SUPERNET,
    "search entmax-gdas": SUPERNET,
    "search darts": SUPERNET,
    "search random": SEARCH,
    "search reinforce": SEARCH,
    "search rea": SEARCH,
    "search renas": SEARCH,
    "search reinas": SEARCH,
    "search successive-halving": [*SEARCH, "--candidates", "2", "--rungs", "1"],
    "nas-bench": ["--runs", "1", "--budget", "1000", "--workers", "1"],
    "retrain": [*IMAGES, "--genotype", GENOTYPE],
    "compare": [*IMAGES, "--random-cells", "1"],
    "ensemble": [*IMAGES, "--random-cells", "2"],
    "train reinforce": [*STEPS, "--hidden", "16"],
    "train a2c": [*STEPS, "--hidden", "16"],
    "train a3c": [*STEPS, "--hidden", "16", "--n-workers", "1"],
    "train dqn": [*Q, "--gradient-steps", "1"],
    "train rainbow": [*Q, "--gradient-steps", "1"],
    "train dreamer": [*STEPS, *DREAMER.split()],
}
OTHERS = ("eval", "plot", "export", "doctor", "bench", "nas-table", "demo")
RUNS = {"trained": "a2c", "retrained": "retrain"}  # run directories that a line may name, by kind
# Options that say how much is done: never large.
BUDGETS = ("steps", "epochs", "evaluations", "budget", "every", "episodes", "runs", "rounds", "restarts", "cells")
BUDGETS += ("prefill", "pretrain", "candidates", "members", "workers", "updates", "horizon", "interval", "layers")
INTS = [
    "-1",
    "0",
    "1",
    "2",
    "3",
    "7",
    "-2147483649",
    "1.5",
    "1e3",
    "nan",
    "",
    "x",
    "１２",
    "0x10",
    "1_0",
    "None",
    "--5",
]
LARGE = ["2147483648", "4294967296", "18446744073709551616", "1000000", "1" + "0" * 5000]
REALS = ["-1", "0", "-0.0", "1", "0.5", "2", "nan", "inf", "-inf", "1e308", "1e-320", "1e999", "", "x", "½", "1,5"]
TEXTS = ["", "x", "None", "-", "--", "../..", "/", "a" * 3000, "é🙂", "a\nb", "[red]", "{x}", "%s", "$(id)", "\x1b[31m"]
ENVIRONMENTS = ["CartPole-v1", "CartPole-v9", "CartPole", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"]
ENVIRONMENTS += ["FrozenLake-v1", "Taxi-v3", "Blackjack-v1", "MountainCar-v0", "CliffWalking-v1", "LunarLander-v3"]
ENVIRONMENTS += ["ALE/Pong-v5", "ALE/x", "MinAtar/Breakout-v1", "MinAtar/x", "dmc/cartpole-swingup", "dmc/x-y", "dmc/"]
ENVIRONMENTS += ["os:system-v0", "a:b", "GymV21Environment-v0", "phys2d/CartPole-v1", "tabular/Blackjack-v0", "Ant-v5"]
KNOWN: dict[str, list[str]] = {
    "env_id": ENVIRONMENTS,
    "data": ["digits", "digits:", "npz:", "npz:none", "npz:.", "folder:.", "folder:/dev/null", "fashion-mnist:.", ":"],
    "space": ["nb201", "darts", "darts-frc", "renas", "NB201"],
    "device": ["cpu", "auto", "cuda", "cuda:7", "meta", "mps", "CPU", "cpu:1"],
    "genotype": [
        GENOTYPE,
        GENOTYPE * 2,
        GENOTYPE[:-1],
        "|",
        GENOTYPE.replace("~0", "~²"),
        GENOTYPE.replace("none", ""),
    ],
    "table": ["none", ".", "/dev/null"],
    "resume": ["auto", "none", ".", "/dev/null", "run"],
    "out": ["run", "full", "file", "file/x", "/dev/null", "/proc/x", "run/a/b", "full/../run", "a" * 300],
    "config": ["empty.toml", "none.toml", ".", "bad.toml", "/dev/null", "binary.toml"],
    "algorithms": ["random", "rea", "rea rea", "x"],
    "preset": ["minatar", "x"],
}


@dataclasses.dataclass
class Line:
    """A command line. ``given`` holds the options replaced, by field name; ``large``: it may ask for too much."""

    argv: list[str]
    given: dict[str, str]
    large: bool = False


def line(rng: random.Random) -> Line:
    kind = rng.random()
    if kind < 0.06:
        return Line(_noise(rng), {})
    if kind < 0.2:
        return _other(rng)
    command = rng.choice(list(SMALL))
    made = Line([*command.split(), *SMALL[command], "--out", "run"], {})
    fields = options_of(command)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(list(fields))
        _give(rng, made, name, fields[name])
    if rng.random() < 0.06:
        _spoil(rng, made)
    return made


def options_of(command: str) -> dict[str, Any]:
    """The names and types of a command's options."""
    from automl_ext import cli
    from automl_ext.nas import ensemble, entmax_gdas, gdas, nas_bench, retrain
    from automl_ext.nas.darts_search import DARTSConfig
    from automl_ext.nas.search_config import ALIASES, STRATEGIES
    from automl_ext.rl.algorithms import algorithm

    kind, _, name = command.partition(" ")
    others = {"gdas": gdas.GDASConfig, "entmax-gdas": entmax_gdas.EntmaxGDASConfig, "darts": DARTSConfig}
    others |= {"nas-bench": nas_bench.NASBenchConfig, "retrain": retrain.RetrainConfig}
    others |= {"compare": retrain.CompareConfig, "ensemble": ensemble.EnsembleConfig}
    if kind == "train":
        return _fields(cli.TrainOptions) | _fields(algorithm(name).config)
    name = ALIASES.get(name, name) or kind
    return _fields(cli.RunOptions) | _fields(others[name] if name in others else STRATEGIES[name])


def _fields(kind: type) -> dict[str, Any]:
    hints, found = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        found |= _fields(hint) if dataclasses.is_dataclass(hint) else {field.name: hint}  # type: ignore[arg-type]
    return found


def _give(rng: random.Random, made: Line, name: str, hint: Any) -> None:
    flag = "--" + name.replace("_", "-")
    if hint is bool:
        made.argv += rng.choice(([flag], [flag.replace("--", "--no-")], [flag, "maybe"], [f"{flag}=1"], [flag, flag]))
        return
    pool = _pool(rng, name, hint)
    value = rng.choice(pool)
    made.large |= value in LARGE or "e308" in value
    made.given[name] = value
    values = [value] if rng.random() < 0.95 else [value, rng.choice(pool)]
    if typing.get_origin(hint) is tuple and rng.random() < 0.5:
        values = values * rng.choice((0, 2, 3))
    # A value with a leading dash is an option for the parser, unless it follows an equals sign.
    made.argv += [f"{flag}={value}"] if len(values) == 1 and rng.random() < 0.5 else [flag, *values]


def _pool(rng: random.Random, name: str, hint: Any) -> list[str]:
    if name in KNOWN and rng.random() < 0.75:
        return KNOWN[name]
    kinds = {hint, *typing.get_args(hint)}
    literal = [a for a in kinds if typing.get_origin(a) is typing.Literal] + [hint] * (
        typing.get_origin(hint) is typing.Literal
    )
    if literal:
        return [str(a) for a in typing.get_args(literal[0])] + ["x", "", "None"]
    small = any(word in name for word in BUDGETS)
    if float in kinds:
        return [x for x in REALS if not small or x not in ("1e308", "inf", "1e999")]
    if int in kinds:
        return INTS + ([] if small or rng.random() < 0.5 else LARGE)
    return TEXTS + INTS


def _other(rng: random.Random) -> Line:
    command = rng.choice(OTHERS)
    paths = ["none", "full", "file", ".", "", "/dev/null", "/", "/proc/self", "é", "a" * 300, *RUNS, *RUNS]
    argv = [command]
    if command == "eval":
        argv += [rng.choice(paths), *rng.choice(([], ["--episodes", rng.choice(INTS)], ["--seed", rng.choice(INTS)]))]
        argv += rng.choice(([], ["--policy", rng.choice(("last", "best", "x"))], ["--gif", rng.choice(["a.gif", "a"])]))
    elif command == "plot":
        argv += rng.choices(paths, k=rng.randint(0, 2))
        argv += rng.choice(([], ["--genotype", rng.choice(KNOWN["genotype"] + TEXTS)], ["--out", rng.choice(paths)]))
        argv += rng.choice(([], ["--space", rng.choice(KNOWN["space"])]))
    elif command in ("export", "nas-table"):
        argv += [rng.choice(paths), "--out", rng.choice([*paths, "net.py", "net.pt2", "net.exe", "none/a/net.py"])]
    elif command == "doctor":
        argv += ["--device", rng.choice(KNOWN["device"] + TEXTS)]
    elif command == "demo":
        argv += ["--out", rng.choice(["file", "/dev/null", "file/x", "/proc/x"])]
    else:  # bench: nothing that measures for long
        argv += rng.choice((["--ops", "x"], ["--threads", rng.choice(["0", "-1", "x"])], ["--seconds", "nan"]))
        argv += rng.choice(([], ["--table", rng.choice(paths)], ["--dtype", "x"], ["--device", "x"]))
    return Line(argv, {})


def _noise(rng: random.Random) -> list[str]:
    words = [
        "search",
        "gdas",
        "train",
        "--help",
        "-h",
        "--version",
        "eval",
        "--out",
        "x",
        "",
        "--",
        "-",
        "\n",
        "é",
        "0",
    ]
    return [rng.choice(words + TEXTS) for _ in range(rng.randint(0, 4))]


def _spoil(rng: random.Random, made: Line) -> None:
    """Drop, double or misspell a word."""
    i = rng.randrange(1, len(made.argv))
    how = rng.randrange(4)
    if how == 0 and made.argv[i].startswith("--out"):
        return
    if how == 0:
        made.argv[i] += rng.choice("xé=")
    elif how == 1:
        made.argv.insert(i, rng.choice(TEXTS))
    elif how == 2:
        made.argv += ["--unknown", "1"]
    else:
        made.argv.append("--seed")
    made.given.clear()


def prepare_folder(folder: Path) -> None:
    """Files that command lines name."""
    folder.mkdir(parents=True)
    (folder / "full").mkdir()
    (folder / "full/mine.txt").write_text("keep")
    (folder / "file").write_text("keep")
    (folder / "empty.toml").write_text("")
    (folder / "bad.toml").write_text("seed = [")
    (folder / "binary.toml").write_bytes(bytes(range(256)))
