"""The plan of ``search auto``: what the budget buys, and the order of the tasks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from automl_ext.nas.auto.plan import (
    CHUNK,
    DERIVE,
    LEAST_EPOCHS,
    LEAST_STEPS,
    SUPERNET_STEPS,
    AutoConfig,
    Done,
    Task,
    make_plan,
    next_task,
)

CANDIDATES = [f"g{i}" for i in range(120)]
CONFIG = AutoConfig(minutes=10, epochs=27, candidates=120, finalists=3)
FEW, MANY = LEAST_STEPS // 3 + 1, LEAST_STEPS  # batches per epoch: short trainings take at least 3 epochs, or 1


def run_through(
    config: AutoConfig,
    accuracy: dict[str, float],
    largest: float = 1.0,
    batches: int = FEW,
    derived: Sequence[str] | None = None,
) -> list[Done]:
    """Run all tasks.

    Args:
        derived: the architectures that a supernet gives; None: the space has no supernet.

    A training takes 1 second per epoch, of the largest architecture ``largest`` seconds; a screening 1 second per
    architecture.
    """

    def ranked(found: Sequence[Done]) -> list[str]:
        screened = CANDIDATES[: CHUNK * sum(d.task.stage == "screen" for d in found)]
        return ["largest", *[g for d in found for g in d.measured.get("genotypes", ())], *screened]

    done: list[Done] = []
    facts = batches, CANDIDATES, "largest", ranked, lambda i: f"random{i}", derived is not None
    while (task := next_task(config, *facts, done)) is not None:
        seconds = {"screen": CHUNK, "derive": 60 * config.minutes * DERIVE}.get(task.stage)
        seconds = seconds or task.epochs * (largest if task.genotype == "largest" else 1.0)
        measured = {"genotypes": derived} if task.stage == "derive" else {}
        done.append(Done(task, seconds, accuracy.get(task.genotype, 0.5), measured))
        assert len(done) < 1000
    return done


def stage(done: Sequence[Done], name: str, rung: int = 0) -> list[Task]:
    return [d.task for d in done if d.task.stage == name and d.task.rung == rung]


@pytest.mark.parametrize("minutes", [0.1, 1, 10, 100])
@pytest.mark.parametrize("epoch", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("batches", [FEW, MANY])
@pytest.mark.parametrize("derived", [False, True])
def test_the_trainings_fit_into_the_budget(minutes: float, epoch: float, batches: int, derived: bool) -> None:
    config = AutoConfig(minutes=minutes, epochs=40, finalists=5)
    plan = make_plan(config, epoch, batches, derived)
    assert 1 <= plan.finalists <= 4
    short = sum(max(plan.rung_seconds, plan.finalists * epochs * epoch) for epochs in plan.rungs)
    seconds = short + epoch * plan.epochs * (plan.finalists + 1)
    smallest = epoch * 2 * LEAST_EPOCHS  # one finalist and the largest architecture
    assert seconds <= max(60 * minutes * 0.85 - derived * plan.derive, smallest)


def test_the_best_are_promoted_with_their_weights() -> None:
    accuracy = {"g0": 0.7, "g1": 0.9, "g2": 0.8, "largest": 0.6}
    done = run_through(CONFIG, accuracy)
    first, second, full = stage(done, "short"), stage(done, "short", rung=1), stage(done, "full")
    assert "largest" not in [t.genotype for t in first]  # it is trained fully in any case
    assert {t.start for t in first} == {None}
    number = {t.genotype: t.number for t in first}
    assert [t.genotype for t in second[:3]] == ["g1", "g2", "g0"]
    assert [t.start for t in second[:3]] == [number["g1"], number["g2"], number["g0"]]
    assert [t.genotype for t in full] == ["g1", "g2", "largest"]  # two finalists and the baseline
    number = {t.genotype: t.number for t in second}
    assert [t.start for t in full] == [number["g1"], number["g2"], None]
    assert {t.epochs for t in full} == {make_plan(CONFIG, 1.0, FEW).epochs}


def test_short_trainings_have_enough_steps_to_tell_architectures_apart() -> None:
    def epochs(minutes: float, batches: int) -> list[int]:
        return list(make_plan(AutoConfig(minutes=minutes, epochs=40), 10.0, batches).rungs)

    assert [epochs(minutes, MANY) for minutes in (1, 2, 5, 15)] == [[], [1], [1, 3], [1, 3, 9]]
    assert [epochs(minutes, FEW) for minutes in (4, 5, 15, 20)] == [[], [3], [3, 9], [3, 9]]


def test_without_short_trainings_the_highest_ranked_are_trained_fully() -> None:
    done = run_through(AutoConfig(minutes=4, epochs=40, finalists=4, baselines=False), {"g0": 0.1}, largest=9.0)
    assert not stage(done, "short")
    assert [t.genotype for t in stage(done, "full")][:3] == ["g0", "largest", "g1"]
    assert {t.epochs for t in stage(done, "full")} == {8}


@pytest.mark.parametrize("epochs", [1, 2])
def test_no_training_has_more_epochs_than_given(epochs: int) -> None:
    config = AutoConfig(minutes=10, epochs=epochs, finalists=3)
    assert {t.epochs for t in stage(run_through(config, {}), "full")} == {epochs}


def test_a_rung_takes_its_share_of_the_budget() -> None:
    plan = make_plan(CONFIG, 1.0, MANY)
    done = run_through(CONFIG, {}, batches=MANY)
    for rung, epochs in enumerate(plan.rungs):
        seconds = epochs * len(stage(done, "short", rung))
        assert plan.rung_seconds - epochs < seconds <= plan.rung_seconds


def test_time_that_is_left_goes_to_further_finalists() -> None:
    """The plan counts on the cost of the largest architecture, so cheaper ones leave time for more of them."""
    config = AutoConfig(minutes=30, epochs=27, candidates=120, finalists=6, baselines=False)
    done = run_through(config, {"g1": 0.9, "g2": 0.8}, largest=20.0)
    second, full = stage(done, "short", rung=1), stage(done, "full")
    assert make_plan(config, 20.0, FEW).finalists == 1
    assert [t.genotype for t in full] == ["g1", "largest", "g2", "g0", "g3", "g4"]
    numbers = {t.genotype: t.number for t in second}
    assert [t.start for t in full] == [numbers.get(t.genotype) for t in full]


def test_the_random_baseline_costs_as_much_as_the_search() -> None:
    done = run_through(CONFIG, {})
    search = sum(d.seconds for d in done if d.task.stage != "random")
    random = [d for d in done if d.task.stage == "random"]
    assert search <= sum(d.seconds for d in random) < search + random[-1].seconds
    assert [d.task.genotype for d in random] == [f"random{i}" for i in range(len(random))]
    assert {d.task.epochs for d in random} == {make_plan(CONFIG, 1.0, FEW).epochs}
    assert {d.task.start for d in random} == {None}
    assert not stage(run_through(AutoConfig(minutes=10, epochs=12, baselines=False), {}), "random")


def test_screening_ends_with_its_share_of_the_budget() -> None:
    assert len(stage(run_through(CONFIG, {}), "screen")) == 2  # 90 s of 600; the second chunk starts after 50 s
    long = AutoConfig(minutes=100, epochs=12, candidates=120)
    assert len(stage(run_through(long, {}), "screen")) == 3  # all 120


def test_diverged_trainings_are_not_promoted() -> None:
    done = run_through(CONFIG, {"g0": -1.0, "g1": 0.9})
    assert "g0" in [t.genotype for t in stage(done, "short")]
    assert "g0" not in [t.genotype for t in stage(done, "short", rung=1)]


def test_derived_architectures_take_the_place_of_short_trainings() -> None:
    config = AutoConfig(minutes=10, epochs=100, candidates=120, finalists=4)
    done = run_through(config, {}, derived=["d0", "d1"])
    stages = [d.task.stage for d in done]
    assert stages == sorted(stages, key=["probe", "screen", "derive", "full", "random"].index)
    assert stages.count("derive") == 1
    assert [t.genotype for t in stage(done, "full")] == ["d0", "d1", "largest"]
    assert sum(d.seconds for d in done if d.task.stage != "random") <= 600 + CHUNK  # the last screening


def test_a_supernet_without_results_leaves_the_plan_as_it_is() -> None:
    without, given_up = run_through(CONFIG, {}), run_through(CONFIG, {}, derived=[])
    assert len(stage(given_up, "derive")) == 1
    assert make_plan(CONFIG, 1.0, FEW).rungs
    assert [t.genotype for t in stage(given_up, "short")] == [t.genotype for t in stage(without, "short")]


def test_no_supernet_is_trained_that_would_have_too_few_steps() -> None:
    seconds = 2 * SUPERNET_STEPS / FEW / DERIVE  # an epoch of the largest architecture takes one
    for minutes, trained in ((0.99 * seconds / 60, 0), (1.01 * seconds / 60, 1)):
        config = AutoConfig(minutes=minutes, epochs=40, candidates=120, finalists=3)
        assert len(stage(run_through(config, {}, derived=["d0"]), "derive")) == trained
