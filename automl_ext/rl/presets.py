"""Named sets of option values by algorithm, for ``--preset``."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

from automl_ext.rl.envs.making import EnvOptions
from automl_ext.training.errors import UserError

Config = TypeVar("Config")

ATARI = EnvOptions(reward_clip=1.0, terminal_on_life_loss=True)  # by default, Atari stacks and repeats four frames

# DQN and Rainbow on MinAtar with 500k frames. Both have the same settings, so that a comparison isolates the parts
# of Rainbow. As in both papers, there is one update with batch size 32 per four frames. As in Young and Tian 2019,
# the first update follows after 5k frames, the replay has 100k transitions, and ε falls to 0.1 over 100k frames.
# Rewards are at least 0 and mostly 0 or 1. The discounted returns that agents reach in 500k frames are below 10,
# hence the range of the atoms. Noisy layers start with a fifth of the paper's noise, since agents need millions of
# steps to reduce the paper's noise.
MINATAR: dict[str, Any] = {
    "env_id": "MinAtar/Breakout-v1",
    "total_steps": 500_000,
    "n_envs": 8,
    "eval_every": 25_000,
    "checkpoint_every": 100_000,
    "hidden": (128,),
    "lr": 2.5e-4,
    "lr_decay": False,
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
}

# Hessel et al. 2018, table 1, for DQN and Rainbow. The range of the atoms fits rewards clipped to ±1.
ATARI_Q: dict[str, Any] = {
    "env_id": "ALE/Pong-v5",
    "env": ATARI,
    "total_steps": 2_500_000,
    "eval_every": 50_000,
    "checkpoint_every": 250_000,
    "hidden": (1024,),
    "lr": 6.25e-5,
    "lr_decay": False,
    "adam_eps": 1.5e-4,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 20_000,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 8_000,
    "exploration_fraction": 0.1,
    "final_epsilon": 0.01,
    "v_min": -10.0,
    "v_max": 10.0,
}

# Mnih et al. 2015, extended data table 1. Its frames are counted as in the authors' code: a step is four frames.
MNIH2015: dict[str, Any] = {
    "env_id": "ALE/Pong-v5",
    "env": ATARI,
    "total_steps": 12_500_000,
    "eval_every": 250_000,
    "checkpoint_every": 250_000,
    "hidden": (512,),
    "optimizer": "rmsprop",
    "lr": 2.5e-4,
    "lr_decay": False,
    "max_grad_norm": math.inf,
    "gamma": 0.99,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 50_000,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 10_000,
    "exploration_fraction": 0.08,
    "final_epsilon": 0.1,
}

MUJOCO: dict[str, Any] = {
    "total_steps": 300_000,
    "eval_every": 30_000,
    "normalize_observations": True,
    "lr": 3e-4,
    "ent_coef": 0.0,
}

# PPO on Atari as in Schulman et al. 2017, table 5, with 4 epochs and a value weight of 0.5 as in the authors' code, but
# for 1,500,000 steps (6 million frames) instead of 10 million, with twice the first learning rate and a constant clip
# range. Actions of evaluations are sampled, as in the paper: the most probable ones may repeat a loop without end.
ATARI_PPO: dict[str, Any] = {
    "env_id": "ALE/Pong-v5",
    "env": ATARI,
    "total_steps": 1_500_000,
    "n_envs": 8,
    "eval_every": 100_000,
    "eval_sample": True,
    "checkpoint_every": 100_000,
    "hidden": (512,),
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.1,
    "lr": 5e-4,
    "lr_decay": True,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "normalize_rewards": False,
}

PPO: dict[str, dict[str, Any]] = {
    # PPO on CartPole-v1 as in Stable-Baselines3's zoo.
    "cartpole-zoo": {
        "n_steps": 32,
        "batch_size": 256,
        "n_epochs": 20,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "clip_range": 0.2,
        "clip_decay": True,
        "lr": 1e-3,
        "lr_decay": True,
        "ent_coef": 0.0,
        "normalize_rewards": False,
    },
    # PPO on LunarLander-v3 as in Stable-Baselines3's zoo.
    "lunarlander": {
        "env_id": "LunarLander-v3",
        "total_steps": 1_000_000,
        "n_envs": 16,
        "eval_every": 50_000,
        "eval_episodes": 20,
        "final_episodes": 100,
        "checkpoint_every": 200_000,
        "n_steps": 1024,
        "batch_size": 64,
        "n_epochs": 4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "ent_coef": 0.01,
        "lr": 3e-4,
        "lr_decay": False,
        "clip_decay": False,
        "normalize_rewards": False,
    },
    # PPO on MuJoCo in 300,000 steps: the defaults, but for normalized observations, a lower rate and no entropy bonus.
    # docs/results/papers.md has their returns after 1,000,000 steps. Walker2d has the settings of Hopper.
    # HalfCheetah needs small first actions: with a standard deviation of 1, it ended at 1,201, 1,243 and 1,492.
    "hopper": MUJOCO | {"env_id": "Hopper-v5"},
    "walker2d": MUJOCO | {"env_id": "Walker2d-v5"},
    "halfcheetah": MUJOCO | {"env_id": "HalfCheetah-v5", "gamma": 0.98, "gae_lambda": 0.92, "initial_std": 0.135},
    "atari": ATARI_PPO,
}

DREAMER: dict[str, dict[str, Any]] = {
    # Dreamer on 64 × 64 images on a CPU, with a quarter of the paper's channels.
    "pixels": {
        "env": EnvOptions(pixels=True),
        "eval_every": 2_500,  # drawing the images of an evaluation takes as long as a hundred updates
        "prefill": 1_000,
        "pretrain": 300,
        "batch_size": 8,
        "sequence_length": 16,
        "depth": 8,
        "observation_std": 3.0,
    },
    # Dreamer as in Hafner et al. 2020, appendix A. Settings that are not in the appendix are from the authors' code.
    "paper": {
        "env": EnvOptions(pixels=True, action_repeat=2),
        "total_steps": 2_500_000,
        "eval_every": 5_000,
        "checkpoint_every": 50_000,
        "prefill": 2_500,
        "pretrain": 100,
        "train_every": 500,
        "updates_each": 100,
        "batch_size": 50,
        "sequence_length": 50,
        "horizon": 15,
        "deter": 200,
        "stoch": 30,
        "hidden": 200,
        "units": 400,
        "depth": 32,
        "reward_layers": 2,
        "value_layers": 3,
        "actor_layers": 4,
        "continue_layers": 3,
        "free_nats": 3.0,
        "continue_scale": 0.0,
        "entropy_scale": 0.0,
        "model_lr": 6e-4,
        "actor_lr": 8e-5,
        "value_lr": 8e-5,
        "exploration": 0.3,
        "normalize_images": False,
        "initialization": "keras",
        "mode_samples": 100,
    },
}

PLAIN_DQN: dict[str, Any] = {"n_step": 1, "layer_norm": False}  # as in its paper; Rainbow keeps its three steps

# By the name of the configuration.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "DQNConfig": {"minatar": MINATAR | PLAIN_DQN, "atari": ATARI_Q | PLAIN_DQN, "mnih2015": MNIH2015 | PLAIN_DQN},
    "RainbowConfig": {"minatar": MINATAR, "atari": ATARI_Q},
    "PPOConfig": PPO,
    "DreamerConfig": DREAMER,
}


def preset(name: str, config: Config) -> Config:
    """Return the configuration with the values of a preset.

    Raises:
        UserError: the algorithm has no preset of this name.
    """
    own = PRESETS.get(type(config).__name__, {})
    if name not in own:
        raise UserError(f"--preset: expected {'one of ' + ', '.join(own) if own else 'none'}, got {name!r}")
    return dataclasses.replace(config, **own[name])  # type: ignore[type-var]
