"""VDN and QMIX: mixing functions, targets, the two-step game, saved and resumed agents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from policy_worlds import Staggered, Together, lanes_of

from automl_ext.rl import VDN, VDNConfig, load, make
from automl_ext.rl.algorithms.qmix import QMIX, Monotonic, QMIXConfig
from automl_ext.rl.algorithms.vdn import Sum, TeamNetwork, by_team
from automl_ext.rl.envs.groups import GroupedBox
from automl_ext.rl.envs.two_step import TwoStepGame
from automl_ext.training.errors import UserError

STATES = torch.eye(3)  # the first state, game A, game B


def joint_values(agent: VDN, state: int) -> np.ndarray:
    """Q_tot of all joint actions of the two-step game, [2, 2]."""
    own = STATES[state].expand(2, 3)
    observations = torch.cat([own, torch.eye(2)], 1).unsqueeze(0)
    q = agent.online(observations)[0]
    with torch.no_grad():
        pairs = [torch.stack([q[0, a], q[1, b]]).unsqueeze(0) for a in range(2) for b in range(2)]
        return np.array([float(agent.online.total(x, observations)) for x in pairs]).reshape(2, 2)


def learn_two_step(agent: VDN, updates: int) -> None:
    agent.optimizer.param_groups[0]["lr"] = 1e-2
    for _ in range(updates):
        agent.iterate()


def test_vdn_prefers_the_safe_game() -> None:
    agent = VDN(VDNConfig(seed=1))
    learn_two_step(agent, 300)
    first, safe, risky = (joint_values(agent, state) for state in range(3))
    np.testing.assert_allclose(safe, 7, atol=0.3)
    np.testing.assert_allclose(risky, [[-1.5, 2.5], [2.5, 6.5]], atol=0.6)  # least squares
    np.testing.assert_allclose(first, 0.99 * np.array([[7, 7], [6.5, 6.5]]), atol=0.6)
    assert agent.evaluate(2).tolist() == [7, 7, 7, 7]


def test_qmix_represents_the_risky_game() -> None:
    agent = QMIX(QMIXConfig(seed=1))
    learn_two_step(agent, 450)
    np.testing.assert_allclose(joint_values(agent, 2), [[0, 1], [1, 8]], atol=0.3)
    np.testing.assert_allclose(joint_values(agent, 0), 0.99 * np.array([[7, 7], [8, 8]]), atol=0.3)
    assert agent.evaluate(2).tolist() == [8, 8, 8, 8]


def test_agents_see_nothing_that_is_for_a_central_critic() -> None:
    with pytest.raises(UserError, match="central_critic: expected a2c, ppo or reinforce"):
        VDN(VDNConfig(), lanes_of(Together, central=True))


def test_bytes_are_scaled_to_one() -> None:
    """The agents' values and the state of the mixing function are those of the same observations as float32."""
    results = []
    ones = torch.eye(2).expand(5, 2, 2)
    seen = torch.cat([torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0)).round(), ones], 2)
    for dtype, factor in ((np.float32, 1), (np.uint8, 255)):
        torch.manual_seed(0)
        network = TeamNetwork(GroupedBox((5,), dtype, ("a", "b")), 3, (8,), Monotonic(2, 6, 4))
        observations = (seen * factor).to(torch.from_numpy(np.zeros(1, dtype)).dtype)
        values = network(observations).amax(2)
        results.append([values, network.total(values, observations)])
    torch.testing.assert_close(results[1], results[0])


def test_the_replay_stores_bytes_as_bytes() -> None:
    class Bytes(TwoStepGame):
        def observation_space(self, agent: str) -> spaces.Box:
            return spaces.Box(0, 255, (3,), np.uint8)

        def _observe(self) -> dict[str, np.ndarray]:
            return {agent: value.astype(np.uint8) for agent, value in super()._observe().items()}

    agent = VDN(VDNConfig(buffer_size=100, learning_starts=4, batch_size=2), lanes_of(Bytes))
    for _ in range(3):
        agent.iterate()
    assert agent.replay.sample(2).observations.dtype == torch.uint8


def test_mixers() -> None:
    torch.manual_seed(0)
    values, state = torch.randn(6, 3, requires_grad=True), torch.randn(6, 4)
    assert torch.equal(Sum()(values, state), values.sum(1))
    mixer = Monotonic(3, 4, units=5)
    mixed = mixer(values, state)
    for i in range(6):
        w1 = mixer.first_weight(state[i]).view(3, 5).abs()
        hidden = torch.nn.functional.elu(values[i] @ w1 + mixer.first_bias(state[i]))
        expected = hidden @ mixer.last_weight(state[i]).abs() + mixer.last_bias(state[i])
        assert mixed[i].item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(mixed.sum(), values)
    assert (gradient > 0).all()


def test_a_gradient_step_minimizes_the_error_of_double_q_learning() -> None:
    agent = VDN(VDNConfig(learning_starts=10_000, gamma=0.7, batch_size=16))
    for _ in range(20):
        agent.iterate()
    state = agent.replay.state_dict()["generator"]
    batch = agent.replay.sample(16)
    agent.replay.load_state_dict(agent.replay.state_dict() | {"generator": state})
    with torch.no_grad():  # other weights than the online network's, which the first update would copy
        agent.target.agents[-1].weight.mul_(0.5)
        agent.updates = 1
    expected = []
    for i in range(16):
        q, online, target = (
            net(x[i].unsqueeze(0))[0].detach()
            for net, x in (
                (agent.online, batch.observations),
                (agent.online, batch.next_observations),
                (agent.target, batch.next_observations),
            )
        )
        chosen = sum(q[a, batch.actions[i, a]] for a in range(2))
        future = sum(target[a, online[a].argmax()] for a in range(2))
        expected.append((batch.returns[i] + 0.7 * (~batch.terminated[i]) * future - chosen) ** 2)
    loss = agent.update()
    assert float(loss) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)


def test_a_team_has_the_mean_reward_and_ends_together() -> None:
    envs = lanes_of(Together, copies=3)
    step = by_team(envs.step(np.array([0, 0, 0, 1, 1, 0])), 2)
    assert step.rewards.tolist() == [0.5, 1, 0]
    assert step.observations.shape == (3, 2, 4)
    assert step.actions.tolist() == [[0, 0], [0, 1], [1, 0]]
    staggered = lanes_of(Staggered)
    staggered.step(np.zeros(4, int))
    with pytest.raises(UserError, match="all end in the same step"):
        by_team(staggered.step(np.zeros(4, int)), 2)
    with pytest.raises(UserError, match="several agents"):
        make("qmix", "CartPole-v1")


def test_a_saved_agent_acts_and_learns_on(tmp_path: Path) -> None:
    agent = make("vdn", "pettingzoo/automl_ext.rl.envs.two_step", total_steps=400, learning_starts=50)
    agent.learn()
    loaded = load(agent.save(tmp_path / "vdn.pt"))
    observations = agent.envs.observations
    assert loaded.act(observations).tolist() == agent.act(observations).tolist()
    loaded.learn(64)
    assert loaded.envs.steps >= 64
