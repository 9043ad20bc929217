"""Train a toy in a process of its own, kill -9 it at random moments, resume: ``training_killed.py FOLDER``.

The first run, in FOLDER/0, is left alone. torch is imported once and the toy forked, so that a start costs
milliseconds.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import torch._dynamo  # the optimisers load it, which takes a second: once, before the forks

from automl_ext.nas.training.batches import epoch_batches
from automl_ext.training.run import Run
from automl_ext.training.seeding import (
    generator,
    numpy_generator_state,
    rng_state,
    seed_everything,
    set_numpy_generator_state,
    set_rng_state,
)

with contextlib.suppress(ImportError):
    importlib.import_module("torch.utils.tensorboard")


@dataclass
class Config:
    epochs: int = 25
    batch_size: int = 16
    seed: int = 3


def toy(out, config):
    """All objects with a state: parameters, optimizer, scheduler and five kinds of generators."""
    seed_everything(config.seed)
    rng = numpy.random.default_rng(config.seed)
    x = torch.randn(100, 8, generator=generator(1))
    y = x.sin().sum(1, keepdim=True)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    order = generator(config.seed)
    with Run.open(out, config, algorithm="toy", resume="auto") as run:
        if run.state is not None:
            (out / "resumed").write_text(str(run.step))
            for name, part in [("model", model), ("optimizer", optimizer), ("scheduler", scheduler)]:
                part.load_state_dict(run.state[name])
            order.set_state(run.state["order"])
            set_numpy_generator_state(rng, run.state["numpy"])
            set_rng_state(run.state["rng"])
        loss = torch.zeros(())
        for epoch in run.progress(config.epochs, "toy"):
            for index in epoch_batches(len(x), config.batch_size, order):
                noise = rng.normal() + random.random() + numpy.random.random()
                loss = ((model(x[index]) - y[index]) ** 2).mean() * (1 + 0.1 * noise)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            scheduler.step()
            run.log(epoch + 1, loss=loss, lr=scheduler.get_last_lr()[0])
            run.save(
                epoch + 1,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "order": order.get_state(),
                    "numpy": numpy_generator_state(rng),
                    "rng": rng_state(),
                },
            )
        run.finish({"weights": [p.detach().double().flatten().tolist() for p in model.parameters()]})


def start(out):
    child = os.fork()
    if child == 0:
        try:
            toy(out, Config())
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def finished(child, seconds):
    """Return whether the child ends within ``seconds``; its exit code must be 0."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            if status:
                sys.exit(f"the toy failed with status {status}")
            return True
        time.sleep(0.001)
    return False


def main(folder):
    began = time.monotonic()
    if not finished(start(folder / "0"), 60):
        sys.exit("the toy takes too long")
    whole = time.monotonic() - began
    moments = random.Random(0)
    kills = resumed = number = 0
    while kills < 10 or (resumed < 5 and kills < 100):  # where a start takes long, most kills come before a resume
        number += 1
        out = folder / str(number)
        while True:
            child = start(out)
            # The longest grows, so that a slow start cannot keep a run from ever getting ahead.
            if finished(child, moments.uniform(0, whole * (0.4 + 0.05 * kills))):
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            resumed += (out / "resumed").exists()
            (out / "resumed").unlink(missing_ok=True)
    print(json.dumps({"kills": kills, "resumed": resumed}))


main(Path(sys.argv[1]))
