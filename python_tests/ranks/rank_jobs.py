"""What two ranks do in the tests: ``rank_jobs.py OUT JOB…`` does jobs one after the other, on each rank.

torchrun starts this script, or :func:`start_ranks`, which costs less. Rank R passes ``--out OUT/rankR/JOB``.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from automl_ext.cli import main
from automl_ext.data.images import Split
from automl_ext.nas.data import prepare
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.supernets.darts import DARTS, DARTSConfig
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDAS, EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDAS, GDASConfig
from automl_ext.nas.supernets.loop import build_supernet
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.retrain import RetrainConfig
from automl_ext.training import ranks

ROOT = Path(__file__).parents[2]
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|none~2|"  # the convolutions lead nowhere
IMAGES = ["--subset", "150", "--batch-size", "16", "--epochs", "2", "--channels", "2", "--device", "cpu"]
SEARCH = [*IMAGES, "--retrain-epochs", "1", "--retrain-channels", "2"]
JOBS = {
    "gdas": ["search", "gdas", *SEARCH, "--warmup", "0"],
    "perturbation": ["search", "perturbation", *SEARCH, "--orders", "1"],
    "retrain": ["retrain", "--genotype", CELL, *IMAGES, "--epochs", "4"],
}
STOPS = {"gdas": 1, "perturbation": 4, "retrain": 2}  # epochs; the second is in the derivation
STEPS = {
    "gdas": (GDAS, GDASConfig, (5.0,)),
    "entmax-gdas": (EntmaxGDAS, EntmaxGDASConfig, (5.0,)),
    "darts": (DARTS, DARTSConfig, ()),
}


def gradient_error(name: str) -> float:
    """Return the largest difference of the gradients of both steps from those of one process with the whole batch.

    Batch norm uses running statistics, because those of a part are not those of the batch.
    """
    make, config, tau = STEPS[name]
    torch.manual_seed(0)
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    shape = {"in_channels": 1, "num_classes": 3, "channels": 4, "cells": 1}
    supernet = build_supernet(NASBench201(), shape, config()).eval()
    found = []
    for net, own in ((copy.deepcopy(supernet), ranks.part(8)), (supernet, slice(None))):
        algorithm = make(config(grad_clip=1e9), net, None, None, torch.Generator().manual_seed(0))
        if own == slice(None):
            algorithm.network = net
        batch = Split(images[own], labels[own])
        algorithm.weight_step(batch, *tau)
        gradients = [p.grad for p in net.weights()]
        algorithm.alpha_step(batch, *tau)
        found.append([*gradients, *(alpha.grad for alpha in net.alphas)])
    assert [x is None for x in found[0]] == [x is None for x in found[1]]
    return max(float((a - b).abs().max()) for a, b in zip(*found, strict=True) if a is not None)


def train_an_epoch() -> nn.Module:
    config, splits = prepare(
        RetrainConfig(genotype=CELL, subset=150, batch_size=16, channels=2, shift=1, flip=True), None
    )
    space = NASBench201()
    training = NetworkTraining(config, space, space.parse(CELL), splits, torch.device("cpu"))
    training.run_epoch()
    return training.network


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


def do(job: str, out: Path) -> None:
    kind, _, name = job.partition(":")
    if kind == "steps":
        (out / "errors.json").write_text(json.dumps({name: gradient_error(name) for name in STEPS}))
        torch.save(train_an_epoch().state_dict(), out / "network.pt")
    elif kind == "whole":
        assert main([*JOBS[name], "--out", str(out / name)]) == 0
    elif kind == "halves":
        command = [*JOBS[name], "--out", str(out / f"{name}-halves")]
        assert main([*command, "--stop-after", str(STOPS[name])]) == 0
        assert main([*command, "--resume", "auto"]) == 0
    elif kind == "killed":
        die_at(epoch=1)
        began = time.monotonic()
        code = main([*JOBS["retrain"], "--out", str(out / "killed")])
        (out / "killed.json").write_text(json.dumps([code, time.monotonic() - began]))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if sys.argv[2] == "restarted":
        die_at(epoch=3)
        sys.exit(main([*JOBS["retrain"], "--out", str(folder / "restarted"), "--resume", "auto"]))
    ranks.join()
    folder = folder / f"rank{ranks.rank()}"
    folder.mkdir()
    for job in sys.argv[2:]:
        do(job, folder)
