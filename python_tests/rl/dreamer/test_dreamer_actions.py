"""The action distributions of Dreamer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
import gymnasium
from gymnasium import spaces

from automl_ext.rl.dreamer.actions import actions_of
from automl_ext.training.errors import UserError


@pytest.mark.parametrize(
    "space", [spaces.MultiDiscrete([2, 2]), spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(0, 3, (1,), np.int64)]
)
def test_unsupported_action_spaces_are_refused(space: gymnasium.Space) -> None:
    with pytest.raises(UserError, match="dreamer takes Discrete and bounded Box"):
        actions_of(space)


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        (spaces.Discrete(3, start=4), [[0, 0, 1], [1, 0, 0]], [6, 4]),
        (spaces.Box(np.float32([-2, 0]), np.float32([2, 1])), [[0, 0], [1, -1]], [[0, 0.5], [2, 0]]),
    ],
)
def test_actions_are_mapped_to_the_action_space(space: gymnasium.Space, actions: list, expected: list) -> None:
    distribution = actions_of(space)
    to_env = distribution.to_env(torch.tensor(actions, dtype=torch.float32))
    assert to_env.tolist() == expected
    assert all(space.contains(a) for a in to_env)
    random = distribution.random(50, torch.Generator().manual_seed(0))
    assert all(space.contains(a) for a in distribution.to_env(random))
    noisy = distribution.explore(random, 0.5, torch.Generator().manual_seed(0))
    assert (noisy != random).any(1).any()
    assert all(space.contains(a) for a in distribution.to_env(noisy))
