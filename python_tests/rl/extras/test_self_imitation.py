"""Self-imitation: which returns it stores, its loss, and learning that needs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from policy_worlds import Bandit, Cut, Patience, World, envs_in, one_hot, rollout_of

from automl_ext.rl import A2C, DQN, A2CConfig, DQNConfig
from automl_ext.rl.extras import Extras, SelfImitation, self_imitation
from automl_ext.rl.extras.self_imitation import Successes, imitation_loss
from automl_ext.rl.registry import algorithm
from automl_ext.training.errors import UserError

MODES = pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])


def imitating(world: Any, mode: AutoresetMode, updates: int = 4, **changes: Any) -> tuple[A2C, Successes]:
    settings: dict[str, Any] = {"hidden": (16,), "gamma": 0.9, "extras": Extras.of([SelfImitation(updates, 64)])}
    settings |= {"normalize_rewards": False} | changes
    agent = A2C(A2CConfig(**settings), envs_in(world, 8, mode))
    part = agent.seams.parts["self-imitation"]
    assert isinstance(part, Successes)
    return agent, part


@MODES
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_replay_holds_the_returns_of_finished_episodes(mode: AutoresetMode, n_steps: int) -> None:
    """In every state of :class:`Patience` the return follows from the action; running episodes are not stored."""
    agent, imitation = imitating(Patience, mode)
    for _ in range(40 // n_steps):
        imitation.add(rollout_of(agent, n_steps))
    assert len(imitation.replay) == sum(episode.length for episode in agent.envs.episodes)
    batch = imitation.replay.sample(300)
    state, action = batch.observations.argmax(1), batch.actions
    expected = torch.where(state == 0, torch.where(action == 0, 1.0, 1.5 * 0.9**2), 1.5 * 0.9 ** (2 - state))
    torch.testing.assert_close(batch.returns, expected)
    assert set(state.tolist()) == {0, 1, 2}


def test_truncated_episodes_end() -> None:
    agent, imitation = imitating(Cut, AutoresetMode.NEXT_STEP)
    for _ in range(10):
        imitation.add(rollout_of(agent, 3))
    batch = imitation.replay.sample(300)
    assert torch.equal(batch.returns, batch.observations[:, 1])  # 0 from state 0, where the next episode may give 1


def test_loss_equals_its_formula_and_clips_its_gradients() -> None:
    log_probs = torch.log(torch.tensor([0.5, 0.2, 0.9, 0.3])).requires_grad_()
    values = torch.tensor([0.5, 1.0, -3.0, 0.0], requires_grad=True)
    returns, weights = torch.tensor([1.0, 0.2, 2.0, 0.4]), torch.tensor([1.0, 0.5, 0.25, 0.75])
    loss, gains = imitation_loss(log_probs, values, returns, weights)
    assert gains.tolist() == pytest.approx([0.5, 0.0, 5.0, 0.4])
    policy = -np.array([0.5, 0, 1, 0.4]) * np.log([0.5, 0.2, 0.9, 0.3])
    value = np.array([0.5 * 0.5**2, 0, 5 - 0.5, 0.5 * 0.4**2])
    assert loss.item() == pytest.approx((weights.numpy() * (policy + 0.01 * value)).mean())
    loss.backward()
    assert log_probs.grad.tolist() == pytest.approx([-0.125, 0, -0.0625, -0.075])  # type: ignore[union-attr]
    assert values.grad.tolist() == pytest.approx([-0.125e-2, 0, -0.0625e-2, -0.075e-2])  # type: ignore[union-attr]


def test_priorities_are_the_gains() -> None:
    agent, imitation = imitating(Patience, AutoresetMode.SAME_STEP, updates=30, gamma=0.7, lr=1e-6)
    while len(imitation.replay) < 100:
        imitation.add(rollout_of(agent, 5))
    with torch.no_grad():
        agent.network.critic[-1].weight.zero_()
        agent.network.critic[-1].bias.fill_(1.2)  # above the returns of all states but state 2
    measured = imitation.update()
    assert (imitation.replay.sample(300).observations.argmax(1) == 2).float().mean() > 0.9
    assert float(measured["imitation_gain"]) == pytest.approx(0.3, abs=0.15)


def test_learns_from_past_successes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random actions fill the replay; then the policy learns from it, without environments and without A2C's loss.

    V is not learned: it would soon reach the return of 1, and nothing would be left to imitate.
    """
    monkeypatch.setattr(self_imitation, "VALUE_WEIGHT", 0.0)
    agent, imitation = imitating(Bandit, AutoresetMode.SAME_STEP, updates=60, lr=1e-2, optimizer="adam")
    for _ in range(10):
        imitation.add(rollout_of(agent, 5))
    imitation.update()
    assert agent.act(one_hot(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_actions_of_any_shape_are_stored(shape: tuple[int, ...]) -> None:
    class Pad(World):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Box(-1, 1, shape, np.float32)

        def step(self, action: Any) -> Any:
            return self.observe(), float(np.mean(action)), True, False, {}

    agent, imitation = imitating(Pad, AutoresetMode.SAME_STEP, updates=2)
    for _ in range(4):
        agent.iterate()
    assert imitation.replay.sample(5).actions.shape == (5, int(np.prod(shape)))
    assert torch.isfinite(agent.parameters).all()


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_the_other_on_policy_agents_imitate_too(name: str) -> None:
    extras = Extras.of([SelfImitation(1, 16)])
    config = algorithm(name).config(hidden=(8,), normalize_rewards=False, extras=extras)
    agent = algorithm(name).agent(config, envs_in(Bandit))
    for _ in range(3):
        metrics = agent.iterate()
    assert metrics["imitation_gain"] > 0
    if name == "reinforce":  # whole episodes only
        assert not any(agent.seams.parts["self-imitation"].running)


def test_a_batch_must_fit_into_the_replay() -> None:
    with pytest.raises(ValueError, match=r"self-imitation.batch_size: expected .*at most 100000, got 200000"):
        SelfImitation(batch_size=200_000)


def test_divided_rewards_are_refused() -> None:
    with pytest.raises(UserError, match=r"self-imitation: expected normalize_rewards False \(--no-normalize-rewards\)"):
        imitating(Bandit, AutoresetMode.SAME_STEP, normalize_rewards=True)


def test_agents_with_a_replay_refuse_it() -> None:
    with pytest.raises(UserError, match="self-imitation: not possible with dqn, which learns from a replay"):
        DQN(DQNConfig(extras=Extras.of([SelfImitation()])))
