"""The layer that normalizes observations by running statistics."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from policy_worlds import Bandit, envs_in, one_hot

from automl_ext.rl import A2C, DQN, PPO, A2CConfig, DQNConfig, PPOConfig, Reinforce, ReinforceConfig
from automl_ext.rl.networks.body import Body, RunningNorm
from automl_ext.training.errors import UserError

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def test_statistics_equal_those_of_all_batches_together() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1000, 3)) * [1e-3, 1, 1e4] + [1e3, -1, 1e6]).astype(np.float32)
    norm = RunningNorm((3,))
    for part in np.split(x, [1, 8, 8, 500]):  # one of them empty
        norm.update(torch.from_numpy(part))
    wide = x.astype(np.float64)
    torch.testing.assert_close(norm.mean.numpy(), wide.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.variance.numpy(), wide.var(0), rtol=1e-9, atol=0)
    y = norm(torch.from_numpy(x))
    assert y.dtype == torch.float32
    assert y[:, 1:].mean(0).abs().max() < 1e-2
    assert (y[:, 1:].std(0) - 1).abs().max() < 1e-2


def test_leading_dimensions_are_flattened_and_results_clipped() -> None:
    x = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0))
    one, two = RunningNorm((3,)), RunningNorm((3,))
    one.update(x)
    two.update(x.reshape(35, 3))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one(x).reshape(35, 3), two(x.reshape(35, 3)))
    assert one(torch.full((1, 3), 1e9)).tolist() == [[10.0] * 3]
    assert RunningNorm((3,))(torch.tensor([[0.5, 20.0, -20.0]])).tolist() == [[0.5, 10.0, -10.0]]


def test_a_constant_observation_stays_finite() -> None:
    norm = RunningNorm((1,))
    norm.update(torch.full((10, 1), 3.0))
    assert norm(torch.full((2, 1), 3.0)).tolist() == [[0.0], [0.0]]


def test_body_normalizes_first_and_saves_the_statistics() -> None:
    body, plain = Body(SPACE, (4,), normalize=True), Body(SPACE, (4,))
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)) * 5 + 2
    assert plain.norm is None
    before = body(x)
    body.norm.update(x)
    assert not torch.equal(body(x), before)
    plain[0].load_state_dict(body[1].state_dict())
    torch.testing.assert_close(body(x), plain((x - x.mean(0)) / x.std(0, correction=0)))
    other = Body(SPACE, (4,), normalize=True)
    other.load_state_dict(body.state_dict())
    assert torch.equal(other(x), body(x))
    assert not any(p.requires_grad for p in body.norm.buffers())


def test_bytes_are_normalized_by_their_own_statistics() -> None:
    body = Body(spaces.Box(0, 255, (3,), np.uint8), (), normalize=True)
    x = torch.randint(256, (100, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    body.norm.update(x)
    y = body(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3))


def test_normalizing_images_is_refused() -> None:
    with pytest.raises(UserError, match="normalize_observations: expected vectors"):
        Body(spaces.Box(0, 255, (4, 84, 84), np.uint8), normalize=True)


class FarBandit(Bandit):
    """A bandit whose contexts differ by 0.001 at an offset of 1000."""

    def observe(self) -> np.ndarray:
        return 1000 + super().observe() / 1000


FAR = (1000 + one_hot(3) / 1000).astype(np.float32)
AGENTS = {
    "a2c": lambda **c: A2C(A2CConfig(hidden=(16,), lr=5e-3, optimizer="adam", **c), envs_in(FarBandit)),
    "ppo": lambda **c: PPO(PPOConfig(hidden=(16,), lr=5e-3, n_steps=5, n_epochs=4, **c), envs_in(FarBandit)),
    "reinforce": lambda **c: Reinforce(ReinforceConfig(hidden=(16,), lr=1e-2, **c), envs_in(FarBandit)),
    "dqn": lambda **c: DQN(
        DQNConfig(hidden=(16,), lr=5e-3, learning_starts=64, train_freq=8, gradient_steps=2, n_envs=8, **c),
        envs_in(FarBandit),
    ),
}


def norm_of(agent: object) -> RunningNorm:
    network = agent.online if isinstance(agent, DQN) else agent.network  # type: ignore[attr-defined]
    return network.body.norm


@pytest.mark.parametrize("name", AGENTS)
def test_agents_learn_from_observations_of_any_scale(name: str) -> None:
    agent = AGENTS[name](normalize_observations=True)
    for _ in range(60):
        agent.iterate()
    assert agent.act(FAR).tolist() == [0, 1, 2]
    if name == "a2c":  # without normalization; otherwise the environment is too easy for this test
        plain = AGENTS[name]()
        for _ in range(60):
            plain.iterate()
        assert plain.act(FAR).tolist() != [0, 1, 2]


@pytest.mark.parametrize("name", AGENTS)
def test_acting_does_not_change_statistics_and_the_policy_includes_them(name: str) -> None:
    agent, other = AGENTS[name](normalize_observations=True), AGENTS[name](normalize_observations=True)
    for _ in range(20):
        agent.iterate()
    norm = norm_of(agent)
    assert norm.count >= 20 * 8
    assert norm.mean.mean() == pytest.approx(1000 + 1 / 3000, abs=1e-4)
    before = norm.mean.clone(), norm.count.clone()
    agent.act(np.zeros((5, 3), np.float32))
    assert torch.equal(norm.mean, before[0])
    assert torch.equal(norm.count, before[1])
    other.load_policy_state(agent.policy_state())
    assert torch.equal(norm_of(other).shift, norm.shift)
    assert other.act(FAR).tolist() == agent.act(FAR).tolist()


@pytest.mark.parametrize("name", ["a2c", "ppo", "reinforce"])
def test_a_rollout_changes_the_statistics_after_its_update(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actions and loss use the same statistics, so an update does not depend on those of its own rollout."""
    agent, constant = (AGENTS[name](normalize_observations=True) for _ in range(2))
    agent.iterate(), constant.iterate()
    before = norm_of(constant).count.clone()
    monkeypatch.setattr(constant.network, "saw", lambda observations: None)
    agent.iterate(), constant.iterate()
    assert torch.equal(agent.parameters, constant.parameters)
    assert norm_of(agent).count > before == norm_of(constant).count


def test_target_network_shares_the_statistics() -> None:
    agent = AGENTS["dqn"](normalize_observations=True)
    assert agent.target.body.norm is agent.online.body.norm is not None
