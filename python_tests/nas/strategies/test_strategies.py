"""Search strategies: proposals, learning, and exact continuation from a checkpoint."""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import nas_search_world as world
import numpy as np
import pytest
import torch

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.space import DecisionSpace
from automl_ext.nas.strategies.evolution import Evolution, EvolutionConfig
from automl_ext.nas.strategies.random_search import RandomSearch
from automl_ext.nas.strategies.reinforce import ReinforceSearch
from automl_ext.nas.strategies.renas import ReNAS, ReNASConfig
from automl_ext.nas.strategies.renas_controller import HistoryController
from automl_ext.nas.strategies.renas_lstm import LSTMController, MutationPolicy
from automl_ext.nas.strategies.strategy import Candidate, Evaluated, Strategy, tournament
from automl_ext.nas.strategies.successive_halving import SuccessiveHalving
from automl_ext.training.files.checkpoint import check_state

SPACE = world.SPACE
MAKE: dict[str, Callable[[int], Strategy]] = {
    "random": lambda seed: RandomSearch(SPACE, seed),
    "rea": lambda seed: Evolution(SPACE, seed, population=5),
    "reinforce": lambda seed: ReinforceSearch(SPACE, seed, lr=0.1),
    "renas": lambda seed: ReNAS(SPACE, seed, HistoryController(SPACE, seed), population=5, sample=3),
    "renas-inheriting": lambda seed: ReNAS(
        SPACE, seed, HistoryController(SPACE, seed, inherit=True), population=5, sample=3, inherit=True
    ),
    "renas-lstm": lambda seed: ReNAS(SPACE, seed, LSTMController(SPACE, seed), population=5, sample=3),
    "successive-halving": lambda seed: SuccessiveHalving(SPACE, seed, candidates=4, budgets=(1, 2), eta=2),
}
each = pytest.mark.parametrize("name", MAKE)


class Pairs(DecisionSpace):
    """A space with three nodes. Node i has one of 4 operations and one of several inputs."""

    num_choices = (4, 2, 4, 3, 4, 4)
    kinds = ("operation", "input") * 3

    def encode(self, genotype: tuple[int, ...]) -> tuple[int, ...]:
        return genotype

    def decode(self, indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(indices)


def through_a_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    check_state(state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@each
def test_equal_seeds_give_equal_candidates(name: str) -> None:
    first, again, other = (world.drive(MAKE[name](seed), 30) for seed in (3, 3, 4))
    assert first == again != other


@each
def test_continues_from_a_checkpoint(name: str) -> None:
    whole = world.drive(MAKE[name](0), 40)
    first = MAKE[name](0)
    begun = world.drive(first, 17)
    second = MAKE[name](1)  # the state contains the random state
    second.load_state_dict(through_a_checkpoint(first.state_dict()))
    assert begun + world.drive(second, 23) == whole


@each
def test_does_not_use_global_generators(name: str) -> None:
    import random

    def draws() -> tuple[float, ...]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    world.drive(MAKE[name](0), 12)
    assert draws() == expected


@each
def test_failed_candidates_do_not_stop_the_search(name: str) -> None:
    genotypes = world.drive(MAKE[name](0), 40, fail=frozenset({0, 1, 2, 3, 7, 11, 20}))
    assert len(genotypes) == 40
    assert len(world.drive(MAKE[name](0), 20, fail=frozenset(range(20)))) == 20


@each
def test_several_candidates_in_evaluation(name: str) -> None:
    """Three candidates are in evaluation. Checkpoints in between do not change the candidates."""

    def drive(reload: bool) -> list[Any]:
        strategy, asked, out = MAKE[name](0), [], deque[Candidate]()
        for _ in range(15):  # the populations have 5 members, the brackets 6 evaluations
            while len(out) < 3 and (candidate := strategy.ask()) is not None:
                out.append(candidate)
                asked.append(candidate.genotype)
            oldest = out.popleft()
            strategy.tell(oldest, world.score(oldest.genotype))
            if reload:
                state, strategy = strategy.state_dict(), MAKE[name](9)
                strategy.load_state_dict(through_a_checkpoint(state))
        return asked

    assert drive(reload=False) == drive(reload=True)


@pytest.mark.parametrize("name", ["rea", "reinforce", "renas", "renas-lstm"])
def test_beats_random_search(name: str) -> None:
    """On average over three seeds, candidates 51 to 100 are better than random ones."""
    values = []
    for seed in range(3):
        values += [world.quality(SPACE.encode(g)) for g in world.drive(MAKE[name](seed), 100)[50:]]
    assert np.mean(values) > world.EFFECTS.mean(axis=1).sum() + 2


def test_tournament_returns_the_best_of_the_sample() -> None:
    members = [Evaluated(i, Evaluation(score=float(i), cost=0.0)) for i in range(10)]
    won = [tournament(members, 3, Random(seed)).genotype for seed in range(2000)]
    # The best of three drawn with replacement is i with probability ((i + 1)³ − i³)/1000.
    expected = [((i + 1) ** 3 - i**3) / 1000 for i in range(10)]
    assert np.bincount(won, minlength=10) / 2000 == pytest.approx(expected, abs=0.035)


def test_evolution_mutates_one_choice_of_a_member() -> None:
    strategy = Evolution(SPACE, 0, population=4, sample=2)
    alive: deque[tuple[int, ...]] = deque(maxlen=4)
    for number, genotype in enumerate(world.drive(strategy, 50)):
        indices = SPACE.encode(genotype)
        if number >= 4:
            assert any(sum(a != b for a, b in zip(indices, member, strict=True)) == 1 for member in alive)
        alive.append(indices)


@pytest.mark.parametrize(("space", "indices"), [(SPACE, [0, 1, 2, 3, 4, 0]), (Pairs(), None)])
def test_reinforce_gradient_of_the_log_probability_is_one_hot_minus_softmax(space: Any, indices: Any) -> None:
    strategy = ReinforceSearch(space, 0)
    genotype = strategy.ask().genotype if indices is None else space.decode(indices)
    strategy.log_probability(genotype).backward()
    expected = -strategy.logits.detach().softmax(-1)  # 0 for choices that do not exist
    expected[range(len(expected)), space.encode(genotype)] += 1
    torch.testing.assert_close(strategy.logits.grad, expected)


def test_reinforce_draws_only_existing_choices() -> None:
    strategy = ReinforceSearch(Pairs(), 0, lr=0.5)
    for _ in range(200):
        candidate = strategy.ask()
        assert all(k < n for k, n in zip(candidate.genotype, Pairs.num_choices, strict=True))
        strategy.tell(candidate, Evaluation(float(sum(candidate.genotype)), 0.0))
    assert strategy.logits.softmax(-1).isfinite().all()


def test_reinforce_gives_a_failure_the_lowest_reward() -> None:
    strategy = ReinforceSearch(SPACE, 0)
    genotype = SPACE.decode([0] * 6)
    for score in (5.0, 9.0):
        strategy.tell(Candidate(genotype), Evaluation(score, 0.0))
    before = strategy.logits.softmax(-1)[:, 0]
    strategy.optimizer = torch.optim.Adam([strategy.logits], lr=0.01)  # without the momentum of the earlier steps
    strategy.tell(Candidate(genotype), Evaluation(-math.inf, 0.0, failed=True))
    assert (strategy.logits.softmax(-1)[:, 0] < before).all()
    assert strategy.baseline == pytest.approx(0.9 * 5.4 + 0.1 * 5.0)


@pytest.mark.parametrize("controller", [HistoryController, LSTMController])
@pytest.mark.parametrize("space", [SPACE, Pairs()], ids=["nb201", "operations and inputs"])
def test_renas_proposes_new_architectures_with_one_change(controller: Any, space: Any) -> None:
    strategy = ReNAS(space, 0, controller(space, 1), population=4, sample=2)
    seen = set()
    for number in range(60):
        candidate = strategy.ask()
        indices = space.encode(candidate.genotype)
        assert indices not in seen
        seen.add(indices)
        assert (candidate.parent is None) == (number < 4)
        if candidate.parent is not None:
            before = space.encode(candidate.parent.genotype)
            assert sum(a != b for a, b in zip(indices, before, strict=True)) == 1
        strategy.tell(candidate, Evaluation(float(sum(indices)), 0.0))


def test_renas_continues_in_an_exhausted_space() -> None:
    class Tiny(Pairs):
        num_choices = (2, 2)
        kinds = ("operation", "input")

    strategy = ReNAS(Tiny(), 0, HistoryController(Tiny(), 0), population=2, sample=1)
    genotypes = []
    for _ in range(8):
        candidate = strategy.ask()
        genotypes.append(candidate.genotype)
        strategy.tell(candidate, Evaluation(1.0, 0.0))
    assert len(set(genotypes[:4])) == 4


@pytest.mark.parametrize("make", [Evolution, partial(ReNAS, controller=HistoryController(SPACE, 0))])
def test_states_are_kept_only_for_inheritance(make: Any) -> None:
    for inherit in (False, True):
        strategy = make(SPACE, 0, population=2, sample=1, inherit=inherit)
        for _ in range(2):
            candidate = strategy.ask()
            strategy.tell(candidate, Evaluation(1.0, 0.0, state={"w": torch.ones(2)}))
        parent = strategy.ask().parent
        assert parent is not None
        assert (parent.evaluation.state is not None) == inherit


def test_history_controller_estimates_the_effects() -> None:
    controller = HistoryController(SPACE, 0, ridge=1e-6)
    rng, scores = Random(0), []
    for _ in range(300):
        indices = SPACE.encode(SPACE.random(rng))
        scores.append(world.quality(indices))
        controller.learn(indices, Evaluation(scores[-1], 0.0))
    effects = np.array(controller.effects()).reshape(6, 5) * np.std(scores)
    # The effects of an edge are identified up to a constant.
    found = effects - effects.mean(axis=1, keepdims=True)
    assert found == pytest.approx(world.EFFECTS - world.EFFECTS.mean(axis=1, keepdims=True), abs=1e-3)


def test_history_controller_prefers_improvements() -> None:
    controller = HistoryController(SPACE, 0, explore=0.0)
    rng = Random(0)
    for _ in range(200):
        indices = SPACE.encode(SPACE.random(rng))
        controller.learn(indices, Evaluation(world.quality(indices), 0.0))
    parent = (0, 1, 2, 1, 0, 0)
    gains = [(0, 3), (0, 4), (2, 3)]  # +4, +1, −4
    chosen = [controller.choose(parent, gains) for _ in range(300)]
    assert chosen.count((0, 3)) > 250
    assert chosen.count((2, 3)) <= 2


def test_mutation_policy_is_a_distribution_over_legal_changes() -> None:
    torch.manual_seed(0)
    policy = MutationPolicy(Pairs())
    legal = torch.zeros(6, 4, dtype=torch.bool)
    legal[0, 1:] = legal[1, 0] = legal[3, :2] = legal[4, 2] = True
    log_p = policy(torch.tensor([0, 1, 2, 2, 1, 0]), legal)
    assert ((log_p > -torch.inf) == legal).all()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
    only_inputs = legal & (torch.arange(6) % 2 == 1).unsqueeze(1)
    log_p = policy(torch.tensor([0, 1, 2, 2, 1, 0]), only_inputs)
    assert ((log_p > -torch.inf) == only_inputs).all()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
    log_p[1, 0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())


def test_lstm_controller_learns_rewarded_mutations() -> None:
    """A bandit problem: changes to choice 3 are rewarded, for a fixed parent."""
    controller = LSTMController(SPACE, 0, lr=0.02)
    parent, changes = (0,) * 6, [(d, k) for d in range(6) for k in range(1, 5)]
    before = Evaluation(0.0, 0.0)
    controller.scores = [-1.0, 1.0]
    for _ in range(100):
        decision, choice = controller.choose(parent, changes)
        child = (*parent[:decision], choice, *parent[decision + 1 :])
        controller.learn(child, Evaluation(1.0 if choice == 3 else -1.0, 0.0), (parent, before))
    policy = controller.log_probabilities(parent, changes).exp()
    assert sum(p.item() for p, (_, k) in zip(policy, changes, strict=True) if k == 3) > 0.9


@pytest.mark.parametrize(("reward", "rises"), [(0.3, False), (0.7, True)])
def test_lstm_controller_compares_rewards_with_their_average(reward: float, rises: bool) -> None:
    """A change gets likelier if its reward is above the moving average, not if it is positive."""
    controller = LSTMController(SPACE, 0)
    controller.scores, controller.baseline = [-1.0, 1.0], 0.5
    parent, changes = (0,) * 6, [(d, k) for d in range(6) for k in range(1, 5)]
    chosen = changes.index(controller.choose(parent, changes))
    before = controller.log_probabilities(parent, changes)[chosen].item()
    controller.reward = lambda *_: reward  # type: ignore[method-assign]
    controller.learn(parent, Evaluation(reward, 0.0), (parent, Evaluation(0.0, 0.0)))
    assert (controller.log_probabilities(parent, changes)[chosen].item() > before) == rises
    assert controller.baseline == pytest.approx(0.9 * 0.5 + 0.1 * reward)


def test_reinforce_compares_rewards_with_their_average() -> None:
    for reward, rises in ((4.0, False), (6.0, True)):
        strategy = ReinforceSearch(SPACE, 0)
        genotype = SPACE.decode([0] * 6)
        strategy.tell(Candidate(genotype), Evaluation(5.0, 0.0))  # the first average
        before = strategy.log_probability(genotype).item()
        strategy.tell(Candidate(genotype), Evaluation(reward, 0.0))
        assert (strategy.log_probability(genotype).item() > before) == rises


def test_successive_halving_promotes_the_best() -> None:
    strategy = SuccessiveHalving(SPACE, 0, candidates=9, budgets=(1, 3, 9), eta=3)
    for _ in range(2):  # brackets
        rungs: dict[int, list[Any]] = {1: [], 3: [], 9: []}
        for _ in range(9 + 3 + 1):
            candidate = strategy.ask()
            assert candidate is not None
            assert candidate.budget is not None
            if candidate.budget > 1:
                assert candidate.parent is not None
                assert candidate.parent.genotype == candidate.genotype
                assert candidate.parent.evaluation.state == {"budget": candidate.budget // 3}
            rungs[candidate.budget].append(candidate.genotype)
            state = {"budget": candidate.budget}
            strategy.tell(candidate, Evaluation(world.score(candidate.genotype).score, 1.0, state))
        for lower, upper in ((1, 3), (3, 9)):
            best = sorted(rungs[lower], key=lambda g: -world.score(g).score)
            assert rungs[upper] == best[: len(rungs[lower]) // 3]


def test_successive_halving_waits_for_the_end_of_a_rung() -> None:
    strategy = SuccessiveHalving(SPACE, 0, candidates=2, budgets=(1, 2), eta=2)
    out = [strategy.ask(), strategy.ask()]
    assert strategy.ask() is None
    for candidate in out:
        assert candidate is not None
        strategy.tell(candidate, world.score(candidate.genotype))
    promoted = strategy.ask()
    assert promoted is not None
    assert promoted.budget == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Evolution(SPACE, 0, population=0), "population: expected at least 1, got 0"),
        (lambda: Evolution(SPACE, 0, sample=0), "sample: expected at least 1, got 0"),
        (lambda: ReNAS(SPACE, 0, HistoryController(SPACE, 0), population=0), "population: expected at least 1"),
        (lambda: ReinforceSearch(SPACE, 0, lr=math.nan), "lr: expected at least 0, got nan"),
        (lambda: ReinforceSearch(SPACE, 0, decay=1.0), "decay: expected a number in"),
        (lambda: SuccessiveHalving(SPACE, 0, candidates=0), "candidates: expected at least 1"),
        (lambda: SuccessiveHalving(SPACE, 0, budgets=(3, 1)), "budgets: expected increasing"),
        (lambda: SuccessiveHalving(SPACE, 0, budgets=()), "budgets: expected increasing"),
        (lambda: SuccessiveHalving(SPACE, 0, eta=1), "eta: expected at least 2"),
    ],
)
def test_invalid_parameters(make: Callable[[], Strategy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("config", [EvolutionConfig, ReNASConfig])
def test_a_search_without_mutations_warns(config: type, recwarn: pytest.WarningsRecorder) -> None:
    config(evaluations=6, population=4, sample=2).strategy(NASBench201())
    assert not recwarn.list
    with pytest.warns(UserWarning, match="evaluations: all 4 are of the initial population of 4: nothing is mutated"):
        config(evaluations=5, population=4, sample=2).strategy(NASBench201())  # one is a final training
