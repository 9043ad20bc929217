"""LowerFidelity: images and channels used, exact continuation, diverging trainings, invalid arguments."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import pytest
import torch
from compare_runs import same
from torch import nn

from automl_ext.data.images import Split, Splits
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.nas.training.batches import accuracy
from automl_ext.nas.training.training_options import TrainingConfig
from automl_ext.training.files.checkpoint import check_state

CELL = Genotype.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
CONFIG = TrainingConfig(channels=4, epochs=4, batch_size=16, device="cpu")


def part(size: int, seed: int) -> Split:
    """Images of three classes, which differ in the position of a bright quarter."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    images = 0.5 * torch.randn(size, 1, 8, 8, generator=rng)
    for label in range(3):
        images[labels == label, :, 4 * (label // 2) :, 4 * (label % 2) :] += 1
    return Split(images, labels)


SPLITS = Splits(part(96, 0), part(60, 1), part(30, 2), 3, 1, (8, 8), ("a", "b", "c"), (0.0,), (1.0,))


def test_continued_training_equals_uninterrupted_training() -> None:
    evaluator = LowerFidelity(CONFIG, SPLITS)
    whole = evaluator.evaluate(CELL)
    first = evaluator.evaluate(CELL, 1)
    second = evaluator.evaluate(CELL, 3, first.state)
    third = evaluator.evaluate(CELL, 4, second.state)
    same(third.state, whole.state)
    assert third.score == whole.score
    assert [e.measured["epochs"] for e in (whole, first, second, third)] == [4, 1, 2, 1]
    assert third.measured["loss"] == whole.measured["loss"]


class WithDropout(NASBench201):
    """Networks that draw from torch's global generator."""

    def build(self, genotype: Genotype, **shape: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.3), super().build(genotype, **shape))


def test_continued_training_with_dropout_equals_uninterrupted_training() -> None:
    evaluator = LowerFidelity(CONFIG, SPLITS, space=WithDropout())
    whole = evaluator.evaluate(CELL)
    torch.manual_seed(7)  # what was drawn before has no effect
    first = evaluator.evaluate(CELL, 2)
    torch.rand(3)
    same(evaluator.evaluate(CELL, 4, first.state).state, whole.state)


def test_a_state_can_be_continued_twice() -> None:
    evaluator = LowerFidelity(CONFIG, SPLITS)
    state = evaluator.evaluate(CELL, 1).state
    before = copy.deepcopy(state)
    once = evaluator.evaluate(CELL, 3, state)
    same(state, before)
    same(evaluator.evaluate(CELL, 3, state).state, once.state)


def test_a_finished_budget_trains_no_epoch() -> None:
    evaluator = LowerFidelity(CONFIG, SPLITS)
    first = evaluator.evaluate(CELL, 2)
    again = evaluator.evaluate(CELL, 2, first.state)
    assert again.measured == {**first.measured, "epochs": 0}
    assert again.score == first.score


def test_the_state_fits_into_a_checkpoint() -> None:
    check_state(LowerFidelity(CONFIG, SPLITS).evaluate(CELL, 1).state)


def test_training_and_validation_images_are_kept_apart() -> None:
    evaluator = LowerFidelity(replace(CONFIG, epochs=8), SPLITS)
    found = evaluator.evaluate(CELL)
    network = NASBench201().build(CELL, in_channels=1, num_classes=3, channels=4, cells=1)
    network.load_state_dict(found.state["training"]["network"])
    assert found.score == accuracy(network, SPLITS.valid)
    assert found.score > 0.8
    assert found.cost > 0
    assert not found.failed
    # Validation labels and test images do not affect the training.
    other = replace(SPLITS, valid=Split(SPLITS.valid.images, (SPLITS.valid.labels + 1) % 3), test=part(30, 9))
    shifted = LowerFidelity(replace(CONFIG, epochs=8), other).evaluate(CELL)
    same(shifted.state, found.state)
    assert shifted.score < 0.2


def test_fewer_images_are_stratified() -> None:
    evaluator = LowerFidelity(CONFIG, SPLITS, images=24)
    assert torch.bincount(evaluator.splits.train.labels).tolist() == [8, 8, 8]
    assert len(evaluator.valid.labels) == 60
    same(LowerFidelity(CONFIG, SPLITS, images=24).splits.train.images, evaluator.splits.train.images)


def test_fewer_channels_give_fewer_parameters() -> None:
    sizes = [
        LowerFidelity(replace(CONFIG, channels=c), SPLITS).evaluate(CELL, 1).measured["parameters"] for c in (2, 4)
    ]
    assert sizes[0] < sizes[1]


def test_global_generators_are_not_affected() -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(2), random.random()
    torch.manual_seed(5)
    random.seed(5)
    evaluator = LowerFidelity(CONFIG, SPLITS)
    evaluator.evaluate(CELL, 1)
    assert torch.equal(torch.rand(2), expected[0])
    assert random.random() == expected[1]


@pytest.mark.parametrize(
    ("budget", "changes"),
    [
        (None, {"lr": 1e20}),
        (1, {"batch_size": 96, "lr": 1e12}),  # after one large step, finite weights whose products overflow
        (1, {"batch_size": 96, "lr": 1e30, "weight_decay": 1e12}),  # infinite weights
    ],
    ids=["loss", "logits", "weights"],
)
def test_a_diverging_training_fails(budget: int | None, changes: dict[str, float]) -> None:
    """The loss of a single step is computed before the weights change."""
    found = LowerFidelity(replace(CONFIG, **changes), SPLITS).evaluate(CELL, budget)
    assert found.failed
    assert found.score == -math.inf
    assert found.state is None
    assert math.isfinite(found.measured["loss"]) == (budget == 1)
    assert found.measured["epochs"] <= 2


@pytest.mark.parametrize("budget", [0, 5])
def test_budget_out_of_range(budget: int) -> None:
    with pytest.raises(ValueError, match=f"budget: expected 1 to 4 epochs .*got {budget}"):
        LowerFidelity(CONFIG, SPLITS).evaluate(CELL, budget)


@pytest.mark.parametrize("images", [0, 97])
def test_images_out_of_range(images: int) -> None:
    with pytest.raises(ValueError, match=f"images: expected 1 to 96 training images, got {images}"):
        LowerFidelity(CONFIG, SPLITS, images=images)


def test_states_of_other_trainings_are_refused() -> None:
    evaluator = LowerFidelity(CONFIG, SPLITS)
    state = evaluator.evaluate(CELL, 2).state
    with pytest.raises(ValueError, match="state: expected one that LowerFidelity returned"):
        evaluator.evaluate(CELL, 3, {"weights": 1})
    with pytest.raises(ValueError, match=r"state: expected one of .*none.*, got one of"):
        evaluator.evaluate(Genotype(("none",) * 6), 3, state)
    with pytest.raises(ValueError, match=r"belongs to another training: channels 4 \(here 2\)"):
        LowerFidelity(replace(CONFIG, channels=2), SPLITS).evaluate(CELL, 3, state)
    with pytest.raises(ValueError, match=r"another training: images 96 \(here 24\)"):
        LowerFidelity(CONFIG, SPLITS, images=24).evaluate(CELL, 3, state)
    with pytest.raises(ValueError, match="state: has had 2 epochs, more than the budget 1"):
        evaluator.evaluate(CELL, 1, state)


def test_a_training_continues_on_another_device() -> None:
    state = LowerFidelity(replace(CONFIG, device="auto"), SPLITS).evaluate(CELL, 1).state
    assert LowerFidelity(replace(CONFIG, device="cpu"), SPLITS).evaluate(CELL, 2, state).measured["epochs"] == 1


def test_state_without_an_option_that_was_added_later_continues() -> None:
    evaluator = LowerFidelity(CONFIG, SPLITS)
    state = evaluator.evaluate(CELL, 1).state
    expected = evaluator.evaluate(CELL, 2, state).score
    state["fidelity"] = {key: value for key, value in state["fidelity"].items() if key != "image_mode"}
    assert evaluator.evaluate(CELL, 2, state).score == expected
