"""Train agents and search architectures on the device of tagged_device.py. Prints a JSON line per case.

python tagged_cases.py [CASE …]
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tagged_device
import torch
from dreamer_worlds import SIZES, PointOnLine
from image_worlds import Spot

import automl_ext
from automl_ext import rl
from automl_ext.nas.data import prepare
from automl_ext.nas.spaces import registry
from automl_ext.nas.supernets.darts import DARTSConfig
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.loop import SupernetSearch
from automl_ext.nas.supernets.perturbation import PerturbationConfig
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.retrain import RetrainConfig, retrain
from automl_ext.training.errors import UserError

Counts = dict[str, Any]
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
SMALL = {"subset": 60, "channels": 2, "epochs": 2, "batch_size": 9, "device": "cuda"}


def agent(algorithm: str, env: Any = "CartPole-v1", iterations: int = 1, **options: Any) -> Counts:
    """Train an agent; its state must survive a round trip."""
    return iterated(rl.make(algorithm, env, device="cuda", **options), iterations)


def iterated(learner: Any, iterations: int) -> Counts:
    learner.iterate()
    tagged_device.take_counts()
    steps, updates = learner.envs.steps, getattr(learner, "updates", 0) or 0
    for _ in range(iterations):
        learner.iterate()
    counts: Counts = tagged_device.take_counts()
    counts |= {"steps": learner.envs.steps - steps, "updates": (getattr(learner, "updates", 0) or 0) - updates}
    state = copy.deepcopy(learner.state_dict())
    learner.load_state_dict(state)
    learner.load_policy_state(copy.deepcopy(learner.policy_state()))
    learner.iterate()
    tagged_device.take_counts()
    return counts


def offline(algorithm: str) -> Counts:
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.standard_normal((11, 4)).astype(np.float32),
            "actions": rng.integers(2, size=10),
            "rewards": np.ones(10, np.float32),
            "terminations": np.arange(10) == 9,
            "truncations": np.zeros(10, bool),
        }
        for _ in range(4)
    ]
    learner = rl.make(algorithm, "CartPole-v1", device="cuda", hidden=(8,), batch_size=8, eval_every=20)
    learner.set_episodes(episodes)
    return iterated(learner, 1)


def dreamer(images: bool) -> Counts:
    with automl_ext.backend("reference"):  # PyTorch's fused GRU cell has no kernel for the emulated device
        return agent("dreamer", lambda: PointOnLine(True, images), 2, **DREAMER)


def search(config: Any) -> Counts:
    """Search and derive; then count the copies of one epoch of a search."""
    with tempfile.TemporaryDirectory() as folder:
        search_supernet(config, Path(folder) / "run")
    config, splits = prepare(config, None)
    return second_epoch(SupernetSearch(config, registry.space(config.space), splits, tagged_device.DEVICE))


def trained(**options: Any) -> Counts:
    """Train a network; then count the copies of one epoch of a training."""
    config = RetrainConfig(**(SMALL | {"genotype": CELL} | options))
    with tempfile.TemporaryDirectory() as folder:
        retrain(config, Path(folder) / "run")
    config, splits = prepare(config, None)
    space = registry.space(config.space)
    return second_epoch(NetworkTraining(config, space, space.parse(CELL), splits, tagged_device.DEVICE))


def second_epoch(job: Any) -> Counts:
    job.run_epoch()
    before = job.state_dict()
    tagged_device.take_counts()
    job.run_epoch()
    counts = tagged_device.take_counts()
    job.load_state_dict(before)
    return counts | {"steps": 2 if isinstance(job, SupernetSearch) else 5}


def refused_a3c() -> Counts:
    with pytest.raises(UserError, match="expected cpu and rmsprop for A3C, got 'cuda'"):
        rl.make("a3c", "CartPole-v1", device="cuda")
    return tagged_device.take_counts()


RETRAINED = {"retrain_epochs": 1, "retrain_channels": 2}
VECTORS: dict[str, Any] = {"hidden": (8,), "n_envs": 2}
POLICY: dict[str, Any] = VECTORS | {"n_steps": 8}
REPLAY: dict[str, Any] = VECTORS | {"learning_starts": 20, "batch_size": 8, "buffer_size": 200, "train_freq": 4}
TEAMS: dict[str, Any] = VECTORS | {"learning_starts": 20, "batch_size": 8}
DREAMER: dict[str, Any] = SIZES | {"prefill": 20, "pretrain": 1, "train_every": 10, "batch_size": 3, "n_envs": 2}
DREAMER |= {"sequence_length": 5, "horizon": 3}
IMAGES: dict[str, Any] = {"hidden": (16,)}
TEAM = "pettingzoo/automl_ext.rl.envs.two_step"
CASES: dict[str, Callable[[], Counts]] = {
    "reinforce": lambda: agent("reinforce", **VECTORS),
    "a2c": lambda: agent("a2c", **POLICY, optimizer="rmsprop"),
    "a3c": refused_a3c,
    "ppo": lambda: agent("ppo", "Pendulum-v1", **POLICY, normalize_observations=True, value_clip=0.2, target_kl=0.01),
    "ppo-popart": lambda: agent("ppo", **POLICY, popart=True),
    "ppo-images": lambda: agent("ppo", Spot, **POLICY | IMAGES),
    "dqn": lambda: agent("dqn", **REPLAY, iterations=8),
    "dqn-images": lambda: agent("dqn", Spot, **REPLAY | IMAGES, iterations=8),
    "rainbow": lambda: agent("rainbow", **REPLAY, iterations=8),
    "vdn": lambda: agent("vdn", TEAM, **TEAMS, iterations=8),
    "qmix": lambda: agent("qmix", TEAM, **TEAMS, iterations=8),
    "bc": lambda: offline("bc"),
    "cql": lambda: offline("cql"),
    "iql": lambda: offline("iql"),
    "dreamer": lambda: dreamer(images=False),
    "dreamer-images": lambda: dreamer(images=True),
    "gdas": lambda: search(GDASConfig(**SMALL, **RETRAINED)),
    "gdas-nb201": lambda: search(GDASConfig(**SMALL, **RETRAINED, form="nb201")),
    "gdas-bfloat16": lambda: search(GDASConfig(**SMALL, **RETRAINED, bfloat16=True)),
    "entmax-gdas": lambda: search(EntmaxGDASConfig(**SMALL, **RETRAINED)),
    "darts": lambda: search(DARTSConfig(**SMALL, **RETRAINED)),
    "perturbation": lambda: search(PerturbationConfig(**SMALL, **RETRAINED, orders=1)),
    "retrain": lambda: trained(drop_path=0.2, cutout=2, cutmix=1.0, flip=True),
    "retrain-bfloat16": lambda: trained(bfloat16=True),
}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    tagged_device.install()
    for name in names or CASES:
        try:
            line: Counts = CASES[name]()
        except Exception:
            line = {"error": traceback.format_exc(limit=-8)}
            tagged_device.take_counts()
        print(json.dumps({"case": name, **line}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
