"""The defaults against late collapse: the learning rate falls to 0; the presets keep the settings of their papers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("gymnasium")
from dqn_worlds import Fork, small
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from automl_ext.rl import DQN, DQNConfig, RainbowConfig
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.presets import preset


def agent(config: DQNConfig) -> DQN:
    makers = [Fork for _ in range(4)]
    return DQN(config, Envs(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP), 0))


@pytest.mark.parametrize("decay", [False, True])
def test_learning_rate_falls_linearly_to_0_at_the_last_step(decay: bool) -> None:
    learning = agent(small(total_steps=800, lr=0.01, lr_decay=decay))
    group = learning.optimizer.param_groups[0]
    while learning.envs.steps < 800:
        learning.iterate()
        if learning.envs.steps > 200:
            assert group["lr"] == pytest.approx(0.01 * (1 - learning.envs.steps / 800) if decay else 0.01)
    weights = learning.parameters.detach().clone()
    learning.iterate()
    assert torch.equal(weights, learning.parameters) == decay
    learning.set_total_steps(1_000)  # a longer training goes on with a positive rate
    learning.iterate()
    assert not torch.equal(weights, learning.parameters)


def test_presets_and_rainbow_keep_the_targets_and_the_rate_of_their_papers() -> None:
    assert (DQNConfig().n_step, DQNConfig().lr_decay) == (5, True)
    assert (RainbowConfig().n_step, RainbowConfig().lr_decay) == (3, False)
    for name in ("minatar", "atari"):
        assert (preset(name, DQNConfig()).n_step, preset(name, RainbowConfig()).n_step) == (1, 3)
        assert not preset(name, DQNConfig()).lr_decay
        assert not preset(name, RainbowConfig()).lr_decay
