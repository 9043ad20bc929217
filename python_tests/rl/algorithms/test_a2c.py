"""A2C: learning, gradients, and resumed runs."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from policy_worlds import Alternating, Bandit, Cut, Forever, Patience, PoisonedRestarts, Target, envs_in, one_hot

from automl_ext.rl import A2C, A2CConfig
from automl_ext.rl.envs.rollouts import collect
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.loop import train
from automl_ext.rl.networks.parameters import clip_norm, flatten_parameters
from automl_ext.training.errors import UserError

MODES = pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])


def learner(envs: Envs, iterations: int, **settings: object) -> A2C:
    options = {"hidden": (16,), "lr": 5e-3, "optimizer": "adam"} | settings
    agent = A2C(A2CConfig(**options), envs)  # type: ignore[arg-type]
    for _ in range(iterations):
        agent.iterate()
    return agent


def values(agent: A2C, states: int) -> list[float]:
    with torch.no_grad():
        return agent.network(torch.from_numpy(one_hot(states)))[1].tolist()


@MODES
def test_learns_the_rewarded_actions(mode: AutoresetMode) -> None:
    agent = learner(envs_in(Bandit, mode=mode), 150)
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]


@MODES
@pytest.mark.parametrize(("gamma", "action"), [(0.7, 0), (0.95, 1)])
def test_discount_factor_decides_the_action(mode: AutoresetMode, gamma: float, action: int) -> None:
    agent = learner(envs_in(Patience, mode=mode), 200, gamma=gamma, ent_coef=0.02)
    assert agent.act(one_hot(3))[0] == action


@MODES
@pytest.mark.parametrize("lam", [1.0, 0.9])
def test_truncated_episodes_bootstrap(mode: AutoresetMode, lam: float) -> None:
    agent = learner(envs_in(Forever, mode=mode), 250, gamma=0.8, gae_lambda=lam, lr=2e-2)
    assert values(agent, 1)[0] == pytest.approx(5, abs=0.3)  # 1 to 2.95 if truncations counted as terminations


@MODES
def test_truncated_episodes_bootstrap_from_their_final_observation(mode: AutoresetMode) -> None:
    agent = learner(envs_in(Cut, mode=mode), 500, gamma=0.9, lr=2e-2)
    assert values(agent, 3)[:2] == pytest.approx([0.9, 1], abs=0.05)  # V(0) = 0.69 from the next episode


@MODES
def test_returns_stop_at_the_end_of_an_episode(mode: AutoresetMode) -> None:
    agent = learner(envs_in(Alternating, mode=mode), 300, gamma=0.9, lr=2e-2)
    assert values(agent, 3)[:2] == pytest.approx([0, 10], abs=0.3)  # at least 9 if returns included the next episode


def test_autoreset_steps_are_not_learned_from() -> None:
    agent = learner(Envs(PoisonedRestarts([Bandit] * 8), 0), 150)
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]
    assert max(values(agent, 3)) < 1.5


def test_invalid_steps_have_no_gradient() -> None:
    agent = learner(envs_in(Bandit), 0, ent_coef=0.1)
    rollout = collect(agent.envs, agent.sample, 5, agent.device)
    assert not rollout.valid.all()
    acted = len(rollout.actions)
    invalid = torch.zeros(len(rollout.observations), dtype=torch.bool)
    invalid[:acted] = ~rollout.valid.flatten()
    changed = rollout._replace(
        observations=torch.where(invalid.unsqueeze(1), -3.0, rollout.observations),
        rewards=torch.where(rollout.valid, rollout.rewards, 1e6),
        actions=torch.where(rollout.valid.flatten(), rollout.actions, 2 - rollout.actions),
    )
    gradients = []
    for each in (rollout, changed):
        agent.parameters.grad.zero_()
        agent.loss(each)[0].backward()
        gradients.append(agent.parameters.grad.clone())
    assert gradients[0].norm() > 0
    assert torch.equal(*gradients)


def test_continuous_actions() -> None:
    agent = learner(envs_in(Target), 400, lr=1e-2)
    assert agent.act(np.ones((1, 1), np.float32)).item() == pytest.approx(0.5, abs=0.15)
    assert agent.network.distribution.log_std.item() < -0.3  # noise lowers the return


def test_entropy_bonus_has_the_right_sign() -> None:
    def entropy(coefficient: float) -> float:
        return float(learner(envs_in(Bandit), 150, ent_coef=coefficient).iterate()["entropy"])

    best = np.array([np.e, 1, 1]) / (np.e + 2)  # softmax(reward / coefficient) maximizes reward + coefficient · H
    assert entropy(1.0) == pytest.approx(-(best * np.log(best)).sum(), abs=0.04)
    assert entropy(0.0) < 0.3


def test_update_of_one_vector_equals_update_of_separate_tensors() -> None:
    """Clipping and RMSprop on one vector of all parameters equal those of PyTorch on separate tensors."""
    torch.manual_seed(0)
    flattened = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    separate = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    separate.load_state_dict(flattened.state_dict())
    flat = flatten_parameters(flattened)
    optimizer = torch.optim.RMSprop([flat], 1e-2, alpha=0.99, eps=1e-5)
    expected = torch.optim.RMSprop(separate.parameters(), 1e-2, alpha=0.99, eps=1e-5)
    for scale in (0.01, 10.0, 1.0):
        x = scale * torch.randn(6, 4)
        optimizer.zero_grad(set_to_none=False)
        expected.zero_grad()
        flattened(x).square().mean().backward()
        separate(x).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(separate.parameters(), 0.5)
        assert clip_norm(flat.grad, 0.5).item() == pytest.approx(norm.item(), rel=1e-5)
        optimizer.step()
        expected.step()
    torch.testing.assert_close(list(flattened.parameters()), list(separate.parameters()))


@pytest.mark.parametrize("hidden", [(64, 64), (100,)])
def test_initial_weights_do_not_depend_on_the_number_of_threads(hidden: tuple[int, ...]) -> None:
    before, states = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            states.append(A2C(A2CConfig(hidden=hidden), envs_in(Bandit)).parameters.detach())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_the_most_probable_action_is_that_of_the_network() -> None:
    agent = learner(envs_in(Bandit), 3)
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    with torch.no_grad():
        outputs, _ = agent.network(torch.from_numpy(x))
    assert agent.act(x).tolist() == outputs.argmax(1).tolist()
    assert torch.equal(agent.network.policy(torch.from_numpy(x)), outputs)


def test_samples_follow_the_distribution() -> None:
    distribution = A2C(A2CConfig(), envs_in(Bandit)).network.distribution
    probabilities = torch.tensor([0.1, 0.2, 0.7])
    drawn = distribution.sample(probabilities.log().expand(30_000, 3), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.bincount(minlength=3) / 30_000, probabilities, atol=0.012, rtol=0)  # 4 sigma


def test_unsupported_spaces_and_settings_are_refused() -> None:
    class Many(Bandit):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Text(4)

    with pytest.raises(UserError, match=r"Text.*a2c.*MultiBinary and Box"):
        A2C(A2CConfig(), Envs(SyncVectorEnv([Many]), 0))
    with pytest.raises(ValueError, match="gamma"):
        A2CConfig(gamma=1.5)


def test_learns_cartpole() -> None:
    """In 20,000 steps, one seed in eight stays below 80, so this takes the median of three."""
    reached = []
    for seed in range(3):
        agent = A2C(A2CConfig(seed=seed))
        while agent.envs.steps < 20_000:
            agent.iterate()
        reached.append(np.mean([episode.episode_return for episode in agent.envs.episodes[-20:]]))
    assert np.median(reached) > 80  # an untrained policy reaches 20


SMALL = A2CConfig(total_steps=3_000, eval_every=1_000, eval_episodes=3, final_episodes=3, checkpoint_every=500)


def outcome(out: Path) -> tuple[dict, str]:
    result = json.loads((out / "result.json").read_text())
    for name in ("seconds", "cpu_seconds", "steps_per_second"):
        del result[name]
    return result, (out / "metrics.jsonl").read_text()


def last_state(out: Path) -> dict:
    newest = sorted((out / "checkpoints").iterdir())[-1]
    return torch.load(newest / "state.pt")["agent"]


def same(a: object, b: object) -> bool:
    """Return whether two nested states are equal bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    assert train(A2C, SMALL, tmp_path / "whole") is not None
    assert train(A2C, SMALL, tmp_path / "halted", stop_after=1_234) is None
    assert train(A2C, SMALL, tmp_path / "halted", resume="auto") is not None
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "halted")
    whole, halted = last_state(tmp_path / "whole"), last_state(tmp_path / "halted")
    assert same(whole, halted)
