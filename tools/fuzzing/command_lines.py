"""Random command lines: small runs with one to three arguments replaced, and invalid lines."""

from __future__ import annotations

import dataclasses
import random
import typing
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from automl_ext.parsing import with_extras
from automl_ext.rl.replay.episode_files import write_episodes
from automl_ext.rl.replay.episodes import RecordedEpisode
from automl_ext.tune_command import TUNABLE, tune_forms
from automl_ext_cli import load
from automl_ext_cli.table import COMMANDS, RUNS
from fuzzing.command_tables import BUDGETS, INTS, KNOWN, LARGE, PATHS, PROCESSES, QUICK, REALS, SMALL, TEXTS

POSITIONAL, SUPPRESSED = (mark[int].__metadata__[0] for mark in (tyro.conf.Positional, tyro.conf.Suppress))


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
    if rng.random() < 0.06:
        return Line(_noise(rng), {})
    command = rng.choice(list(COMMANDS))
    if command == "tune":
        command = f"tune {rng.choice(list(TUNABLE))}"
    made = Line(small(command), {})
    kinds = options_of(command)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _give(rng, made, command, rng.choice(list(kinds)), kinds)
    if rng.random() < 0.06:
        _spoil(rng, made)
    return made


def small(command: str) -> list[str]:
    """Return a command line whose run is small."""
    tuned = command.removeprefix("tune ")
    text = f"{command} {SMALL.get(command) or SMALL[tuned]}"
    if tuned != command:
        text += f" {SMALL['tune']}"
    return [*text.split(), *(("--out", "run") if tuned != command or command in RUNS else ())]


def options_of(command: str) -> dict[str, Any]:
    """Return the names and types of a command's options and positional arguments."""
    if run := RUNS.get(command):
        return _fields(load(run.flags)) | _fields(with_extras(load(run.options)))
    if command.startswith("tune "):
        return _fields(tune_forms()[command][1])
    return _fields(load(COMMANDS[command].options))


def _fields(kind: Any) -> dict[str, Any]:
    origin = typing.get_origin(kind) or kind
    chosen = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(kind), strict=True))
    hints, found = typing.get_type_hints(origin, include_extras=True), {}
    for field in dataclasses.fields(origin):
        hint = hints[field.name]
        marks = getattr(hint, "__metadata__", ())
        inner = typing.get_args(hint)[0] if marks else hint
        inner = chosen.get(inner, inner)
        if dataclasses.is_dataclass(inner):
            found |= _fields(inner)
        elif SUPPRESSED not in marks:
            name = next((mark.name for mark in marks if getattr(mark, "name", None)), field.name)
            found[name] = hint if POSITIONAL in marks else inner
    return found


def _give(rng: random.Random, made: Line, command: str, name: str, kinds: dict[str, Any]) -> None:
    """Replace or add the value of an argument."""
    flag, hint = "--" + name.replace("_", "-"), kinds[name]
    if hint is bool:
        made.argv += rng.choice(([flag], [flag.replace("--", "--no-")], [flag, "maybe"], [f"{flag}=1"], [flag, flag]))
        return
    pool = _pool(rng, command, name, hint)
    value = pool[0] if rng.random() < 0.4 else rng.choice(pool)  # most pools begin with a valid value
    made.large |= value in LARGE or "e308" in value
    made.large |= name in PROCESSES and value not in ("0", "1", "2", "3")
    positional = [other for other, kind in kinds.items() if POSITIONAL in getattr(kind, "__metadata__", ())]
    if name in positional:
        i = len(command.split()) + positional.index(name)
        made.argv[i : i + 1] = [value] * rng.choice((1, 1, 1, 1, 1, 0, 2))
        return
    made.given[name] = value
    values = [value] if rng.random() < 0.95 else [value, rng.choice(pool)]
    if typing.get_origin(hint) is tuple and rng.random() < 0.5:
        values = values * rng.choice((0, 2, 3))
    # The parser takes a value with a leading dash as an option, unless it follows an equals sign.
    made.argv += [f"{flag}={value}"] if len(values) == 1 and rng.random() < 0.5 else [flag, *values]


def _pool(rng: random.Random, command: str, name: str, hint: Any) -> list[str]:
    if quick := QUICK.get(f"{command} {name}", QUICK.get(name)):
        return quick
    if name in KNOWN and rng.random() < 0.75:
        return KNOWN[name]
    kinds = _parts(hint)
    literal = [kind for kind in kinds if typing.get_origin(kind) is typing.Literal]
    if literal:
        return [str(a) for a in typing.get_args(literal[0])] + ["x", "", "None"]
    small = any(word in name for word in BUDGETS)
    if float in kinds:
        return [x for x in REALS if not small or x not in ("1e308", "inf", "1e999")]
    if int in kinds:
        return INTS + ([] if small or rng.random() < 0.5 else LARGE)
    return PATHS + TEXTS if Path in kinds else TEXTS + INTS


def _parts(hint: Any) -> list[Any]:
    """Return a type and the types in it, without the values of literals."""
    inner = () if typing.get_origin(hint) is typing.Literal else typing.get_args(hint)
    return [hint, *(part for kind in inner for part in _parts(kind))]


def _noise(rng: random.Random) -> list[str]:
    words = ["search", "gdas", "train", "eval", "-h", "--help", "--version", "--print-completion", "--out", "x", "0"]
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
    rows = [f"{i},{'abc'[i % 3]},2024-01-{i % 28 + 1:02},{'yes' if i % 5 < 2 else 'no'}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["n,k,t,y", *rows]))
    (folder / "empty.csv").write_text("")
    (folder / "odd.csv").write_bytes(bytes(range(256)))
    ends = np.arange(8) == 7
    episode = RecordedEpisode(np.zeros((9, 4), np.float32), np.arange(8) % 2, np.ones(8), ends, ends & False)
    write_episodes(folder / "episodes.npz", [episode, episode], "CartPole-v1")
