"""MDPs from Gymnasium's tables: solutions agree with simulated episodes."""

import math

import gymnasium as gym
import pytest
import torch
from mdp_worlds import close

from automl_ext.rl import MDP, policy_evaluation, policy_iteration, q_learning, value_iteration


@pytest.mark.parametrize("size", ["4x4", "8x8"])
def test_frozen_lake(size):
    env = gym.make("FrozenLake-v1", map_name=size, max_episode_steps=100_000)
    mdp = MDP.from_gymnasium(env)
    by_values, by_policies = value_iteration(mdp, 0.99, tol=1e-9), policy_iteration(mdp, 0.99)
    close(by_values.values, by_policies.values, 1e-9)
    assert by_values.policy.equal(by_policies.policy)
    # With γ = 1 and the only reward at the goal, a value is a probability of reaching it.
    success = policy_evaluation(mdp, by_policies.policy, 1.0)[0].item()
    if size == "4x4":
        assert success == pytest.approx(14 / 17)
    actions, n, wins = by_policies.policy.tolist(), 400, 0
    for episode in range(n):
        state, done = env.reset(seed=episode)[0], False
        while not done:
            state, reward, terminated, truncated, _ = env.step(actions[state])
            done = terminated or truncated
        assert not truncated
        wins += reward
    assert abs(wins / n - success) < 4 * math.sqrt(success * (1 - success) / n)  # 4 sigma: fails for one seed in 16,000


def test_frozen_lake_without_slipping_is_a_shortest_path():
    mdp = MDP.from_gymnasium(gym.make("FrozenLake-v1", is_slippery=False))
    assert policy_iteration(mdp, 0.9).values[0].item() == pytest.approx(0.9**5)  # six steps with reward 1 at the last
    learned = q_learning(mdp, 0.9, 1000, omega=0.55, generator=torch.Generator().manual_seed(0))
    close(learned.values, policy_iteration(mdp, 0.9).values, 1e-3)


def test_taxi():
    # done belongs to the drop-off transition: other transitions reach the same state without ending the episode.
    env = gym.make("Taxi-v4").unwrapped
    mdp = MDP.from_gymnasium(env)
    solution = policy_iteration(mdp, 0.99)
    close(value_iteration(mdp, 0.99, tol=1e-10).values, solution.values, 1e-9)
    ending = {s2 for s in env.P for a in env.P[s] for _, s2, _, done in env.P[s][a] if done}
    assert len(ending) == 4
    bumping, bumps = torch.zeros(500, dtype=torch.int64), 0  # driving into a wall: reward -1 forever, in the same state
    for s in ending:
        walls = [a for a in range(4) if env.P[s][a][0][1] == s]
        bumping[s], bumps = walls[0], bumps + len(walls)
    assert bumps >= 4
    close(policy_evaluation(mdp, bumping, 0.99)[list(ending)], [-100.0] * 4, 1e-7)
    # The discounted return of a simulated episode equals the value of its first state.
    for seed in range(20):
        state, done, total, weight = env.reset(seed=seed)[0], False, 0.0, 1.0
        start = state
        while not done:
            state, reward, done, *_ = env.step(int(solution.policy[state]))
            total, weight = total + weight * reward, weight * 0.99
        assert total == pytest.approx(solution.values[start].item())


def test_cliff_walking():
    mdp = MDP.from_gymnasium(gym.make("CliffWalking-v1"))
    policy = policy_iteration(mdp, 0.99).policy
    assert policy_evaluation(mdp, policy, 0.99)[36].item() == pytest.approx(-(1 - 0.99**13) / 0.01)
    with pytest.raises(ValueError, match="policy_evaluation: gamma: 1 requires episodes that end with certainty"):
        policy_evaluation(mdp, torch.zeros(48, dtype=torch.int64), 1.0)


def test_table_that_lists_a_next_state_twice():
    class Env:
        def __init__(self):
            self.P = {0: {0: [(0.25, 0, 4.0, False), (0.25, 0, 8.0, True), (0.5, 0, 0.0, False)]}}

        @property
        def unwrapped(self):
            return self

    mdp = MDP.from_gymnasium(Env())
    close(mdp.rewards, [[3.0]])
    close(policy_evaluation(mdp, torch.tensor([0]), 1.0), [12.0])  # ends with probability 1/4


def test_environment_without_a_table_is_refused():
    with pytest.raises(ValueError, match=r"MDP: env: expected a table env.unwrapped.P.*got CartPole-v1"):
        MDP.from_gymnasium(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="got int"):
        MDP.from_gymnasium(3)
