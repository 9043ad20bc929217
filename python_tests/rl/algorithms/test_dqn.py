"""DQN and Rainbow: learning in an environment with known values, schedules, and the support of C51."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dqn_worlds import GAMMA, Fork, small
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from policy_worlds import Forever, envs_in
from torch import nn

from automl_ext.rl import DQN, DQNConfig, Rainbow, RainbowConfig, load
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.networks.parameters import CenteredRMSprop
from automl_ext.rl.presets import preset
from automl_ext.rl.reports.ablation import variants
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import flushed_denormals

SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "double": {"double": True},
    "dueling": {"dueling": True},
    "prioritized": {"prioritized": True},
    "n-step": {"n_step": 3},
    "distributional": {"distributional": True},
    "noisy": {"noisy": True},
}
SWITCHES["rainbow"] = {name: value for part in SWITCHES.values() for name, value in part.items()}


def values(gamma: float) -> np.ndarray:
    """Return Q* of :class:`Fork` in its states start, first and second.

    Time limits do not change Q*, because truncated steps bootstrap.
    """
    v2, v1 = 1.0, gamma
    v0 = max(gamma * v1, 0.3 / (1 - gamma))
    return np.array([[gamma * v1, 0.3 + gamma * v0], [gamma * v2, gamma * v2], [1.0, 1.0]])


def fork_envs(mode: AutoresetMode, n_envs: int = 4) -> Envs:
    # Different time limits, so that episodes end at different steps.
    makers = [lambda limit=limit: Fork(limit) for limit in (None, 2, 3, 5)[:n_envs]]
    return Envs(SyncVectorEnv(makers, autoreset_mode=mode), 0)


def learned(agent: DQN) -> np.ndarray:
    agent.online.eval()
    with torch.no_grad():
        states = torch.eye(4)[:3]
        return agent.online.q(agent.online(states), states).numpy()


SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP


@pytest.mark.parametrize(
    ("names", "mode"),
    [("plain", SAME), ("plain", NEXT), ("double dueling prioritized", NEXT), ("distributional", NEXT)],
    ids=str,
)
def test_learns_the_optimal_values(names: str, mode: AutoresetMode) -> None:
    """The value of staying is 1.5, although every environment has a time limit."""
    agent = DQN(
        small(**{name: value for part in names.split() for name, value in SWITCHES[part].items()}), fork_envs(mode)
    )
    while agent.envs.steps < 1_250:  # the error is then at most 0.015
        agent.iterate()
    np.testing.assert_allclose(learned(agent), values(GAMMA), atol=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["n-step", "noisy", "rainbow"])
def test_learns_the_optimal_policy(name: str) -> None:
    """Off-policy n-step targets and noise bias the values; the optimal action, staying, remains the greedy one."""
    agent = DQN(small(**SWITCHES[name]), fork_envs(AutoresetMode.NEXT_STEP))
    while agent.envs.steps < 2_500:
        agent.iterate()
    assert agent.act(np.eye(4, dtype=np.float32)[:1])[0] == 1
    np.testing.assert_allclose(learned(agent)[1:], values(GAMMA)[1:], atol=0.15)


def test_replay_holds_only_valid_transitions() -> None:
    agent = DQN(small(), fork_envs(AutoresetMode.NEXT_STEP))
    while agent.envs.steps < 400:
        agent.iterate()
    assert len(agent.replay) == agent.envs.steps
    batch = agent.replay.sample(2_000)
    place, next_place = batch.observations.argmax(1), batch.next_observations.argmax(1)
    assert ((next_place == place) | (next_place == place + 1)).all()  # never from the end of an episode to a start
    assert (batch.terminated == (next_place == 3)).all()


def test_gradient_steps_at_once_equal_single_steps() -> None:
    """Sampling all batches and computing all targets at once gives the same weights as one after the other."""
    agents = [DQN(small(), fork_envs(AutoresetMode.SAME_STEP)) for _ in range(2)]
    for agent in agents:
        for _ in range(30):
            step = agent.envs.step(agent.rng.integers(2, size=4))
            agent.replay.add(step)
    agents[0].update(6)
    for _ in range(6):
        agents[1].update(1)
    for a, b in zip(agents[0].online.parameters(), agents[1].online.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_target_network_changes_only_at_its_interval() -> None:
    agent = DQN(small(target_update_interval=1_000), fork_envs(AutoresetMode.SAME_STEP))
    while agent.envs.steps < 400:
        agent.iterate()
    first = [p.clone() for p in agent.target.parameters()]
    changed = [not torch.equal(p, q) for p, q in zip(first, agent.online.parameters(), strict=True)]
    assert all(changed)
    while agent.envs.steps < 900:
        agent.iterate()
    assert all(torch.equal(p, q) for p, q in zip(first, agent.target.parameters(), strict=True))
    while agent.envs.steps < 1_010:
        agent.iterate()
    assert not any(torch.equal(p, q) for p, q in zip(first, agent.target.parameters(), strict=True))


def test_epsilon() -> None:
    config = small(total_steps=1_000, exploration_fraction=0.5, final_epsilon=0.1, learning_starts=100)
    agent = DQN(config, fork_envs(AutoresetMode.SAME_STEP))
    for steps, epsilon in ((0, 1.0), (99, 1.0), (250, 0.55), (500, 0.1), (999, 0.1)):
        agent.envs.steps = steps
        assert agent.epsilon == pytest.approx(epsilon)
    noisy = DQN(replace(config, noisy=True), fork_envs(AutoresetMode.SAME_STEP))
    noisy.envs.steps = 100
    assert noisy.epsilon == 0.0


def test_noise_is_drawn_for_every_action_of_every_environment() -> None:
    agent = DQN(small(noisy=True, learning_starts=0, sigma=100.0), fork_envs(AutoresetMode.SAME_STEP))
    same = np.repeat(np.eye(4, dtype=np.float32)[:1], 64, 0)
    first, second = agent.explore(same), agent.explore(same)
    assert set(first) == {0, 1}
    assert (first != second).any()
    assert len(set(agent.act(same))) == 1


def test_flushed_denormals_restores_the_previous_mode() -> None:
    tiny = torch.tensor([1e-39])
    with flushed_denormals():
        assert (tiny * 1.0).item() == 0.0
    assert (tiny * 1.0).item() > 0.0


def test_replay_stores_images_in_their_dtype() -> None:
    pytest.importorskip("minatar")
    agent = DQN(replace(preset("minatar", RainbowConfig()), learning_starts=50, total_steps=100))
    while agent.envs.steps < 100:
        agent.iterate()
    assert agent.replay.sample(3).observations.dtype == torch.bool
    assert agent.updates > 0


def test_unsupported_spaces_and_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"Discrete.*a2c"):
        DQN(DQNConfig(env_id="Pendulum-v1"))
    with pytest.raises(UserError, match="minatar"):
        preset("nes", DQNConfig())


def test_the_replay_has_room_for_one_step_of_every_environment() -> None:
    two = DQNConfig(env_id="MountainCar-v0,Acrobot-v1", n_envs=8, buffer_size=8)
    with pytest.raises(UserError, match="buffer_size: expected at least the number of environments, 16, got 8"):
        DQN(two)


def test_variants_of_the_ablation() -> None:
    for name, settings in variants(RainbowConfig()).items():
        parts = [settings.double, settings.dueling, settings.prioritized, settings.n_step == 3]
        on = sum([*parts, settings.distributional, settings.noisy])
        assert on == {"rainbow": 6, "dqn": 0}.get(name, 5)


@pytest.mark.parametrize("decay", [False, True])
def test_learning_rate_falls_linearly_to_0_at_the_last_step(decay: bool) -> None:
    learning = DQN(small(total_steps=800, lr=0.01, lr_decay=decay), fork_envs(SAME))
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
    assert (DQNConfig().n_step, DQNConfig().lr_decay, DQNConfig().layer_norm) == (3, True, True)
    assert (RainbowConfig().n_step, RainbowConfig().lr_decay, RainbowConfig().layer_norm) == (3, False, False)
    paper = preset("mnih2015", DQNConfig())
    assert (paper.n_step, paper.optimizer, paper.lr, paper.lr_decay) == (1, "rmsprop", 2.5e-4, False)
    assert not paper.layer_norm
    assert (paper.target_update_interval, paper.learning_starts, paper.final_epsilon) == (10_000, 50_000, 0.1)
    assert paper.exploration_fraction * paper.total_steps == pytest.approx(1_000_000)
    assert (paper.env.reward_clip, paper.env.terminal_on_life_loss, paper.max_grad_norm) == (1, True, math.inf)
    for name in ("minatar", "atari"):
        assert (preset(name, DQNConfig()).n_step, preset(name, RainbowConfig()).n_step) == (1, 3)
        for config in (DQNConfig(), RainbowConfig()):
            assert not preset(name, config).lr_decay
            assert not preset(name, config).layer_norm


def test_rmsprop_is_centered_with_epsilon_in_the_root() -> None:
    """The update of the code of Mnih et al. 2015."""
    flat = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer, expected = CenteredRMSprop(flat, lr=0.1), flat.detach().double()
    mean = square = torch.zeros(3, dtype=torch.float64)
    for gradient in torch.randn(4, 3, generator=torch.Generator().manual_seed(0)):
        flat.grad = gradient
        optimizer.step()
        mean = 0.95 * mean + 0.05 * gradient.double()
        square = 0.95 * square + 0.05 * gradient.double() ** 2
        expected = expected - 0.1 * gradient.double() / (square - mean**2 + 0.01).sqrt()
    torch.testing.assert_close(flat.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_default_support_contains_all_returns_of_cartpole() -> None:
    for config in [DQNConfig(distributional=True), RainbowConfig(), *variants(DQNConfig()).values()]:
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


def test_atari_preset_fits_into_16_gb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, and loading the saved agent. Each frame is stored once: with whole stacks, the replay took 28 GB."""
    pytest.importorskip("ale_py")
    monkeypatch.setattr("automl_ext.training.machine.memory.machine_memory", lambda: 16e9)
    config = replace(preset("atari", RainbowConfig()), learning_starts=4, hidden=(8,))
    agent = Rainbow(config)
    for _ in range(3):
        agent.iterate()
    assert agent.updates == 2
    agent.save(tmp_path / "agent")
    other = load(tmp_path / "agent")
    agent.envs.close()
    for replay in (agent.replay, other.replay):  # type: ignore[attr-defined]
        assert replay._ring.observations.shape == (1_000_004, 84, 84)


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


def test_targets_that_are_computed_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def learned() -> torch.Tensor:
        agent = DQN(DQNConfig(hidden=(8,), train_freq=12, gradient_steps=12, learning_starts=100))
        sample = agent.replay.sample
        monkeypatch.setattr(agent.replay, "sample", lambda size: sizes.add(size) or sample(size))
        while agent.updates < 24:
            agent.iterate()
        return agent.parameters.detach()

    sizes: set[int] = set()
    whole = learned()
    assert sizes == {12 * 64}
    sizes.clear()
    monkeypatch.setattr("automl_ext.rl.algorithms.dqn.JOINT_BYTES", 5 * 64 * 16)  # 5 batches; 4 divide 12
    torch.testing.assert_close(learned(), whole)
    assert sizes == {4 * 64}
