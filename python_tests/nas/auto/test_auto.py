"""``search auto`` on a few digits: the race, the result and its files, and resuming at any moment."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from automl_ext.data.images import Split
from automl_ext.nas.auto import auto as auto_module
from automl_ext.nas.auto.auto import (
    CUTMIX,
    WEIGHT_DECAY,
    Race,
    auto,
    class_log_probabilities,
    prepare_race,
    survives_mirroring,
)
from automl_ext.nas.auto.auto_report import table_of
from automl_ext.nas.auto.auto_result import race_row
from automl_ext.nas.auto.auto_result import row as row_of
from automl_ext.nas.auto.entrant import Entrant, beats_chance
from automl_ext.nas.auto.plan import RACE_OF_FEW, AutoConfig, Networks, NetworkSpec, Plan, Rung, halving, largest
from automl_ext.nas.auto.work import HELD_LEAST, Finished, Task, Worker
from automl_ext.nas.export.export import export, load_network
from automl_ext.nas.plot import plot_run
from automl_ext.nas.spaces.registry import space
from automl_ext.training.errors import UserError

CONV = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def clock() -> Iterator[None]:
    """Two small networks, and time as a function of the steps, so that every run has the same plan."""

    def seconds(worker: Worker, trainee: Any, device: torch.device) -> float:
        return 0.05 * trainee.step

    def plan(configuration: AutoConfig, *_: Any) -> Plan:
        entries = [NetworkSpec(f"plain, C = {c}", "convnet", "plain-s1-1-1-1", c) for c in (4, 6)]
        return Plan(entries, halving(2, RACE_OF_FEW * configuration.budget), [0.05, 0.05])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "seconds", seconds)
        patch.setattr(auto_module, "make_plan", plan)
        patch.setattr(auto_module, "process_time", lambda: 0.0)
        yield


def config(**options: Any) -> AutoConfig:
    return AutoConfig(**{"subset": 100, "candidates": 6, "minutes": 0.05, **options})


@functools.cache
def networks() -> Networks:
    return prepare_race(config(), None, None).networks


def new_race(**options: Any) -> Race:
    """Return a race that is not planned yet; all of them share the networks, which take time to prepare."""
    return Race(config(**options), networks(), 0.0)


@pytest.mark.parametrize(("wide", "option", "found"), [(0.1, None, True), (0.19, None, False), (0.1, False, False)])
def test_bfloat16_is_used_where_it_is_faster(wide: float, option: bool | None, found: bool) -> None:
    """A wide network that takes half the time, or nearly the same; an option decides, too."""
    race = new_race(bfloat16=option, minutes=1)
    probe = race.next_task()
    assert probe is not None
    times = {"seconds": torch.tensor([0.02, 0.2])}
    if option is None:
        times["bfloat16"] = torch.tensor([0.02, wide])
    race.take(probe, Finished(0.1, table=times))
    assert race.recipe.bfloat16 is found
    assert ("bfloat16" in race.text()) is found
    other = new_race(bfloat16=option, minutes=1)
    other.load_state_dict(race.state_dict())
    assert other.recipe == race.recipe


@pytest.mark.slow
def test_the_probe_measures_what_is_to_be_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (True, None, 10, 2), (True, None, 0.001, 1), (False, None, 10, 1), (True, True, 10, 1), (True, False, 10, 1)
    for supported, option, minutes, expected in cases:
        monkeypatch.setattr("automl_ext.nas.auto.work.has_bfloat16", lambda _, supported=supported: supported)
        race = prepare_race(config(bfloat16=option, minutes=minutes), None, None)
        probe = race.next_task()
        assert probe is not None
        table = race.worker.work(*race.arguments(probe)).table
        assert table is not None
        assert len(table) == expected
        assert race.recipe.bfloat16 is bool(option)


def test_largest_architecture_of_the_space() -> None:
    assert str(largest(space("nb201"))) == CONV


@pytest.mark.parametrize("held", [HELD_LEAST - 1, HELD_LEAST])
def test_the_table_says_when_validation_figures_are_of_an_earlier_network(held: int) -> None:
    race = new_race()
    labels = torch.zeros(held, dtype=torch.long)
    images = replace(race.images, valid=Split(torch.zeros(held, 1, 1, 1), labels))
    right, wrong = torch.arange(10.0, 0.0, -1).log_softmax(0), torch.arange(10.0).log_softmax(0)
    tests = right.expand(len(images.test.labels), 10)
    entrant = Entrant(0, NetworkSpec("plain, C = 4", "convnet", "plain-s1-1-1-1", 4))
    entrant.snapshots = [(p.expand(held, 10), tests) for p in (wrong, right, right)]  # two of them after the race
    entrant.clean = 1
    found = row_of(entrant, race.networks, images, 1.0)
    few = held < HELD_LEAST
    assert (found["valid_earlier"], found["valid_accuracy"]) == (few, 0.0 if few else 1.0)
    table = table_of({"rows": [found], "baselines": True, "network_name": "plain"}, "")
    assert ("before the validation images trained" in str(table.caption)) is few


@pytest.mark.parametrize("held", [HELD_LEAST - 1, HELD_LEAST])
def test_a_loss_on_images_that_trained_the_network_is_left_out(held: int) -> None:
    found = race([[0.3, 0.2, 0.1, 0.1], [0.4, 0.3], [0.5, 0.4, math.inf]])
    log_p = torch.zeros(held, 10)
    found.images = replace(found.images, valid=Split(torch.zeros(held, 1, 1, 1), torch.zeros(held)))
    for entrant in found.entrants:  # only the first one was trained after the race, the last one until it diverged
        entrant.clean = 2
        entrant.snapshots = [(log_p, log_p)] * sum(map(math.isfinite, entrant.losses))
    few = held < HELD_LEAST
    rows = [race_row(entrant, found.images)["valid_log_loss"] for entrant in found.entrants]
    assert rows == [[0.3, 0.2] if few else [0.3, 0.2, 0.1, 0.1], [0.4, 0.3], [0.5, 0.4, math.inf]]
    finished = Finished(1.0, valid=log_p)
    assert ("last0_valid_loss" in found.named(Task("last", 0, last=True), finished)) is not few
    assert "race1_valid_loss" in found.named(Task("race", 1), finished)


@pytest.mark.slow
def test_result_and_files(tmp_path: Path, clock: None, capsys: pytest.CaptureFixture[str]) -> None:
    result = auto(config(baselines=True, channels=2), tmp_path / "run")
    assert result is not None
    assert "the winner goes on" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/result.json").read_text())["genotype"] == result["genotype"]
    assert not (tmp_path / "run/best.json").exists()
    found, *baselines = result["rows"]
    assert [row["name"] for row in baselines] == ["largest cell", "best-ranked cell", "plain CNN, 32-64-128"]
    for row in (found, *baselines):
        assert row["seconds"] == pytest.approx(3.0, rel=0.05)  # the whole budget, 0.05 minutes
        assert min(row["epochs"], row["steps"]) > 0
    winner = max(result["race"], key=lambda row: row["seconds"])
    assert winner["seconds"] > (1 - RACE_OF_FEW) * 3.0
    assert all(row["valid_earlier"] for row in result["rows"])
    assert result["recipe"]["flip"] is False  # a mirrored digit is another one
    confusion = torch.tensor(result["confusion"])
    assert float(confusion.diag().sum() / confusion.sum()) == pytest.approx(result["test_accuracy"])
    network, genotype, _, facts = load_network(tmp_path / "run")
    assert str(genotype) == result["genotype"]
    assert network(torch.zeros(2, 1, *facts["image_size"])).shape == (2, 10)
    assert [path.suffix for path in export(tmp_path / "run", tmp_path / "net.py")] == [".py", ".pt"]
    assert {"accuracy.png", "cell.png", "confusion.png"} <= {path.name for path in plot_run(tmp_path / "run")}


@pytest.fixture(scope="module")
def whole(clock: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any] | None:
    return auto(config(), tmp_path_factory.mktemp("auto") / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 4])  # after the probe, in the race, in the last training
def test_an_interrupted_search_ends_alike(tmp_path: Path, whole: dict[str, Any] | None, steps: int) -> None:
    assert auto(config(), tmp_path / "parts", stop_after=steps) is None
    if steps > 1:  # what was best when it stopped can be used
        best = json.loads((tmp_path / "parts/best.json").read_text())
        network, *_ = load_network(tmp_path / "parts")
        assert network(torch.zeros(1, 1, 8, 8)).isfinite().all()
        assert best["steps"] > 0
    parts = auto(config(), tmp_path / "parts", resume="auto")
    assert whole is not None
    assert parts is not None
    for name in ("genotype", "rows", "race", "recipe", "trajectory"):
        assert parts[name] == whole[name], name


def test_planning_counts_in_the_budget(clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((1.0, 3.0, 10.0, 14.0))  # before and after the networks are prepared, then the plan
    monkeypatch.setattr(auto_module, "process_time", lambda: next(times))
    found = prepare_race(config(bfloat16=False, minutes=1), None, None)
    probe = found.next_task()
    assert probe is not None
    found.take(probe, Finished(0.5, table={"seconds": torch.tensor([0.02, 0.2])}))
    assert found.spent == {"probe": 2.0 + 0.5 + 4.0}


def test_the_budget_is_kept_on_a_machine_that_slows_down(
    tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(worker: Worker, trainee: Any, device: torch.device) -> float:
        return 0.05 * trainee.step + 0.05 * max(trainee.step - 15, 0)  # half as fast after 15 steps

    monkeypatch.setattr(Worker, "seconds", seconds)
    monkeypatch.setattr(auto_module, "PART", 0.2)
    result = auto(config(), tmp_path / "run")
    assert result is not None
    assert result["rows"][0]["seconds"] < 1.3 * 3.0  # with the end set at the first measurement, 1.42


def race(losses: list[list[float]], rates: tuple[float, ...] = (), chance: float = 9.0, **options: Any) -> Race:
    """Return a race of networks whose losses are known; those below ``chance`` beat it."""
    found = new_race(**options)
    entries = [NetworkSpec(f"network {i}", "convnet", "plain-s1-1-1-1", 4 + i) for i in range(len(losses))]
    for i, rate in enumerate(rates):
        entries[i] = entries[i]._replace(channels=4, rate=rate)
    found.plan = Plan(entries, halving(len(entries), 8.0), [0.1] * len(entries))
    found.entrants = [
        Entrant(i, e, losses=x, learned=[y < chance for y in x], mirrored=[None] * len(x), steps=9, seconds=1.0)
        for i, (e, x) in enumerate(zip(entries, losses, strict=True))
    ]
    return found


@pytest.mark.slow
def test_the_better_half_stays() -> None:
    third = race([[0.9, 0.1], [0.3, 0.5], [0.2, 0.4], [0.4]])
    assert [e.number for e in third.alive(1)] == [2, 1]
    assert third.winner().number == 2
    assert [e.number for e in race([[math.inf], [0.3], [0.2], [math.inf]]).alive(1)] == [2, 1]
    with pytest.raises(UserError, match="all trainings diverged"):
        race([[math.inf], [math.inf]]).winner()


@pytest.mark.parametrize(
    ("losses", "next_one"),
    [
        ([[0.1, 0.1, math.inf], [0.2, 0.2], [0.3], [0.4]], 1),  # the winner, in the last part
        ([[0.1, math.inf], [0.2, math.inf], [0.4], [0.3]], 3),  # both in the last rung
    ],
)
def test_after_a_divergence_the_next_best_network_goes_on(losses: list[list[float]], next_one: int) -> None:
    task = race(losses).next_task()
    assert task is not None
    assert (task.stage, task.entry) == ("last", next_one)


def test_a_network_that_takes_over_late_keeps_the_budget() -> None:
    found = race([[0.1, math.inf], [0.2]], minutes=1)
    found.spent = {"race": 59.0, "last": 0.0}
    second = found.entrants[1]
    while not second.finished:
        task = found.next_task()
        assert task is not None
        seconds = (task.until - second.steps) * found.step_seconds(second)
        second.steps = task.until
        second.seconds += seconds
        found.spent["last"] += seconds
    assert found.search_seconds() == pytest.approx(60, abs=0.1)


def test_validation_images_train_a_baseline_after_the_share_of_the_race() -> None:
    found = race([[0.1, 0.1], [0.2]], minutes=1)
    found.enter([NetworkSpec("plain", "convnet", "plain-s1-1-1-1", 4)], baseline=True)
    entrant, tasks = found.entrants[-1], []
    while not entrant.finished:
        task = found.last_task(entrant, "baseline")
        entrant.seconds += 0.1 * (task.until - entrant.steps)
        entrant.steps = task.until
        entrant.losses += [0.5] * task.measure
        tasks.append((task.last, task.measure, entrant.seconds))
    first = next(i for i, (_, measured, _) in enumerate(tasks) if measured)
    assert tasks[first][2] == pytest.approx(RACE_OF_FEW * 60, abs=0.1)
    assert [last for last, *_ in tasks] == [i > first for i in range(len(tasks))]
    assert entrant.seconds == pytest.approx(60, abs=0.1)


def test_of_one_network_with_several_rates_the_best_stays_and_all_take_its_rate() -> None:
    found = race([[0.5], [0.4], [0.9], [0.8]], rates=(1.0, 2.5))
    assert [e.number for e in found.alive(1)] == [1, 3]
    assert found.recipe_for(found.entrants[3]).lr == pytest.approx(2.5 * found.recipe.lr)


ROUND, TURNED = [40, 40, 40], [40, 3, 2]  # recognized images of three classes; the last two are mirror images


@pytest.mark.parametrize(
    ("mirrored", "plain", "images", "flip"),
    [
        ([38, 37, 33], ROUND, [50, 50, 50], True),
        ([30, 30, 30], ROUND, [50, 50, 50], False),  # each class keeps more than half, but too little is left
        (TURNED, ROUND, [50, 50, 50], False),
        ([850, 1, 2], [900, 20, 22], [900, 25, 25], False),  # of 97 % of the images, mirrored ones are recognized
        ([45, 1, 1], [45, 1, 2], [50, 50, 50], False),  # nothing is learned but the first class
        ([40, 0, 38], [40, 0, 40], [50, 0, 50], True),  # a class without images
        ([40, 0, 38], [40, 1, 40], [50, 50, 50], True),  # one image more or less tells nothing
    ],
)
def test_images_are_mirrored_if_each_class_is_recognized_in_mirrored_ones(
    mirrored: list[int], plain: list[int], images: list[int], flip: bool
) -> None:
    assert survives_mirroring(torch.tensor(mirrored), torch.tensor(plain), torch.tensor(images)) is flip


@pytest.mark.parametrize("flip", [False, True])
def test_the_recipe_mirrors_images_if_no_class_is_lost(flip: bool) -> None:
    found, given = race([[0.2], [0.4]]), race([[0.2], [0.4]], flip=not flip)
    plain = torch.bincount(found.images.valid.labels)
    mirrored = plain.clone()
    mirrored[:4] *= flip
    for each in (found, given):
        each.entrants[0].mirrored = [(mirrored, plain)]
    assert found.recipe_for(found.entrants[0]).flip is flip
    assert given.recipe_for(given.entrants[0]).flip is not flip


@pytest.mark.parametrize(("minutes", "usual"), [(10.0, CUTMIX), (5.0, 0.0)])  # 6,000 or 3,000 steps
def test_long_trainings_have_cutmix(minutes: float, usual: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found, given = (race([[0.2], [0.4]], minutes=minutes, cutmix=value) for value in (None, 0.25))
    begins = Entrant(2, found.entrants[0].entry)  # in the first rung
    assert [found.recipe_for(e).cutmix for e in (found.entrants[0], begins)] == [usual, 0]
    assert [given.recipe_for(e).cutmix for e in (found.entrants[0], begins)] == [0.25, 0.25]
    decays = [a.recipe_for(e).weight_decay for a in (found, given) for e in (found.entrants[0], begins)]
    assert decays == 2 * [WEIGHT_DECAY if usual else found.recipe.weight_decay, found.recipe.weight_decay]
    monkeypatch.setattr(auto_module, "LONG_EPOCHS", 10_000)  # these are 3,000 epochs, or 1,500
    assert found.recipe_for(found.entrants[0]).cutmix == 0


@pytest.mark.parametrize(("chance", "rate", "flip"), [(9.0, 2.5, False), (0.35, 1.0, True), (0.1, 1.0, False)])
def test_the_first_rung_in_which_a_network_beats_chance_decides_the_recipe(
    chance: float, rate: float, flip: bool
) -> None:
    found = race([[0.5, 0.3], [0.4, 0.6]], rates=(1.0, 2.5), chance=chance)
    plain = torch.bincount(found.images.valid.labels)
    for entrant in found.entrants:
        entrant.mirrored = [(0 * plain, plain), (plain, plain)]
    assert found.plan is not None
    found.plan = found.plan._replace(rungs=[Rung(2, 1.0), Rung(1, 1.0)])
    recipe = found.recipe_for(found.entrants[0])
    assert recipe.flip is flip
    assert recipe.lr == pytest.approx(rate * found.recipe.lr)


def test_losses_at_chance_eliminate_no_network() -> None:
    """Four networks, the second with the lowest loss in the first rung, the third in the second one."""
    found = race([[1.9, 1.6], [1.7, 1.5], [1.8, 0.5], [2.0, 1.7]])
    assert [e.number for e in found.alive(1)] == [1, 2]
    assert found.text_of_rung(0) == ""
    for entrant in found.entrants:
        entrant.learned[0] = False
    assert [e.number for e in found.alive(1)] == [0]
    assert found.winner().number == 0
    assert found.text_of_rung(0) == (
        "race 1: no network beats chance by two standard errors, so the losses decide nothing; "
        "network 0 goes on, which fits the budget best"
    )
    assert found.text_of_rung(1) == ""  # it goes on alone
    found.entrants[0].losses[0] = math.inf
    assert found.winner().number == 1
    found.entrants[2].losses.clear()
    assert found.text_of_rung(0) == ""  # one is still trained


@pytest.mark.parametrize(("certainty", "expected"), [(0.0, False), (0.01, False), (1.0, True), (-1.0, False)])
def test_a_network_beats_chance_by_two_standard_errors(certainty: float, expected: bool) -> None:
    """An image in three of two classes is of the first one; a network knows the class, or something near to nothing."""
    labels = (torch.arange(90) % 3 > 0).long()
    chance = torch.tensor([1 / 3, 2 / 3]).double().log()
    noise = torch.randn(90, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    scores = chance + noise * (certainty != 0) + certainty * torch.nn.functional.one_hot(labels, 2)
    assert beats_chance(scores.log_softmax(1), labels, chance) is expected


def test_chance_is_what_a_network_learns_without_images() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3)
    assert class_log_probabilities(config(), labels, 2).exp().tolist() == pytest.approx([2 / 3, 1 / 3])
    weighted = config(class_weights="balanced")
    assert class_log_probabilities(weighted, labels, 2).exp().tolist() == pytest.approx([0.5, 0.5])


def test_batch_norms_have_the_statistics_of_the_measured_weights() -> None:
    """After a few steps, running averages still have much of their initial values."""
    found = new_race()
    spec = NetworkSpec("plain, C = 4", "convnet", "plain-s1-1-1-1", 4)
    finished = found.worker.work(Task("race", 0, until=3, measure=True), spec, found.recipe, None)
    assert finished.state is not None
    network = found.networks.build(spec)
    average = {k.removeprefix("module."): v for k, v in finished.state["average"].items() if k != "n_averaged"}
    network.load_state_dict(average)
    first = network.layers[0]
    mean = first[0](found.images.train.images).mean((0, 2, 3))
    torch.testing.assert_close(first[1].running_mean, mean, rtol=1e-4, atol=1e-5)


def test_a_network_in_work_is_not_given_out_twice() -> None:
    found = race([[], []])
    first = found.next_task()
    assert first is not None
    found.pending.append(first)
    second = found.next_task()
    assert second is not None
    assert {first.entry, second.entry} == {0, 1}
    found.pending.append(second)
    assert found.next_task() is None


def test_a_rate_that_is_too_high_is_an_error(tmp_path: Path, clock: None) -> None:
    with pytest.raises(UserError, match="all trainings diverged; try a lower --lr"):
        auto(config(lr=1e9), tmp_path / "run")


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="shift"):
        prepare_race(config(shift=8), None, None)
