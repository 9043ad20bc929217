"""A toy run that the tests of the run directory share."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from automl_ext.training.run import Run


@dataclass(frozen=True)
class Optimizer:
    lr: float = 0.025
    clip: float = math.inf


@dataclass(frozen=True)
class Config:
    epochs: int = 4
    where: Path = Path("data")
    betas: tuple[float, float] = (0.5, 0.999)
    optimizer: Optimizer = field(default_factory=Optimizer)


def make(out, config=None, *, resume=None, algorithm="toy"):
    return Run.open(out, config or Config(), algorithm=algorithm, resume=resume)


def train(out, steps=3):
    """A run that logs and saves after each of ``steps`` steps; returns the checkpoints that are left."""
    with make(out) as run:
        for step in range(1, steps + 1):
            run.log(step, loss=1 / step)
            run.save(step, {"w": torch.full((3,), float(step))})
    return sorted((out / "checkpoints").iterdir())


def logged(out):
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def flip(path, at=None):
    """Flip one bit, in the middle or in byte ``at``."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)
