"""Runs that one process and several ranks must do alike: ``rank_jobs.py OUT JOB…`` runs jobs one after the other.

torchrun starts this script, or :func:`start_ranks`, which costs less.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from automl_ext.cli import main
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.synced_norm import batch_norm
from automl_ext.training import ranks

ROOT = Path(__file__).parents[2]
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
IMAGES = ["--subset", "150", "--batch-size", "15", "--epochs", "2", "--channels", "4", "--flip"]
# A small learning rate of the weights, because training amplifies the differences of rounding.
RATES = ["--lr", "0.1", "--lr-min", "0.001", "--alpha-lr", "0.03", "--alpha-weight-decay", "1e-3", "--none"]
SEARCH = [*IMAGES, *RATES, "--retrain-epochs", "1", "--retrain-channels", "4"]
WEIGHTS = ["--class-weights", "1", "2", "1", "1", "1", "1", "1", "3", "1", "1"]
JOBS = {
    "retrain": ["retrain", "--genotype", CELL, *IMAGES, *WEIGHTS, "--cutout", "2"],
    "darts-cell": ["search", "gdas", "--space", "darts", *SEARCH, "--warmup", "0", "--batch-size", "60"],
    "gdas": ["search", "gdas", *SEARCH, *WEIGHTS],
    "entmax-gdas": ["search", "entmax-gdas", *SEARCH, "--warmup", "0"],
    "darts": ["search", "darts", *SEARCH, "--warmup", "0.5"],
}
KILLED = ["retrain", "--genotype", CELL, *IMAGES, "--epochs", "6"]


def run(out: Path, job: str) -> int:
    return main([*JOBS[job], "--out", str(out / job)])


def norm_error() -> float:
    """Return the largest difference of a batch norm whose batch is divided, and of its gradients, in float64."""
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 10
    target = x.sin()
    found = []
    for divided in (True, False):
        own = ranks.part(5) if divided else slice(None)
        part = x[own].clone().requires_grad_()
        weight, bias = (torch.full((3,), v, dtype=torch.float64, requires_grad=True) for v in (1.5, 0.5))
        mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        norm = batch_norm if divided else F.batch_norm
        y = norm(part, mean, var, weight, bias, True, 0.1, 1e-5)
        (y * target[own]).sum().backward()
        gradient, y = part.grad, y.detach()
        if divided:
            ranks.add_up_gradients([weight, bias])
            gradient, y = ranks.gather(gradient, 5), ranks.gather(y, 5)
        found.append([y, gradient, weight.grad, bias.grad, mean, var])
    return max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))


def die_at(epoch: int) -> None:
    """Make rank 1 kill itself at the start of an epoch, counted from 0, unless torchrun has restarted it."""
    run_epoch = NetworkTraining.run_epoch

    def fatal(self: NetworkTraining) -> dict[str, float]:
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if ranks.rank() == 1 and first and self.epoch == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return run_epoch(self)

    NetworkTraining.run_epoch = fatal


def start_ranks(*arguments: object, count: int = 2) -> list[subprocess.Popen]:
    """Start this script as torchrun would, without its own process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
    }
    return [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for job in sys.argv[2:]:
        if job == "norm":
            ranks.join()
            error = norm_error()
            if ranks.rank() == 0:
                (out / "norm.json").write_text(json.dumps(error))
        elif job == "killed":
            die_at(epoch=1)
            began = time.monotonic()
            code = main([*KILLED, "--out", str(out / "killed")])
            (out / "killed.json").write_text(json.dumps([code, time.monotonic() - began]))
        elif job == "restarted":
            die_at(epoch=3)
            sys.exit(main([*KILLED, "--out", str(out / "restarted"), "--resume", "auto"]))
        elif job == "undisturbed":
            assert main([*KILLED, "--out", str(out / "undisturbed")]) == 0
        else:
            assert run(out, job) == 0, job
