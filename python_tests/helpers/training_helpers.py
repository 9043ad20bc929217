"""Helpers of the tests of training: a toy run, and a check that a data set is refused."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from automl_ext.data.images import load_images, split_images
from automl_ext.training.errors import UserError
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


def make(out, config=None, *, resume=None, algorithm="toy", load=None):
    more = {} if load is None else {"load": load}
    return Run.open(out, config or Config(), algorithm=algorithm, resume=resume, **more)


def train(out, steps=3):
    """Run ``steps`` steps with a log and a checkpoint after each. Return the checkpoints that are left."""
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


def refused(spec, *texts, subset=None):
    """Check that a data set is refused in one line that contains all the texts."""
    with pytest.raises(UserError) as caught:
        split_images(load_images(spec, subset=subset))
    message = str(caught.value)
    assert "\n" not in message
    for text in texts:
        assert str(text) in message, message
