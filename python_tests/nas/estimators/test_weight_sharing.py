"""Weight sharing: sampling of the training steps, scores, and the ranking of a good and a bad cell."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare_runs import same
from test_lower_fidelity import CELL, SPLITS

from automl_ext.nas.estimators.weight_sharing import LR_MIN, UniformSupernet, WeightSharing
from automl_ext.nas.spaces import darts_space as darts
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.cell_genotype import Edge
from automl_ext.nas.spaces.darts_space import NUM_NODES, Darts, DartsGenotype, edges_of
from automl_ext.nas.spaces.nasbench201 import OPERATIONS, Genotype, NASBench201
from automl_ext.nas.spaces.supernet import Choice
from automl_ext.nas.training.training_options import TrainingConfig
from automl_ext.training.errors import UserError

SPACE = NASBench201()
CPU = torch.device("cpu")
CONFIG = TrainingConfig(channels=4, epochs=6, batch_size=16, lr=0.1)


@pytest.fixture(scope="module")
def trained() -> UniformSupernet:
    job = UniformSupernet(CONFIG, SPACE, SPLITS, CPU)
    while job.epoch < job.epochs:
        job.run_epoch()
    return job


@pytest.mark.parametrize("option", [{"cutout": 4}, {"cutmix": 1.0}, {"drop_path": 0.1}, {"bfloat16": True}])
def test_options_that_a_supernet_does_not_have_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(option))}: the evaluator supernet has no such option"):
        UniformSupernet(replace(CONFIG, **option), SPACE, SPLITS, CPU)


def test_sampling_is_uniform() -> None:
    job = UniformSupernet(CONFIG, SPACE, SPLITS, CPU)
    counts = torch.zeros(6, len(OPERATIONS))
    rng = torch.Generator().manual_seed(0)
    draws = 2000
    for _ in range(draws):
        counts += job.draw(rng)[0].weights
    chi_squared = ((counts - draws / 5) ** 2 / (draws / 5)).sum(1)
    assert chi_squared.max() < 20.5  # exceeded with probability 4e-4 per edge (4 degrees of freedom)


@pytest.mark.parametrize("name", ["darts", "darts-frc"])
def test_every_sampled_cell_is_in_the_space(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the sampled cells, every node has exactly two inputs, with operations other than none."""
    space = spaces.space(name)
    job = UniformSupernet(replace(CONFIG, channels=1), space, SPLITS, CPU)
    drawn = []
    monkeypatch.setattr(UniformSupernet, "step", lambda job, batch, choices: drawn.append(choices) or torch.zeros(()))
    while len(drawn) < 200:
        job.run_epoch()
    nodes_of = [(edges.start, edges.stop) for edges in map(edges_of, range(NUM_NODES))]
    pairs = Counter()
    for choices in drawn:
        cells = []
        for choice in choices:
            assert all(len(active) == 1 for active in choice.active)
            names = [darts.OPERATIONS[k] for [k] in choice.active]
            cells.append(
                tuple(
                    tuple(Edge(op, i) for i, op in enumerate(names[start:stop]) if op != "none")
                    for start, stop in nodes_of
                )
            )
        genotype = DartsGenotype(cells[0], cells[1] if len(cells) > 1 else None)  # checks the nodes
        assert space.parse(str(genotype)) == genotype
        pairs[tuple(edge.start for edge in genotype.normal[-1])] += 1
    assert len(pairs) == 10  # every pair of the last node's inputs
    assert max(pairs.values()) < 40


def test_alpha_is_not_trained(trained: UniformSupernet) -> None:
    assert all(not alpha.any() for alpha in trained.supernet.alphas)


def test_the_learning_rate_falls_with_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    job = UniformSupernet(replace(CONFIG, epochs=2), SPACE, SPLITS, CPU)
    rates: list[float] = []
    monkeypatch.setattr(job, "step", lambda *_: rates.append(job.optimizer.param_groups[0]["lr"]) or torch.zeros(()))
    while job.epoch < job.epochs:
        job.run_epoch()
    n = len(rates)
    least = min(LR_MIN, CONFIG.lr)
    cosine = [least + (CONFIG.lr - least) * (1 + math.cos(math.pi * i / n)) / 2 for i in range(n)]
    assert n >= 8
    assert rates == pytest.approx(cosine)


def test_training_with_dropout_goes_on_exactly() -> None:
    def job() -> UniformSupernet:
        made = UniformSupernet(replace(CONFIG, epochs=2), SPACE, SPLITS, CPU)
        made.supernet.register_forward_hook(lambda module, inputs, output: F.dropout(output, 0.5))
        return made

    first = job()
    first.run_epoch()
    state = copy.deepcopy(first.state_dict())
    first.run_epoch()
    second = job()
    second.load_state_dict(state)
    second.run_epoch()
    same(second.state_dict(), first.state_dict())


def test_score_uses_the_batch_statistics_of_the_cell(trained: UniformSupernet) -> None:
    found = WeightSharing(trained.supernet, SPLITS).evaluate(CELL)
    net = copy.deepcopy(trained.supernet).train()
    choice = Choice.fixed(SPACE.encode(CELL), 5)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 1.0
    with torch.no_grad():
        net(SPLITS.train.images, choice)
        right = (net.eval()(SPLITS.valid.images, choice).argmax(-1) == SPLITS.valid.labels).float().mean()
    assert found.score == pytest.approx(right.item())
    assert found.cost > 0
    assert not found.failed


def test_scores_do_not_depend_on_earlier_evaluations(trained: UniformSupernet) -> None:
    before = copy.deepcopy(trained.supernet.state_dict())
    evaluator = WeightSharing(trained.supernet, SPLITS)
    first = evaluator.evaluate(CELL).score
    evaluator.evaluate(SPACE.decode([3] * 6))
    assert evaluator.evaluate(CELL).score == first
    same(dict(before), dict(trained.supernet.state_dict()))


def test_convolutions_score_higher_than_none(trained: UniformSupernet) -> None:
    evaluator = WeightSharing(trained.supernet, SPLITS)
    nothing = evaluator.evaluate(Genotype(("none",) * 6)).score
    assert nothing == pytest.approx(1 / 3, abs=0.01)  # the logits do not depend on the image
    assert evaluator.evaluate(CELL).score > 0.6


def test_infinite_weights_fail(trained: UniformSupernet) -> None:
    broken = copy.deepcopy(trained.supernet)
    next(broken.weights()).data.fill_(math.nan)
    found = WeightSharing(broken, SPLITS).evaluate(CELL)
    assert found.failed
    assert found.score == -math.inf


def test_other_spaces_need_a_method_for_choices(trained: UniformSupernet) -> None:
    class Pairs(NASBench201):
        num_choices = (5,) * 7

    with pytest.raises(UserError, match=r"--evaluator supernet: expected the method .*\.choices") as error:
        WeightSharing(trained.supernet, SPLITS, space=Pairs())
    assert "\n" not in str(error.value)
    choices = [Choice.fixed(SPACE.encode(CELL), 5)]
    supernet = copy.deepcopy(trained.supernet)
    supernet.choices = lambda genotype: choices
    found = WeightSharing(supernet, SPLITS, space=Pairs()).evaluate("a pair")
    assert found.score == WeightSharing(trained.supernet, SPLITS).evaluate(CELL).score


def test_bad_input(trained: UniformSupernet) -> None:
    with pytest.raises(ValueError, match="images: expected at least 1, got 0"):
        WeightSharing(trained.supernet, SPLITS, images=0)


@pytest.mark.slow
def test_scores_of_darts_cells() -> None:
    space = Darts()
    job = UniformSupernet(replace(CONFIG, channels=2, epochs=1, batch_size=64), space, SPLITS, torch.device("cpu"))
    job.run_epoch()
    sharing = WeightSharing(job.supernet, SPLITS, space=space)
    drawn = [space.random(Random(i)) for i in range(2)]
    scores = [sharing.evaluate(genotype) for genotype in drawn]
    assert all(0 <= x.score <= 1 and not x.failed for x in scores)
    outputs = [sharing.supernet(SPLITS.valid.images, *sharing.choices(genotype)) for genotype in drawn]
    assert not torch.allclose(*outputs)  # the outputs depend on the genotype
