"""The plan of ``search auto``: which networks enter, how long they are trained, and how the images are divided."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from automl_ext.data.images import Split, Splits
from automl_ext.nas.auto import plan as plan_module
from automl_ext.nas.auto.plan import (
    BEST_RANKED,
    EPOCHS,
    LARGE,
    MANY_EPOCHS,
    RACE,
    RACE_OF_FEW,
    STEPS,
    AutoConfig,
    Networks,
    NetworkSpec,
    affordable,
    cost_model,
    halving,
    make_plan,
    probed,
    step_seconds,
    text_of,
)
from automl_ext.nas.auto.trainee import Recipe
from automl_ext.nas.auto.work import HELD_LEAST, divide, last_images
from automl_ext.nas.spaces.registry import space
from automl_ext_cli.entry import main


def networks(size: int = 32) -> Networks:
    none = Split(torch.zeros(0, 3, size, size), torch.zeros(0, dtype=torch.int64))
    splits = Splits(none, none, none, 10, 3, (size, size), tuple("0123456789"), (0.0,) * 3, (1.0,) * 3)
    return Networks("nb201", space("nb201"), splits)


NETWORKS = networks()
RECIPE = Recipe(lr=0.1, batch_size=64, shift=4, flip=False, bfloat16=True)
SPEED = (0.02, 0.2)  # seconds of a step of the narrow and the wide network


@pytest.mark.parametrize("minutes", [0.1, 1, 10, 100])
@pytest.mark.parametrize(("images", "share"), [(400, RACE_OF_FEW), (2999, RACE_OF_FEW), (3000, RACE), (100_000, RACE)])
def test_the_race_has_more_of_the_budget_where_images_are_few(minutes: float, images: int, share: float) -> None:
    plan = make_plan(AutoConfig(minutes=minutes), NETWORKS, images, SPEED)
    race = sum(rung.entries * rung.seconds for rung in plan.rungs)
    assert race == pytest.approx(share * 60 * minutes)
    assert [rung.entries for rung in plan.rungs] == [len(plan.entries) >> k for k in range(len(plan.rungs))]


@pytest.mark.parametrize("minutes", [1.5, 20])  # three networks and four
def test_the_head_is_part_of_the_race(minutes: float) -> None:
    plan = make_plan(AutoConfig(minutes=minutes), NETWORKS, 7000, SPEED)
    genotypes = [entry.genotype for entry in plan.entries[:3]]
    assert genotypes == ["pooled-s1-1-1-1-max", "plain-s1-2-2-2", "pooled-s1-1-1-1-both"]
    assert len({entry.name for entry in plan.entries}) == len(plan.entries)
    maximum, _, both = (NETWORKS.build(entry).classifier.in_features for entry in plan.entries[:3])
    assert both == 2 * maximum


@pytest.mark.parametrize("minutes", [1.5, 6])
def test_on_few_images_two_networks_with_different_heads_race_for_long(minutes: float) -> None:
    """With 1.5 minutes, a network that learned fast at first won after 15 seconds, and ended worse."""
    plan = make_plan(AutoConfig(minutes=minutes), NETWORKS, 1000, SPEED)
    assert [entry.genotype for entry in plan.entries] == ["pooled-s1-1-1-1-max", "plain-s1-2-2-2"]
    assert plan.rungs == [(2, 15 * minutes)]


def test_three_networks_have_one_rung() -> None:
    assert halving(3, 24.0) == [(3, 8.0)]


def test_rungs_cost_the_same() -> None:
    assert [rung.entries for rung in halving(8, 24.0)] == [8, 4, 2]
    assert [rung.entries * rung.seconds for rung in halving(8, 24.0)] == [8.0] * 3


def test_more_images_mean_more_networks_and_more_time_larger_ones() -> None:
    sizes = (0.02, 50), (20, 50), (20, 7000), (20, 100_000)
    plans = [make_plan(AutoConfig(minutes=minutes), NETWORKS, images, SPEED) for minutes, images in sizes]
    assert [len(plan.entries) for plan in plans] == [1, 2, 4, 8]
    longer = [make_plan(AutoConfig(minutes=minutes), NETWORKS, 7000, SPEED) for minutes in (0.5, 5, 50)]
    costs = [NETWORKS.macs(plan.entries[0]) for plan in longer]
    assert costs[0] < costs[1] < costs[2]


def test_the_text_of_a_plan_has_every_stage() -> None:
    config = AutoConfig(minutes=0.02)
    alone = text_of(make_plan(config, NETWORKS, 50, SPEED), config, (50, 10, 10), RECIPE)
    assert "a race is too short" in alone
    config = AutoConfig(minutes=20, baselines=True)
    plan = make_plan(config, NETWORKS, 100_000, SPEED)
    whole = text_of(plan, config, (100_000, 10_000, 2000), RECIPE)
    parts = (
        "bfloat16",
        "score",
        "race 3",
        "the winner goes on",
        "three baselines",
        *(entry.name for entry in plan.entries),
    )
    assert [part for part in parts if part not in whole] == []


def test_the_first_network_can_be_trained_for_the_intended_number_of_epochs() -> None:
    minutes, images, batch = 5.0, 7000, 64
    plan = make_plan(AutoConfig(minutes=minutes), NETWORKS, images, SPEED)
    epochs = 60 * minutes / plan.seconds[0] * batch / images
    assert EPOCHS / 1.6 < epochs < EPOCHS * 1.6  # widths are a factor of up to 1.5 apart


def test_more_epochs_come_before_more_multiply_adds() -> None:
    """On seeds 5 and 6, 45 epochs with C = 24 were better than 31 with C = 32, both with CutMix."""
    short, long = (make_plan(AutoConfig(minutes=minutes), NETWORKS, 7000, SPEED) for minutes in (5.5, 11))
    assert NETWORKS.macs(short.entries[0]) == NETWORKS.macs(long.entries[0]) < LARGE
    assert 2 * EPOCHS < 60 * 11 / long.seconds[0] * 64 / 7000 < MANY_EPOCHS


def test_four_times_the_budget_doubles_the_size_of_large_networks() -> None:
    plans = [make_plan(AutoConfig(minutes=minutes), NETWORKS, 7000, SPEED) for minutes in (160, 640)]
    sizes = [NETWORKS.macs(plan.entries[0]) for plan in plans]
    assert sizes[0] > LARGE
    assert 2 / 1.6 < sizes[1] / sizes[0] < 2 * 1.6  # widths are a factor of up to 1.5 apart


def test_few_images_mean_more_epochs_but_no_fewer_steps() -> None:
    config = AutoConfig(minutes=20)
    macs = affordable(config, NETWORKS, 50, SPEED)
    assert 60 * 20 / step_seconds(NETWORKS, SPEED, 32, macs) == pytest.approx(STEPS)


def test_a_cost_is_a_fixed_time_and_one_per_multiply_add() -> None:
    fixed, per_mac = cost_model(NETWORKS, SPEED, 64)
    narrow, wide = (NETWORKS.macs(entry) for entry in probed(NETWORKS))
    assert fixed + 64 * narrow * per_mac == pytest.approx(SPEED[0])
    assert fixed + 64 * wide * per_mac == pytest.approx(SPEED[1])


def test_networks_of_one_size_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[nn.Module] = []
    monkeypatch.setattr(plan_module, "count_macs", lambda network, shape: counted.append(network) or 7)
    fresh = networks()
    entry = NetworkSpec("pooled", "convnet", "pooled-s1-1-1-1", 8)
    for other in (entry, entry._replace(name="probe"), entry._replace(rate=2.5)):
        assert fresh.macs(other) == 7
    assert len(counted) == 1
    fresh.macs(entry._replace(channels=4))
    assert len(counted) == 2


def test_given_options_are_not_searched() -> None:
    plan = make_plan(AutoConfig(minutes=20, lr=0.3), NETWORKS, 100_000, SPEED)
    assert {entry.rate for entry in plan.entries} == {1.0}
    assert any(entry.genotype == BEST_RANKED and entry.space == "nb201" for entry in plan.entries)


@pytest.mark.parametrize(("count", "held"), [(300, 100), (3000, 500), (9000, 900)])
def test_validation_images_are_stratified_and_apart(count: int, held: int) -> None:
    labels = torch.arange(count) % 4
    marks = torch.arange(count).float()[:, None, None, None]
    cut = 3 * count // 4
    test = Split(torch.zeros(8, 1, 1, 1), torch.arange(8) % 4)
    parts = Split(marks[:cut], labels[:cut]), Split(marks[cut:], labels[cut:])
    splits = Splits(*parts, test, 4, 1, (1, 1), tuple("abcd"), (0.0,), (1.0,))
    images = divide(splits, seed=3)
    assert torch.bincount(images.valid.labels).tolist() == [held // 4] * 4
    drawn = torch.cat([images.train.images, images.valid.images]).flatten()
    assert torch.equal(drawn.sort().values, marks.flatten())
    assert len(last_images(images).labels) == (count if held < HELD_LEAST else count - held)


@pytest.mark.slow
def test_the_plan_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "auto", "--minutes", "0.2", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("plan for 12 CPU-seconds") == 1
    assert not (tmp_path / "run").exists()
