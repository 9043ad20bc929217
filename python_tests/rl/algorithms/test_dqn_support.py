"""C51's support: the defaults suit CartPole-v1, and returns outside the support cause one warning."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip("gymnasium")
from dqn_worlds import small
from gymnasium.vector import AutoresetMode
from policy_worlds import Forever, envs_in

from automl_ext.rl import DQN, DQNConfig, RainbowConfig
from automl_ext.rl.presets import preset
from automl_ext.rl.reports.ablation import variants


def configurations() -> list[DQNConfig]:
    return [DQNConfig(distributional=True), RainbowConfig(), *variants(DQNConfig()).values()]


def test_default_support_contains_all_returns_of_cartpole() -> None:
    for config in configurations():
        assert config.env_id == "CartPole-v1"
        longest = (1 - config.gamma**500) / (1 - config.gamma)
        assert config.v_min <= 0 < longest <= config.v_max <= 1.1 * longest


def test_atari_preset_has_the_support_of_the_paper_and_clipped_rewards() -> None:
    for base in (DQNConfig(), RainbowConfig()):
        config = preset("atari", base)
        assert (config.v_min, config.v_max, config.env.reward_clip) == (-10, 10, 1)
        assert config.env_id.startswith("ALE/")
    paper = preset("atari", RainbowConfig())
    assert (paper.lr, paper.adam_eps, paper.target_update_interval, paper.learning_starts) == (
        6.25e-5,
        1.5e-4,
        8_000,
        20_000,
    )
    assert (preset("minatar", RainbowConfig()).v_min, preset("minatar", RainbowConfig()).v_max) == (0, 10)


def warnings_of(iterations: int, **changes: Any) -> list[str]:
    """Return the warnings of an agent in an environment with reward 1 at every step, V = 1 / (1 − 0.8) = 5."""
    agent = DQN(small(distributional=True, learning_starts=16, **changes), envs_in(Forever, 4, AutoresetMode.SAME_STEP))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(iterations):
            agent.iterate()
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    "changes",
    [{"v_max": 0.5}, {"v_min": -1.0, "v_max": 0.0}, {"v_min": 30.0, "v_max": 40.0}, {"n_step": 3, "v_max": 2.0}],
)
def test_returns_outside_the_support_cause_one_warning(changes: dict[str, Any]) -> None:
    (message,) = warnings_of(20, **changes)
    assert "--v-min and --v-max" in message
    low, high = changes.get("v_min", 0.0), changes["v_max"]
    assert f"[v_min, v_max] = [{low:g}, {high:g}]" in message


def test_warning_comes_when_learned_returns_leave_the_support() -> None:
    """The target 1 + 0.8 V leaves the support only after V has grown from about 1.25 to 1.9."""
    assert warnings_of(2, v_max=2.5, lr=2e-2) == []
    assert len(warnings_of(60, v_max=2.5, lr=2e-2)) == 1


@pytest.mark.parametrize("changes", [{"v_max": 6.0}, {"v_min": -10.0, "v_max": 10.0}, {"v_max": 6.0, "n_step": 3}])
def test_returns_inside_the_support_cause_no_warning(changes: dict[str, Any]) -> None:
    assert warnings_of(20, **changes) == []
