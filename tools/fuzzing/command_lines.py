"""Random command lines: small runs with one to three options replaced, and invalid lines."""

from __future__ import annotations

import dataclasses
import random
import typing
from pathlib import Path
from typing import Any

from fuzzing.command_tables import BUDGETS, INTS, KNOWN, LARGE, OTHERS, PROCESSES, REALS, RUNS, SMALL, TEXTS


@dataclasses.dataclass
class Line:
    """A command line.

    Attributes:
        given: values of the replaced options, by field name.
        large: the values may need more memory or time than the limits allow.
    """

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
    """Return the names and types of a command's options."""
    from automl_ext.runners import RUNNERS

    runner = RUNNERS[command]
    config, _ = runner.load()
    return _fields(runner.options) | _fields(config)


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
    made.large |= name in PROCESSES and value not in ("0", "1", "2", "3")
    made.given[name] = value
    values = [value] if rng.random() < 0.95 else [value, rng.choice(pool)]
    if typing.get_origin(hint) is tuple and rng.random() < 0.5:
        values = values * rng.choice((0, 2, 3))
    # The parser takes a value with a leading dash as an option, unless it follows an equals sign.
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
        argv += rng.choice(([], ["--json"], ["--trust", rng.choice(KNOWN["trust"])]))
        argv += rng.choice(([], ["--policy", rng.choice(("last", "best", "x"))], ["--gif", rng.choice(["a.gif", "a"])]))
    elif command == "plot":
        argv += rng.choices(paths, k=rng.randint(0, 2))
        argv += rng.choice(([], ["--genotype", rng.choice(KNOWN["genotype"] + TEXTS)], ["--out", rng.choice(paths)]))
        argv += rng.choice(([], ["--space", rng.choice(KNOWN["space"])]))
    elif command in ("export", "nas-table", "record"):
        argv += [
            rng.choice(paths),
            "--out",
            rng.choice([*paths, "net.py", "net.pt2", "net.npz", "net.exe", "none/a/net.py"]),
        ]
    elif command == "doctor":
        argv += ["--device", rng.choice(KNOWN["device"] + TEXTS)]
    elif command == "demo":
        argv += ["--out", rng.choice(["file", "/dev/null", "file/x", "/proc/x"])]
    else:  # bench: only lines that end quickly
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
        "--print-completion",
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
    """Make a line invalid: misspell or insert a word, or add an unknown or incomplete option."""
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
    """Create the files that command lines name."""
    folder.mkdir(parents=True)
    (folder / "full").mkdir()
    (folder / "full/mine.txt").write_text("keep")
    (folder / "file").write_text("keep")
    (folder / "empty.toml").write_text("")
    (folder / "bad.toml").write_text("seed = [")
    (folder / "binary.toml").write_bytes(bytes(range(256)))
