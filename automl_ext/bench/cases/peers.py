"""Other packages that compute the same outputs, if they are installed (extra ``bench``)."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.bench.cases.case import Peer, plain

PACKAGES = {
    "entmax": "entmax",
    "stable-baselines3": "stable_baselines3.common.buffers",
    "torchrl": "torchrl.objectives.value.functional",
    "tianshou": "tianshou.data",
}
INSTALL = 'pip install "automl_ext[bench]"'


def load() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the modules by package, and the reason for each package that cannot be measured."""
    modules, skipped = {}, {}
    for name, module in PACKAGES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                modules[name] = importlib.import_module(module)
        except ModuleNotFoundError as error:
            skipped[name] = f"not installed (no module {error.name!r}): {INSTALL}"
        except Exception as error:  # a package built for another torch may raise any exception
            skipped[name] = f"cannot be imported: {type(error).__name__}: {error}".splitlines()[0]
    return modules, skipped


def versions(modules: dict[str, Any]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in modules}


def entmax_peers(modules: dict[str, Any], op: str, **options: float) -> dict[str, Peer]:
    if "entmax" not in modules:
        return {}
    function = getattr(modules["entmax"], op)
    return {"entmax": Peer(plain(lambda x: function(x, dim=-1, **options)), trained=True)}


def gae_peers(modules: dict[str, Any], gamma: float, lam: float, dtype: torch.dtype, device: str) -> dict[str, Peer]:
    peers = {}
    if "stable-baselines3" in modules and dtype == torch.float32 and device == "cpu":  # its buffer is numpy's, float32
        buffer_class = modules["stable-baselines3"].RolloutBuffer
        peers["stable-baselines3"] = Peer(lambda tensors: rollout_buffer(buffer_class, tensors, gamma, lam), False)
    return peers | torchrl_peers(
        modules,
        "generalized_advantage_estimate",
        lambda function, r, v, w, e, u: function(gamma, lam, v, w, r, e | u, e, time_dim=0),
    )


def return_peers(modules: dict[str, Any], gamma: float, lam: float, dtype: torch.dtype, device: str) -> dict[str, Peer]:
    """Return the peers of λ-returns; with λ = 1, of discounted returns."""
    peers = {}
    if dtype == torch.float32 and device == "cpu":
        peers["numpy"] = Peer(lambda tensors: numpy_loop(tensors, gamma, lam), trained=False)
    return peers | torchrl_peers(
        modules,
        "td_lambda_return_estimate",
        lambda function, r, w, e, u: function(gamma, lam, w, r, e | u, e, time_dim=0),
    )


def torchrl_peers(modules: dict[str, Any], name: str, call: Callable) -> dict[str, Peer]:
    """Return torchrl's loop over time and its vectorized form; call(function, *tensors) computes the outputs."""
    if "torchrl" not in modules:
        return {}
    functions = {"torchrl": name, "torchrl vec": f"vec_{name}"}
    return {
        short: Peer(plain(partial(call, getattr(modules["torchrl"], full))), trained=False)
        for short, full in functions.items()
    }


def numpy_loop(tensors: Sequence[Tensor], gamma: float, lam: float) -> Callable[[], Any]:
    """Return a loop over time in NumPy: G = r + γ (V′ + λ (G′ − V′)), without γ (…) after a termination."""
    rewards, values, terminated, truncated = (x.numpy() for x in tensors)

    def run() -> Any:
        out, after = np.empty_like(rewards), values[-1]
        alive, on = gamma * (1.0 - terminated.astype(np.float32)), lam * (1.0 - truncated.astype(np.float32))
        for t in reversed(range(len(rewards))):
            after = out[t] = rewards[t] + alive[t] * (values[t] + on[t] * (after - values[t]))
        return out

    return run


def rollout_buffer(buffer_class: Any, tensors: Sequence[Tensor], gamma: float, lam: float) -> Callable[[], Any]:
    """Return a call on Stable-Baselines3's buffer, filled as its collector does.

    γV(final observation) is added to the reward of a truncated step.
    """
    from gymnasium.spaces import Box

    rewards, values, next_values, terminated, truncated = tensors
    steps, envs = rewards.shape
    space = Box(-1, 1, (1,))
    buffer = buffer_class(steps, space, space, device="cpu", gae_lambda=lam, gamma=gamma, n_envs=envs)
    done = terminated | truncated
    buffer.rewards[:] = (rewards + gamma * next_values * (truncated & ~terminated)).numpy()
    buffer.values[:] = values.numpy()
    buffer.episode_starts[1:] = done[:-1].numpy()
    last_values, last_done = next_values[-1].clone(), done[-1].numpy()

    def run() -> tuple[Any, Any]:
        buffer.compute_returns_and_advantage(last_values, last_done)
        return buffer.advantages, buffer.returns

    return run
