"""Finite MDPs: closed forms, all policies by brute force, batches as loops, Gymnasium's tables, bad input."""

import itertools
import math

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
import gymnasium as gym

from automl_ext.rl import MDP, policy_evaluation, policy_iteration, q_learning, value_iteration
from automl_ext.rl.tabular import bellman_expectation, bellman_optimality, greedy, q_from_v

GAMMAS = [0.0, 0.3, 0.9, 0.99]


def random_mdp(*batch, S=4, A=3, seed=0, ending=0.2):
    """Sparse transitions; each ends the episode with a probability from ``ending`` to twice that."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*batch, *shape, generator=g, dtype=torch.float64)

    p = rand(S, A, S) * (rand(S, A, S) < 0.6) + 1e-3
    end = ending * (1 + rand(S, A, S))
    return MDP(p / p.sum(-1, keepdim=True), 4 * rand(S, A) - 2, end)


def part(mdp, i):
    return MDP(mdp.transitions[i], mdp.rewards[i], mdp.terminated[i])


def all_policies(S, A):
    return torch.tensor(list(itertools.product(range(A), repeat=S)))


def close(got, want, atol=1e-9):
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), rtol=0, atol=atol)


def walk(n=5):
    """Sutton & Barto 2018, example 6.2: left or right from n states between two ends; +1 for the right one."""
    p, r = torch.zeros(n + 2, 2, n + 2), torch.zeros(n + 2, 2)
    for s in range(1, n + 1):
        p[s, 0, s - 1] = p[s, 1, s + 1] = 1
    p[0, :, 0] = p[-1, :, -1] = 1
    r[n, 1] = 1
    terminal = torch.zeros(n + 2, dtype=torch.bool)
    terminal[[0, -1]] = True
    return MDP(p, r, terminal)


# Closed forms


@pytest.mark.parametrize("gamma", GAMMAS)
def test_two_state_chain(gamma):
    # Stay in 0 with probability p for reward 1, else to 1, which pays 2 for ever: v1 = 2 / (1 - γ).
    p = 0.7
    mdp = MDP([[[p, 1 - p]], [[0, 1]]], [[1], [2]])
    v1 = 2 / (1 - gamma)
    v0 = (1 + gamma * (1 - p) * v1) / (1 - gamma * p)
    close(policy_evaluation(mdp, torch.tensor([0, 0]), gamma), [v0, v1], 1e-9 * v1)
    close(value_iteration(mdp, gamma, tol=1e-8).values, [v0, v1], 1e-8)
    close(policy_iteration(mdp, gamma).values, [v0, v1], 1e-9 * v1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_geometric_episode(gamma):
    # The same state again and again, until with probability 1/4 the episode ends: v = 1 / (1 - 3/4 γ).
    mdp = MDP([[[1.0]]], [[1.0]], 0.25)
    want = [1 / (1 - 0.75 * gamma)]
    close(policy_evaluation(mdp, torch.tensor([0]), gamma), want)
    close(value_iteration(mdp, gamma).values, want, 1e-8)
    close(policy_iteration(mdp, gamma).values, want)


def test_random_walk():
    values = policy_evaluation(walk(), torch.full((7, 2), 0.5), 1.0)
    close(values[1:-1], [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_walk_to_the_right_is_best(gamma):
    for solution in (value_iteration(walk(), gamma), policy_iteration(walk(), gamma)):
        close(solution.values[1:-1], [gamma**k for k in (4, 3, 2, 1, 0)], 1e-8)
        assert solution.policy.tolist() == [0, 1, 1, 1, 1, 1, 0]  # at the ends both are as good: the lower


def test_no_bootstrap_past_a_terminated_transition():
    # State 1 pays 100 for ever, yet to enter it from 0 ends the episode; terminated belongs to the transition.
    end = torch.zeros(2, 1, 2, dtype=torch.bool)
    end[0, 0, 1] = True
    mdp = MDP([[[0, 1]], [[0, 1]]], [[3], [100]], end)
    for values in (policy_iteration(mdp, 0.9).values, value_iteration(mdp, 0.9).values):
        close(values, [3, 1000], 1e-7)
    learnt = q_learning(mdp, 0.5, 1500, omega=0.55, generator=torch.Generator().manual_seed(0))
    close(learnt.values, [3, 200], 1e-3)


def test_gambler():
    # Sutton & Barto 2018, example 4.3 (γ = 1), against a closed form: bold play with p_h = 0.4 from 50 and 25.
    n, p_h = 100, 0.4
    p, r = torch.zeros(n + 1, n // 2, n + 1), torch.zeros(n + 1, n // 2)
    p[0, :, 0] = p[n, :, n] = 1
    for s in range(1, n):
        for a in range(n // 2):
            stake = min(a + 1, s, n - s)
            p[s, a, s + stake] += p_h
            p[s, a, s - stake] += 1 - p_h
            r[s, a] = p_h * (s + stake == n)
    terminal = torch.tensor([True] + [False] * (n - 1) + [True])
    mdp = MDP(p, r, terminal)
    for values in (value_iteration(mdp, 1.0, tol=1e-9).values, policy_iteration(mdp, 1.0).values):
        close(values[[25, 50, 75]], [0.16, 0.4, 0.4 + 0.6 * 0.4], 1e-7)


# Bellman operators


def test_operators_by_hand():
    mdp = MDP([[[0.5, 0.5], [1, 0]], [[0, 1], [0, 1]]], [[1, 2], [0, 4]], torch.tensor([False, True]))
    v = torch.tensor([10.0, 1e6], dtype=torch.float64)
    close(q_from_v(mdp, v, 0.5), [[1 + 0.25 * 10, 2 + 0.5 * 10], [0, 4]])
    close(bellman_optimality(mdp, v, 0.5), [7, 4])
    close(bellman_expectation(mdp, torch.tensor([0, 1]), v, 0.5), [3.5, 4])
    close(bellman_expectation(mdp, torch.tensor([[0.5, 0.5], [1.0, 0.0]]), v, 0.5), [(3.5 + 7) / 2, 0])


@pytest.mark.parametrize("gamma", GAMMAS)
def test_fixed_points(gamma):
    mdp = random_mdp(5)
    g = torch.Generator().manual_seed(1)
    policy = torch.rand(5, 4, 3, generator=g, dtype=torch.float64).softmax(-1)
    values = policy_evaluation(mdp, policy, gamma)
    close(bellman_expectation(mdp, policy, values, gamma), values)
    best = policy_iteration(mdp, gamma)
    close(bellman_optimality(mdp, best.values, gamma), best.values)
    close(q_from_v(mdp, best.values, gamma), best.q_values)


@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_optimality_contracts(gamma):
    mdp = random_mdp(50, ending=0)
    g = torch.Generator().manual_seed(2)
    u, v = torch.randn(2, 50, 4, generator=g, dtype=torch.float64)
    before, after = (u - v).abs().amax(-1), (bellman_optimality(mdp, u, gamma) - bellman_optimality(mdp, v, gamma))
    assert (after.abs().amax(-1) <= gamma * before + 1e-12).all()


def test_evaluation_has_a_gradient():
    mdp = random_mdp()
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: policy_evaluation(mdp, x.softmax(-1), 0.9), logits)


# Brute force


@pytest.mark.parametrize("gamma", [*GAMMAS, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_best_of_all_policies(gamma, seed):
    mdp = random_mdp(seed=seed)
    policies = all_policies(4, 3)
    values = policy_evaluation(mdp, policies, gamma)
    best = values.amax(0)
    assert (values >= best - 1e-9).all(-1).any()  # one policy is best in every state
    tol = 1e-7
    by_values, by_policies = value_iteration(mdp, gamma, tol=tol), policy_iteration(mdp, gamma)
    close(by_values.values, best, tol)
    close(by_policies.values, best, 1e-9)
    assert by_values.policy.tolist() == by_policies.policy.tolist()
    assert by_policies.policy.tolist() == policies[(values >= best - 1e-9).all(-1)][0].tolist()


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("tol", [1.0, 1e-3, 1e-6])
def test_error_within_tol_and_not_far_below(gamma, tol):
    # Without terminations the bound is sharp: all values move together.
    mdp = MDP([[[0.5, 0.5]], [[0.5, 0.5]]], [[1], [1]])
    error = (value_iteration(mdp, gamma, tol=tol).values - 1 / (1 - gamma)).abs().max()
    assert gamma * tol / 2 < error <= tol * (1 + 1e-6)


def test_a_policy_drawn_and_summed_by_hand():
    # Σ_t γ^t r_t, the distribution over states pushed forward: no linear solve.
    mdp, policy, gamma = random_mdp(seed=5), torch.tensor([2, 0, 1, 1]), 0.9
    P, r = mdp.continuing[torch.arange(4), policy], mdp.rewards[torch.arange(4), policy]
    total, reach = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for t in range(400):
        total += gamma**t * reach @ r
        reach = reach @ P
    close(policy_evaluation(mdp, policy, gamma), total)


# Ties


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.999999])
def test_ties_go_to_the_lowest_action(gamma):
    # Every action thrice, one copy with s' summed in another order: rounding must not decide, nor go round.
    base = random_mdp(20, S=6, ending=0)
    twice = MDP(base.transitions.repeat(1, 1, 3, 1), base.rewards.repeat(1, 1, 3))
    solution = policy_iteration(twice, gamma)
    assert solution.policy.max() < 3
    assert solution.policy.equal(policy_iteration(base, gamma).policy)
    assert solution.iterations < 20
    if gamma < 0.99:
        assert value_iteration(twice, gamma).policy.equal(solution.policy)


def test_all_policies_tied():
    # v is the same whatever is done, but each q is rounded by another sum.
    g = torch.Generator().manual_seed(0)
    p = torch.rand(30, 8, 5, 8, generator=g, dtype=torch.float64)
    mdp = MDP(p / p.sum(-1, keepdim=True), torch.full((30, 8, 5), 0.1))
    for gamma in (0.9, 0.9999):
        assert policy_iteration(mdp, gamma).policy.eq(0).all()
    assert value_iteration(mdp, 0.9).policy.eq(0).all()


def test_greedy():
    q = torch.tensor([[1.0, 3.0, 3.0], [2.0, 1.99, 2.0]])
    assert greedy(q).tolist() == [1, 0]
    assert greedy(q, 2.0).tolist() == [0, 0]


# Batches


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_batch_is_a_loop(gamma):
    mdp = random_mdp(2, 3, S=5, seed=3)
    policy = torch.randint(3, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    values = policy_evaluation(mdp, policy, gamma)
    by_values, by_policies = value_iteration(mdp, gamma, tol=1e-9), policy_iteration(mdp, gamma)
    assert mdp.batch == (2, 3)
    for i in itertools.product(range(2), range(3)):
        one = part(mdp, i)
        close(values[i], policy_evaluation(one, policy[i], gamma))
        close(by_values.values[i], value_iteration(one, gamma, tol=1e-9).values, 2e-9)
        close(by_policies.q_values[i], policy_iteration(one, gamma).q_values)
        assert (
            by_values.policy[i].tolist()
            == by_policies.policy[i].tolist()
            == policy_iteration(one, gamma).policy.tolist()
        )


def test_no_mdps():
    mdp = MDP(torch.zeros(0, 2, 3, 2), torch.zeros(0, 2, 3))
    assert value_iteration(mdp, 0.9).values.shape == (0, 2)
    assert policy_iteration(mdp, 1.0).policy.shape == (0, 2)
    assert q_learning(mdp, 0.9, 2).q_values.shape == (0, 2, 3)


# Q-learning


@pytest.mark.parametrize("gamma", [0.8, 1.0])
def test_q_learning_converges_at_its_rate(gamma):
    # Noise of constant size averaged with α = n^-ω leaves an error in proportion to n^(-ω/2).
    mdp, copies = random_mdp(seed=7), 50
    many = MDP(*(x.expand(copies, *x.shape) for x in (mdp.transitions, mdp.rewards, mdp.terminated)))
    want = policy_iteration(mdp, gamma).q_values

    def errors(steps):
        g = torch.Generator().manual_seed(0)
        return q_learning(many, gamma, steps, walkers=8, omega=0.8, generator=g).q_values - want

    early, late = errors(200), errors(1000)
    assert late.mean(0).abs().max() < 0.03 * want.abs().max()  # no bias that stays
    assert late.pow(2).mean().sqrt() < 1.3 * 5**-0.4 * early.pow(2).mean().sqrt()


def test_q_learning_without_a_future():
    mdp = random_mdp(3, seed=7)
    assert q_learning(mdp, 0.0, 500, generator=torch.Generator().manual_seed(0)).q_values.equal(mdp.rewards)


def test_q_learning_repeats_and_does_not_mix_mdps():
    mdp = random_mdp(3, seed=8)
    first, again = (q_learning(mdp, 0.9, 50, generator=torch.Generator().manual_seed(4)).q_values for _ in range(2))
    assert first.equal(again)
    # The same draws with another MDP in the middle: the others learn the same.
    changed = MDP(mdp.transitions, mdp.rewards * torch.tensor([1.0, 5.0, 1.0])[:, None, None], mdp.terminated)
    other = q_learning(changed, 0.9, 50, epsilon=1.0, generator=torch.Generator().manual_seed(4)).q_values
    same = q_learning(mdp, 0.9, 50, epsilon=1.0, generator=torch.Generator().manual_seed(4)).q_values
    assert other[[0, 2]].equal(same[[0, 2]])
    assert not other[1].equal(same[1])


def test_q_learning_leaves_a_trap():
    # Whoever enters state 1 stays: without restarts state 0 would hardly be seen again.
    mdp = MDP([[[0, 1], [1, 0]], [[0, 1], [0, 1]]], [[0.0, 1.0], [0.5, 0.0]])
    learnt = q_learning(mdp, 0.5, 2000, walkers=1, generator=torch.Generator().manual_seed(0))
    close(learnt.q_values, policy_iteration(mdp, 0.5).q_values, 0.02)


# Gymnasium


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
    assert abs(wins / n - success) < 4 * math.sqrt(success * (1 - success) / n)  # missed once in 16,000 draws


def test_frozen_lake_without_slipping_is_a_shortest_path():
    mdp = MDP.from_gymnasium(gym.make("FrozenLake-v1", is_slippery=False))
    assert policy_iteration(mdp, 0.9).values[0].item() == pytest.approx(0.9**5)  # six steps, the last is paid
    learnt = q_learning(mdp, 0.9, 1000, omega=0.55, generator=torch.Generator().manual_seed(0))
    close(learnt.values, policy_iteration(mdp, 0.9).values, 1e-3)


def test_taxi():
    # done belongs to the drop-off: the state after it is also one of ordinary driving, with a future.
    env = gym.make("Taxi-v4").unwrapped
    mdp = MDP.from_gymnasium(env)
    solution = policy_iteration(mdp, 0.99)
    close(value_iteration(mdp, 0.99, tol=1e-10).values, solution.values, 1e-9)
    ending = {s2 for s in env.P for a in env.P[s] for _, s2, _, done in env.P[s][a] if done}
    assert len(ending) == 4
    bumping, bumps = torch.zeros(500, dtype=torch.int64), 0  # a wall: -1 for ever, in the same state
    for s in ending:
        walls = [a for a in range(4) if env.P[s][a][0][1] == s]
        bumping[s], bumps = walls[0], bumps + len(walls)
    assert bumps >= 4
    close(policy_evaluation(mdp, bumping, 0.99)[list(ending)], [-100.0] * 4, 1e-7)
    # In the sense of the simulator: the discounted return of an episode is the value of its start.
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
    with pytest.raises(ValueError, match="policy_evaluation: gamma: 1 needs episodes that are sure to end"):
        policy_evaluation(mdp, torch.zeros(48, dtype=torch.int64), 1.0)


def test_tables_that_list_a_state_twice():
    class Env:
        def __init__(self):
            self.P = {0: {0: [(0.25, 0, 4.0, False), (0.25, 0, 8.0, True), (0.5, 0, 0.0, False)]}}

        @property
        def unwrapped(self):
            return self

    mdp = MDP.from_gymnasium(Env())
    close(mdp.rewards, [[3.0]])
    close(policy_evaluation(mdp, torch.tensor([0]), 1.0), [12.0])  # ends with probability 1/4


def test_environments_without_a_table():
    with pytest.raises(ValueError, match=r"MDP: env: expected one with a table env.unwrapped.P.*got CartPole-v1"):
        MDP.from_gymnasium(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="got int"):
        MDP.from_gymnasium(3)


# γ = 1


def test_gamma_one_names_a_state_that_goes_on_for_ever():
    mdp = walk()  # to and fro without end: right from 1, left from 2
    for solve in (value_iteration, policy_iteration, lambda m, g: q_learning(m, g, 1)):
        with pytest.raises(ValueError, match=r"gamma: 1 needs episodes that are sure to end, and from state 1 "):
            solve(mdp, 1.0)
    batch = MDP(torch.stack([mdp.transitions] * 2), torch.stack([mdp.rewards] * 2), torch.ones(2, 1, 1, 1) * 0.1)
    assert policy_iteration(batch, 1.0).values.shape == (2, 7)
    some = torch.tensor([0.1, 0.0])[:, None, None, None]
    with pytest.raises(ValueError, match=r"state 0 of MDP \[1\]"):
        policy_iteration(MDP(batch.transitions, batch.rewards, some), 1.0)
    to_and_fro = torch.tensor([0, 1, 0, 1, 1, 1, 0])
    ends = MDP(mdp.transitions, mdp.rewards, torch.tensor([True, False, False, False, False, False, True]))
    with pytest.raises(ValueError, match="from state 1 one can"):
        policy_evaluation(ends, to_and_fro, 1.0)
    close(policy_evaluation(ends, torch.tensor([0, 0, 0, 1, 1, 1, 0]), 1.0)[1:-1], [0, 0, 1, 1, 1])


def test_what_float64_cannot_resolve_is_an_error():
    mdp = random_mdp(ending=0)
    with pytest.raises(ValueError, match="too near 1 for float64"):
        policy_iteration(mdp, math.nextafter(1, 0))
    with pytest.raises(ValueError, match="episodes end too rarely"):
        policy_evaluation(MDP([[[1.0]]], [[1.0]], 1e-11 / 5), torch.tensor([0]), 1.0)
    with pytest.raises(ValueError, match=r"value_iteration: tol: expected at least .*, got 1e-16"):
        value_iteration(MDP(mdp.transitions, mdp.rewards + 1000), 0.99, tol=1e-16)
    with pytest.raises(RuntimeError, match=r"max_sweeps: the error may be .* after 10 sweeps, expected 1e-08"):
        value_iteration(mdp, 0.999, max_sweeps=10)


# Bad input

HALVES = [[[0.5, 0.5]], [[0.0, 1.0]]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0.5, 0.5]], [[1.0]]), ValueError, r"transitions: expected shape \[..., S, A, S\], got \[1, 2\]"),
        ((torch.ones(2, 1, 3) / 3, torch.ones(2, 1)), ValueError, r"transitions: .* got \[2, 1, 3\]"),
        ((torch.ones(0, 1, 0), torch.ones(0, 1)), ValueError, r"transitions: .* got \[0, 1, 0\]"),
        (
            ([[[0.5, 0.4]], [[0.0, 1.0]]], [[1], [1]]),
            ValueError,
            r"transitions: expected rows that sum .* 0.9 at \[0, 0\]",
        ),
        (([[[1.5, -0.5]], [[0.0, 1.0]]], [[1], [1]]), ValueError, r"transitions: expected prob.* 1.5 at \[0, 0, 0\]"),
        (([[[0.5, 0.5]], [[0.0, math.nan]]], [[1], [1]]), ValueError, r"transitions: .* nan at \[1, 0, 1\]"),
        (("abc", [[1], [1]]), TypeError, "transitions: expected an array of numbers, got str"),
        ((torch.ones(1, 1, 1, dtype=torch.complex64), [[1]]), TypeError, "transitions: expected real numbers"),
        ((HALVES, [1, 1]), ValueError, r"rewards: expected shape \[..., S, A\] = \[2, 1\], got \[2\]"),
        ((HALVES, [[1], [math.inf]]), ValueError, r"rewards: expected finite numbers, got inf at \[1, 0\]"),
        (
            (HALVES, [[1], [1]], [True] * 3),
            ValueError,
            r"terminated: expected what broadcasts .*\[2, 1, 2\], got \[3\]",
        ),
        ((HALVES, [[1], [1]], [0.0, 2.0]), ValueError, r"terminated: expected probabilities, got 2.0 at \[1\]"),
    ],
)
def test_bad_mdps(arguments, error, message):
    with pytest.raises(error, match=message):
        MDP(*arguments)


def test_arrays_of_every_kind():
    want = policy_iteration(MDP(HALVES, [[1], [2]]), 0.9).values
    for kind in (np.float32, np.float64):
        close(policy_iteration(MDP(np.array(HALVES, kind), np.array([[1], [2]])), 0.9).values, want)
    third = torch.ones(3, 1, 3) / 3  # float32 rows, made to sum to one
    assert (MDP(third, torch.ones(3, 1)).transitions.sum(-1) - 1).abs().max() < 1e-15


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        ([0, 0], TypeError, "policy: expected an int64 or float tensor, got list"),
        (torch.zeros(2, dtype=torch.bool), TypeError, "policy: expected an int64 or float tensor"),
        (torch.tensor([0, 3]), ValueError, r"policy: expected actions in \[0, 0\], got 3"),
        (torch.tensor([0, 0, 0]), ValueError, r"policy: expected shape \[..., 2\], got \[3\]"),
        (torch.tensor(0), ValueError, r"policy: expected shape \[..., 2\], got \[\]"),
        (torch.ones(2), ValueError, r"policy: expected shape \[..., 2, 1\], got \[2\]"),
        (torch.ones(2, 1) / 2, ValueError, r"policy: expected rows that sum to one, got 0.5 at \[0\]"),
        (torch.full((2, 1), math.nan), ValueError, "policy: expected probabilities, got nan"),
    ],
)
def test_bad_policies(policy, error, message):
    with pytest.raises(error, match="policy_evaluation: " + message):
        policy_evaluation(MDP(HALVES, [[1], [1]]), policy, 0.9)


def test_policies_of_another_batch():
    with pytest.raises(ValueError, match=r"policy: expected shape \[..., 4\], \[5\] before it, got \[3, 4\]"):
        policy_evaluation(random_mdp(5), torch.zeros(3, 4, dtype=torch.int64), 0.9)


def test_bad_numbers():
    mdp = random_mdp()
    for solve in (value_iteration, policy_iteration, lambda m, g: policy_evaluation(m, torch.tensor([0] * 4), g)):
        for gamma in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match=r"gamma: expected a number in \[0, 1\]"):
                solve(mdp, gamma)
        with pytest.raises(TypeError, match="gamma: expected a float"):
            solve(mdp, "0.9")
    with pytest.raises(ValueError, match="value_iteration: tol"):
        value_iteration(mdp, 0.9, tol=-1.0)
    with pytest.raises(ValueError, match="value_iteration: max_sweeps"):
        value_iteration(mdp, 0.9, max_sweeps=0)
    for name, value in {"walkers": 0, "epsilon": 0.0, "restart": 0.0, "omega": 0.5}.items():
        with pytest.raises(ValueError, match=f"q_learning: {name}"):
            q_learning(mdp, 0.9, 10, **{name: value})
    with pytest.raises(ValueError, match="q_learning: steps"):
        q_learning(mdp, 0.9, 0)
