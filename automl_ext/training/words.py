"""The names of options in Stable-Baselines3 and CleanRL, for messages about names that do not exist here."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

OURS = {  # their name: ours; names that both have are not here
    # Stable-Baselines3
    "env": "env_id",
    "total_timesteps": "total_steps",
    "n_timesteps": "total_steps",
    "learning_rate": "lr",
    "eval_freq": "eval_every",
    "save_freq": "checkpoint_every",
    "n_eval_episodes": "eval_episodes",
    "tensorboard_log": "out",
    "env_kwargs": "env_kwarg",
    "env_wrapper": "wrapper",
    "net_arch": "hidden",
    "normalize_advantage": "normalize_advantages",
    "clip_range_vf": "value_clip",
    "exploration_final_eps": "final_epsilon",
    "prioritized_replay": "prioritized",
    "n_quantiles": "atoms",
    # CleanRL
    "exp_name": "out",
    "num_envs": "n_envs",
    "num_steps": "n_steps",
    "update_epochs": "n_epochs",
    "minibatch_size": "batch_size",
    "anneal_lr": "lr_decay",
    "norm_adv": "normalize_advantages",
    "clip_coef": "clip_range",
    "clip_vloss": "value_clip",
    "target_network_frequency": "target_update_interval",
    "train_frequency": "train_freq",
    "end_e": "final_epsilon",
    "n_atoms": "atoms",
    "cuda": "device",
}


def our_name(name: str, known: Collection[str]) -> str | None:
    """Return the name among ``known`` that stands for another package's ``name``; None if there is none."""
    ours = OURS.get(name)
    return ours if name not in known and ours in known else None


def hint(name: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the one of ``known`` that is meant, or the nearest one."""
    meant = our_name(name, known) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
    return f"; did you mean {meant}?" if meant else ""


def naming_ours(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function that is called with another package's argument raise a TypeError that names ours."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        for name in options:
            if our_name(name, known):
                raise TypeError(f"{function.__name__}: unexpected argument {name!r}{hint(name, known)}")
        return function(*args, **options)

    return call


def translated(options: dict[str, Any]) -> str:
    """Return ``, lr=0.001`` for the options ``learning_rate=0.001`` of another package; others are left out."""
    return "".join(f", {OURS[name]}={value!r}" for name, value in options.items() if name in OURS and name != "env")
