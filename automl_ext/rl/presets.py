"""Named sets of settings, for ``--preset``."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from automl_ext.training.errors import UserError

Config = TypeVar("Config")

# DQN and Rainbow on MinAtar within 500k frames. Shared, so that a comparison is of the switches: one update of 32 per
# four frames, as in both papers; 5k frames before the first, 100k kept, ε down to 0.1 over 100k (Young and Tian 2019).
# Rewards there are 0 or 1 mostly, never below 0, and discounted returns of what is learned in that time below 10: the
# atoms' range follows. Noisy layers start with a fifth of the paper's noise, which is unlearned over millions of steps:
# these runs have half a million (Freeway after 50k frames, one seed: 29 instead of 7).
PRESETS: dict[str, dict[str, Any]] = {
    "minatar": {
        "env_id": "MinAtar/Breakout-v1",
        "total_steps": 500_000,
        "n_envs": 8,
        "eval_every": 25_000,
        "checkpoint_every": 100_000,
        "hidden": (128,),
        "lr": 2.5e-4,
        "adam_eps": 1.5e-4,
        "batch_size": 32,
        "buffer_size": 100_000,
        "learning_starts": 5_000,
        "train_freq": 8,
        "gradient_steps": 2,
        "target_update_interval": 1_000,
        "exploration_fraction": 0.2,
        "final_epsilon": 0.1,
        "v_min": 0.0,
        "v_max": 10.0,
        "sigma": 0.1,
    },
}


def preset(name: str, config: Config) -> Config:
    """The configuration with the preset's values.

    Raises:
        UserError: no preset of that name.
    """
    if name not in PRESETS:
        raise UserError(f"--preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return dataclasses.replace(config, **PRESETS[name])  # type: ignore[type-var]
