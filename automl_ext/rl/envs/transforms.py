"""The order of the transforms of steps."""

from __future__ import annotations

from typing import Any

from automl_ext.rl.envs.reward_scale import RewardScale
from automl_ext.rl.envs.vector import StepTransform


def add_transform(envs: Any, transform: StepTransform) -> None:
    """Apply ``transform`` after the transforms that the environments have, but before one that divides rewards.

    So the rewards of bonuses and costs are divided, too.
    """
    envs.transforms.append(transform)
    envs.transforms.sort(key=lambda part: isinstance(part, RewardScale))
