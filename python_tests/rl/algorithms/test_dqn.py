"""DQN and Rainbow: learning in an environment with known values, and resumed runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dqn_worlds import GAMMA, Fork, small
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from automl_ext.rl import DQN, DQNConfig, Rainbow, RainbowConfig
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.loop import train
from automl_ext.rl.presets import preset
from automl_ext.rl.reports.ablation import ablate, variants
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
    ("name", "mode"),
    [
        ("plain", SAME),
        ("plain", NEXT),
        ("double", NEXT),
        ("dueling", SAME),
        ("prioritized", NEXT),
        ("distributional", NEXT),
    ],
    ids=str,
)
def test_learns_the_optimal_values(name: str, mode: AutoresetMode) -> None:
    """The value of staying is 1.5, although every environment has a time limit."""
    agent = DQN(small(**SWITCHES[name]), fork_envs(mode))
    while agent.envs.steps < 2_500:
        agent.iterate()
    np.testing.assert_allclose(learned(agent), values(GAMMA), atol=0.12)


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
    with pytest.raises(ValueError, match="train_freq"):
        DQNConfig(train_freq=0)
    with pytest.raises(UserError, match="minatar"):
        preset("nes", DQNConfig())


CARTPOLE: dict[str, Any] = {
    "total_steps": 1_200,
    "learning_starts": 200,
    "train_freq": 32,
    "gradient_steps": 4,
    "hidden": (32,),
    "batch_size": 16,
    "target_update_interval": 100,
    "eval_every": 400,
    "eval_episodes": 2,
    "final_episodes": 2,
    "checkpoint_every": 150,
    "buffer_size": 800,
}


def outcome(out: Path) -> tuple[Any, str, Any]:
    result = json.loads((out / "result.json").read_text())
    for name in ("seconds", "cpu_seconds", "steps_per_second", "updates_per_second"):
        del result[name]
    best = torch.load(out / "best.pt", weights_only=True)
    return result, (out / "metrics.jsonl").read_text(), {k: v.tolist() for k, v in best["policy"].items()}


@pytest.mark.parametrize("name", ["dqn", "rainbow"])
def test_resumed_run_equals_uninterrupted_run(name: str, tmp_path: Path) -> None:
    kind, config = (DQN, DQNConfig(**CARTPOLE)) if name == "dqn" else (Rainbow, RainbowConfig(**CARTPOLE))
    train(kind, config, tmp_path / "whole")
    assert train(kind, config, tmp_path / "resumed", stop_after=500) is None
    assert train(kind, config, tmp_path / "resumed", resume="auto", stop_after=300) is None
    train(kind, config, tmp_path / "resumed", resume="auto")
    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "whole")


def test_ablation_trains_every_variant_once(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    config = RainbowConfig(**(CARTPOLE | {"total_steps": 300, "eval_every": 100}))
    for name, settings in variants(config).items():
        parts = [settings.double, settings.dueling, settings.prioritized, settings.n_step == 3]
        on = sum([*parts, settings.distributional, settings.noisy])
        assert on == {"rainbow": 6, "dqn": 0}.get(name, 5)
    results = ablate(config, tmp_path)
    assert set(results) == set(variants(config))
    assert (tmp_path / "ablation.png").stat().st_size > 10_000
    assert ablate(config, tmp_path) == results  # finished runs are skipped
