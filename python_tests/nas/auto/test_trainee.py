"""The training of one network by steps: it goes on exactly, its rate falls at the end, its weights are averaged."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from automl_ext.data.images import Split
from automl_ext.nas.auto.trainee import DECAY, WARM_UP, WINDOW, Recipe, Trainee, rate, running_average

RECIPE = Recipe(lr=0.05, batch_size=8, shift=1, flip=True)


def images(count: int = 30) -> Split:
    draw = torch.Generator().manual_seed(1)
    return Split(torch.randn(count, 1, 6, 6, generator=draw), torch.randint(3, (count,), generator=draw))


def trainee() -> Trainee:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 3)]
    network = nn.Sequential(*layers)
    return Trainee(network, seed=5)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("stop", [2, 3, 7])  # inside an epoch of three batches, at its end, in the decay
def test_a_training_that_stopped_goes_on_exactly(stop: int, bfloat16: bool) -> None:
    whole, first, second = trainee(), trainee(), trainee()
    recipe = replace(RECIPE, bfloat16=bfloat16)
    whole.train(images(), recipe, 11, end=11)
    first.train(images(), recipe, stop, end=11)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.train(images(), recipe, 11, end=11)
    assert second.step == 11
    assert second.epochs == pytest.approx(11 * 8 / 30)
    for name, value in whole.average.state_dict().items():
        assert torch.equal(second.average.state_dict()[name], value), name


def test_a_changed_recipe_takes_effect_and_goes_on_exactly() -> None:
    """Another weight decay and CutMix after a checkpoint; biases and batch norms have no weight decay."""
    long = replace(RECIPE, weight_decay=0.1, cutmix=1.0)
    whole, part, plain = trainee(), trainee(), trainee()
    for learner in (whole, plain):
        learner.train(images(), RECIPE, 5)
    whole.train(images(), long, 7)
    part.load_state_dict(copy.deepcopy(whole.state_dict()))
    for learner in (whole, part):
        learner.train(images(), long, 9)
    plain.train(images(), replace(RECIPE, weight_decay=0.1), 9)
    for a, b in zip(whole.network.parameters(), part.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole.network[0].weight, plain.network[0].weight)
    assert [group["weight_decay"] for group in part.optimizer.param_groups] == [0.1, 0]


def test_bfloat16_is_only_less_exact() -> None:
    exact, rough = trainee(), trainee()
    losses = [each.train(images(), replace(RECIPE, bfloat16=each is rough), 6) for each in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    for a, b in zip(exact.network.parameters(), rough.network.parameters(), strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)


def test_an_unknown_end_changes_nothing_before_the_decay() -> None:
    known, unknown = trainee(), trainee()
    known.train(images(), RECIPE, 5, end=20)
    unknown.train(images(), RECIPE, 5)
    for a, b in zip(known.network.parameters(), unknown.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    assert rate(0.1, 0, None) == pytest.approx(0.1 / WARM_UP)
    assert rate(0.1, WARM_UP, None) == rate(0.1, 10_000, None) == 0.1
    start = round((1 - DECAY) * 1000)
    assert rate(0.1, start - 1, 1000) == 0.1
    assert rate(0.1, round((1 - DECAY / 2) * 1000), 1000) == pytest.approx(0.05)
    assert rate(0.1, 1000, 1000) == 0.0


def test_the_average_covers_the_last_part_of_the_steps() -> None:
    average = [torch.zeros(1)]
    for step in range(1000):
        running_average(average, [torch.full((1,), float(step))], torch.tensor(step))
    # The weight of step i among n is about (WINDOW / n)·(i / n)^(WINDOW - 1), whose mean is n·WINDOW / (WINDOW + 1).
    assert average[0].item() == pytest.approx(1000 * WINDOW / (WINDOW + 1), rel=0.01)
    counts = [torch.tensor([3])]
    running_average(counts, [torch.tensor([8])], torch.tensor(4))
    assert counts[0].item() == 8


def test_the_average_is_what_was_trained() -> None:
    learner = trainee()
    recipe = replace(RECIPE, shift=0, flip=False)
    before = learner.train(images(), recipe, 3)
    after = learner.train(images(), recipe, 150)
    assert after < before
    learner.average.eval()
    plain = images()
    assert (learner.average(plain.images).argmax(1) == plain.labels).float().mean() > 0.6
