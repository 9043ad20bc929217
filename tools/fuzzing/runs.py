"""Make small runs, undisturbed and interrupted, and compare a disturbed run with the undisturbed one."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from automl_ext.training.files import checkpoint
from fuzzing.command_lines import prepare_folder
from fuzzing.command_tables import DREAMER, GENOTYPE, STEPS
from fuzzing.process import Done, run

LIMIT = 60.0  # seconds of CPU time
EVALUATIONS = "--eval-every 160 --eval-episodes 2 --final-episodes 2 --checkpoint-every 160"
DIGITS = "--subset 100 --device cpu"
_LINES = {
    "a2c": f"train a2c --total-steps 960 --n-envs 2 --hidden 16 --lr 0.01 {EVALUATIONS}",
    "async": f"train a2c --total-steps 960 --n-envs 2 --vectorization async --hidden 16 {EVALUATIONS}",
    "reinforce": f"train reinforce --total-steps 960 --hidden 16 {EVALUATIONS}",
    "ppo": f"train ppo --total-steps 960 --n-envs 2 --n-steps 32 --batch-size 16 --hidden 16 {EVALUATIONS}",
    "dqn": f"train dqn --total-steps 960 --hidden 16 --batch-size 8 --buffer-size 300 --learning-starts 64"
    f" --train-freq 16 --gradient-steps 4 --prioritized {EVALUATIONS}",
    "dreamer": f"train dreamer {DREAMER} --horizon 3 --total-steps 96 --eval-every 32 --eval-episodes 1"
    " --final-episodes 1 --checkpoint-every 32",
    "gdas": f"search gdas --epochs 4 --channels 2 --retrain-epochs 3 --retrain-channels 2 {DIGITS}",
    "perturbation": "search perturbation --orders 1 --epochs 4 --channels 2 --retrain-epochs 3 --retrain-channels 2"
    f" {DIGITS}",
    "auto": f"search auto --minutes 0.05 --channels 2 --candidates 3 {DIGITS}",
    "retrain": f"retrain --epochs 6 --channels 2 --genotype {GENOTYPE} {DIGITS}",
    "renas": f"search renas --epochs 1 --channels 2 --evaluations 8 --workers 2 --population 4 --sample 2 {DIGITS}",
    "tune": f"tune train a2c --trials 4 --confirm 0 {STEPS}",
    "fit": "fit table.csv --target y --minutes 0.05",
}
KINDS = {name: text.split() for name, text in _LINES.items()}
# Values of --stop-after, used twice, of the runs that can be resumed.
STOP = {name: "320" for name in ("a2c", "async", "reinforce", "ppo", "dqn")} | {"dreamer": "32"}
STOP |= {"gdas": "2", "perturbation": "2", "retrain": "2", "renas": "2", "tune": "1"}
RL = ("a2c", "dqn")
WORKERS = ("async", "renas")  # with worker processes
UNEQUAL = ("async", "auto")  # new episodes start in the workers; choices by the clock
TIMES = ("seconds", "per_second", "times", "best_toml")  # substrings of names of times and paths in result.json
CLOCKS = ("clock", "wall", "cpu", "cost")  # keys of times in a state


@dataclass
class Base:
    """An undisturbed run (``whole``), and the same run interrupted twice, with two checkpoints (``parts``)."""

    kind: str
    whole: Path
    parts: Path
    seconds: float


class Bases:
    """Makes each base run in ``folder`` at its first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Base] = {}

    def __getitem__(self, kind: str) -> Base:
        if kind not in self.made:
            self.made[kind] = self._make(kind)
        return self.made[kind]

    def _make(self, kind: str) -> Base:
        place = self.folder / kind
        prepare_folder(place)
        ways = [["--out", "whole"]]
        if kind in STOP:
            parts = ["--out", "parts", "--stop-after", STOP[kind]]
            ways += [parts, [*parts, "--resume", "auto"]]
        ended = [run([*KINDS[kind], *way], place, LIMIT) for way in ways]
        for done in ended:
            if done.code != 0:
                raise RuntimeError(f"{kind}: an undamaged run fails: {done.code} {done.err[-2000:]}")
        return Base(kind, place / "whole", place / "parts", ended[0].seconds)


def command(kind: str, folder: Path, *, resume: bool = True) -> list[str]:
    """Return the arguments that start, or resume, the run in ``folder/run``."""
    return [*KINDS[kind], "--out", str(folder / "run"), *(("--resume", "auto") if resume else ())]


def resume(kind: str, folder: Path) -> Done:
    """Resume ``folder/run``."""
    return run(command(kind, folder), folder, LIMIT)


def copy(source: Path, folder: Path) -> Path:
    """Copy a run directory to ``folder/run``."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, folder / "run")
    return folder / "run"


def difference(base: Base, found: Path) -> str | None:
    """Return the first difference between the final state of the run in ``found`` and the undisturbed run, or None.

    Runs of ``UNEQUAL`` only need a result.
    """
    if base.kind in UNEQUAL:
        return None if (found / "result.json").exists() else "there is no result"
    a, b = (without_times(json.loads((path / "result.json").read_bytes())) for path in (base.whole, found))
    if a != b:
        return f"the result differs: {_first_difference(a, b)}"
    if base.kind in ("renas", "tune"):  # a black-box search saves checkpoints by time, tune saves trials
        return None
    last, other = (checkpoint.list_steps(path / "checkpoints")[-1] for path in (base.whole, found))
    if last.name != other.name:
        return f"the last checkpoint is {other.name}, not {last.name}"
    states = [torch.load(path / "state.pt", weights_only=True, map_location="cpu") for path in (last, other)]
    where = _unequal(*states, "state")
    return where and f"the final state differs: {where}"


def without_times(value: Any) -> Any:
    """Return a result without its times."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not _is_time(k)}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def _is_time(name: Any) -> bool:
    return any(part in str(name) for part in TIMES)


def _first_difference(a: Any, b: Any) -> str:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return f"{a!r} and {b!r}"[:150]
    return next(f"{k}: {a.get(k)!r} and {b.get(k)!r}"[:150] for k in {**a, **b} if a.get(k) != b.get(k))


def _unequal(a: Any, b: Any, key: str) -> str | None:
    if type(a) is not type(b):
        return f"{key} is {type(b).__name__}, not {type(a).__name__}"
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return f"{key} has other keys"
        pairs = [(name, a[name], b[name]) for name in a if name not in CLOCKS and not _is_time(name)]
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return f"{key} has another length"
        pairs = list(zip(range(len(a)), a, b, strict=True))
    elif isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and _bits(a) == _bits(b)
        return None if same else f"{key} differs"
    else:
        same = a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
        return None if same else f"{key} is {b!r}, not {a!r}"[:150]
    return next((found for name, x, y in pairs if (found := _unequal(x, y, f"{key}[{name!r}]"))), None)


def _bits(x: torch.Tensor) -> bytes:
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else b""
