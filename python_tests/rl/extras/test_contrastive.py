"""CURL: the loss beside its formula, who gets its gradient, the moving averages, and what the encoder learns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from image_worlds import SIDE, spot_dqn
from torch import Tensor

from automl_ext.rl.extras import Augment, Contrastive
from automl_ext.rl.extras.contrastive import MOMENTUM, UNITS, first_rows, info_nce
from automl_ext.training.seeding import generator

WEIGHT = 2.0


class Scripted:
    """Returns images shifted by one column for the queries and by two for the keys."""

    def __init__(self, shifts: Any) -> None:
        self.rng, self.calls = shifts.rng, 0

    def __call__(self, observations: Tensor) -> Tensor:
        self.calls += 1
        return observations.roll(2 - self.calls % 2, dims=2)


def with_term(*extras: Any, **options: Any) -> tuple[Any, Any]:
    agent = spot_dqn(*extras, Contrastive(WEIGHT), **options)
    return agent, agent.seams.parts["contrastive"]


def test_info_nce() -> None:
    queries, keys = torch.randn(2, 5, 4, generator=generator(0), dtype=torch.float64)
    scores = (queries @ keys.T).exp()
    expected = -np.mean([np.log((scores[i, i] / scores[i].sum()).item()) for i in range(5)])
    assert info_nce(queries, keys).item() == pytest.approx(expected)


def test_the_first_row_of_each_transition() -> None:
    assert first_rows(torch.tensor([7, 3, 7, 5, 3, 7])).tolist() == [True, True, False, True, False, False]


def test_the_loss_compares_two_shifts_of_a_state() -> None:
    agent, term = with_term(hidden=(16, 8))
    term.shifts = Scripted(term.shifts)
    batch = agent.replay.sample(8)
    loss, metrics = term.loss(agent.online, batch)
    seen = batch.observations[first_rows(batch.indices)]
    queries = term.own["project"](agent.online.body(seen.roll(1, dims=2)))
    keys = term.keys(seen.roll(2, dims=2))
    assert queries.shape[1] == keys.shape[1] == UNITS
    scores = queries @ term.own["bilinear"].weight.T @ keys.T  # qᵀ W k, W transposed
    expected = -scores.log_softmax(1).diagonal().mean()
    torch.testing.assert_close(loss, WEIGHT * expected)
    torch.testing.assert_close(metrics["contrastive"], expected.detach())
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in agent.online.body.parameters())
    assert all(p.grad.abs().sum() == 0 for p in agent.online.head.parameters())
    assert all(p.grad.abs().sum() > 0 for name, p in term.own.named_parameters() if name != "project.1.bias")
    assert all(p.grad is None and not p.requires_grad for p in term.keys.parameters())


def test_the_agent_adds_the_gradient_to_that_of_the_values() -> None:
    agent, term = with_term()
    plain = spot_dqn()
    before = {name: x.clone() for name, x in agent.online.state_dict().items()}
    same_shifts = copy.deepcopy(term)
    metrics = agent.update(1)
    plain.update(1)
    gradients = [torch.cat([p.grad.flatten() for p in one.online.parameters()]) for one in (agent, plain)]
    other = spot_dqn()
    other.online.load_state_dict(before)
    value, _ = same_shifts.loss(other.online, other.replay.sample(8))
    assert metrics["contrastive"].item() == pytest.approx(value.item() / WEIGHT)
    expected = torch.autograd.grad(value, list(other.online.parameters()), allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for g, p in zip(expected, other.online.parameters(), strict=True)]
    added = torch.cat([g.flatten() for g in flat])
    assert added.norm() > 1e-3
    torch.testing.assert_close(gradients[0] - gradients[1], added, rtol=1e-3, atol=1e-5)


def test_keys_come_from_moving_averages() -> None:
    agent, term = with_term()
    online = [*agent.online.body.parameters(), *term.own["project"].parameters()]
    averages = list(term.keys.parameters())
    assert all(torch.equal(a, p) for a, p in zip(averages, online, strict=True))  # they start equal
    for _ in range(2):
        before = [a.clone() for a in averages]
        bilinear = term.own["bilinear"].weight.clone()
        agent.update(1)
        for average, old, p in zip(averages, before, online, strict=True):
            torch.testing.assert_close(average, MOMENTUM * old + (1 - MOMENTUM) * p.detach())
        assert not torch.equal(term.own["bilinear"].weight, bilinear)
    assert not any(torch.equal(a, p) for a, p in zip(averages, online, strict=True))


def test_copies_of_a_state_are_no_negatives() -> None:
    agent, term = with_term(Augment())
    term.shifts = Scripted(term.shifts)
    batch = agent.seams.transformed(agent.replay.sample(8))
    assert len(batch.indices) == 16
    distinct = len(batch.indices.unique())
    term.own["bilinear"].weight.data.zero_()  # all scores are equal
    loss, _ = term.loss(agent.online, batch)
    assert loss.item() == pytest.approx(WEIGHT * np.log(distinct))


@pytest.mark.parametrize("layout", [(SIDE, SIDE, 1), (1, SIDE, SIDE)], ids=str)
def test_the_encoder_learns_to_recognize_shifted_images(layout: tuple[int, ...]) -> None:
    agent, _ = with_term(layout=layout, batch_size=32, lr=3e-3)
    first = agent.update(1)["contrastive"].item()
    for _ in range(60):
        last = agent.update(1)["contrastive"].item()
    assert last < 0.6 * first
