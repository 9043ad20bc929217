"""The supernet: the operations it runs, its values, and the gradient of α in both forms of GDAS."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.darts_space import Darts
from automl_ext.nas.spaces.nasbench201 import EDGES, OPERATIONS, Genotype, NASBench201, NASBench201Supernet
from automl_ext.nas.spaces.supernet import Choice, SuperCell
from automl_ext.nas.supernets.gdas import sample
from automl_ext.ops.gumbel import gumbel_entmax15, gumbel_softmax

SPACE = NASBench201()
SHAPE = {"in_channels": 1, "num_classes": 10, "channels": 4, "cells": 2}


def supernet(form: str = "nb201") -> NASBench201Supernet:
    torch.manual_seed(0)
    return SPACE.build_supernet(**SHAPE, form=form)


def test_form_is_a_required_argument() -> None:
    """A default could differ from GDASConfig's."""
    with pytest.raises(TypeError, match="'form'"):
        SPACE.build_supernet(**SHAPE)
    with pytest.raises(TypeError, match="'form'"):
        SuperCell(OPERATIONS, 4, 4)


def derived(net: NASBench201Supernet, genotype: Genotype) -> nn.Module:
    """Return the network of a genotype with the supernet's weights."""
    network = SPACE.build(genotype, **SHAPE)
    chosen = {}
    for name, value in net.network.state_dict().items():
        if ".edges." in name:
            head, _, tail = name.partition(".edges.")
            edge, operation, rest = tail.split(".", 2)
            if OPERATIONS[int(operation)] == genotype.operations[int(edge)]:
                chosen[f"{head}.edges.{edge}.{rest}"] = value
        else:
            chosen[name] = value
    missing, unexpected = network.load_state_dict(chosen, strict=False)
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert not unexpected
    assert {name.rpartition(".")[0] for name in missing} <= {*norms}, "all but scales of 1 and shifts of 0"
    return network


@pytest.mark.parametrize("form", ["nb201", "darts"])
@pytest.mark.parametrize("training", [True, False])
def test_one_hot_weights_give_the_derived_network(form: str, training: bool) -> None:
    net = supernet(form).train(training)
    x = torch.randn(6, 1, 8, 8)
    for seed in range(6):
        genotype = SPACE.random(Random(seed))
        network = derived(net, genotype).train(training)
        expected = network(x)
        torch.testing.assert_close(net(x, Choice.fixed(SPACE.encode(genotype), 5)), expected)


def test_sampled_weights_give_the_derived_network() -> None:
    """The constants that carry the gradient of weights of operations that did not run have the value 0."""
    net = supernet("nb201").eval()
    x = torch.randn(6, 1, 8, 8)
    for seed in range(5):
        (choice,) = sample(net.alphas, 1.0, torch.Generator().manual_seed(seed))
        genotype = SPACE.decode([row[0] for row in choice.active])
        torch.testing.assert_close(net(x, choice), derived(net, genotype).eval()(x))


def test_only_chosen_operations_that_reach_the_output_run() -> None:
    net = supernet()
    calls: list[str] = []
    for name, module in net.named_modules():
        if ".edges." in name and name.partition(".edges.")[2].count(".") == 1:
            module.register_forward_hook(lambda *_, name=name: calls.append(name.partition(".edges.")[2]))
    for indices, expected in [
        ([3, 0, 1, 4, 2, 4], ["0.3", "2.1", "3.4", "4.2", "5.4"]),
        ([3, 0, 1, 4, 2, 0], ["0.3", "3.4", "4.2"]),  # nothing reads node 2
        ([3, 0, 1, 0, 0, 0], []),
    ]:
        calls.clear()
        net(torch.randn(2, 1, 8, 8), Choice.fixed(indices, 5))
        assert calls == expected * 6  # 3 stages of 2 cells


@pytest.mark.parametrize("sparse", [True, False])
def test_weights_run_only_their_support(sparse: bool) -> None:
    cell = SuperCell(OPERATIONS, 4, 4, "darts").eval()
    alpha = torch.randn(6, 5, requires_grad=True)
    weights = gumbel_entmax15(alpha, 0.5, seed=1) if sparse else torch.softmax(alpha, -1)
    choice = Choice.support(weights)
    assert [len(row) for row in choice.active] == (weights != 0).sum(-1).tolist()
    assert (sum(map(len, choice.active)) < 30) == sparse
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(cell(x, choice), weighted_cell(cell, x, weights))


def operation_output(cell: SuperCell, edge: int, k: int, x: Tensor) -> Tensor:
    return torch.zeros_like(x) if OPERATIONS[k] == "none" else cell.edges[edge][k](x)


def weighted_cell(cell: SuperCell, x: Tensor, weights: Tensor) -> Tensor:
    nodes = [x]
    for node in (1, 2, 3):
        terms = [
            weights[e, k] * operation_output(cell, e, k, nodes[start])
            for e, (start, end) in enumerate(EDGES)
            if end == node
            for k in range(5)
        ]
        nodes.append(torch.stack(terms).sum(0))
    return nodes[-1]


def gdas_by_hand(cell: SuperCell, x: Tensor, w: Tensor, index: list[int], form: str) -> Tensor:
    """Run every operation and sum as in the two official codes, which differ."""
    nodes = [x]
    for node in (1, 2, 3):
        value = torch.zeros_like(x)
        for e, (start, end) in enumerate(EDGES):
            if end != node:
                continue
            outputs = [operation_output(cell, e, k, nodes[start]) for k in range(5)]
            if form == "nb201":
                value = value + sum(w[e, k] * outputs[k] if k == index[e] else w[e, k] for k in range(5))
            else:
                value = value + w[e, index[e]] * outputs[index[e]]
        nodes.append(value)
    return nodes[-1]


@pytest.mark.parametrize("form", ["nb201", "darts"])
@pytest.mark.parametrize("tau", [0.3, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_alpha_equals_the_formula(form: str, tau: float, seed: int) -> None:
    torch.manual_seed(seed)
    cell = SuperCell(OPERATIONS, 4, 3, form).double()
    x, target = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64).unbind()
    alpha = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    if seed == 0:  # "none" on most edges, so that some nodes have no input
        alpha.data[:, 0] += 4
    logits = torch.log_softmax(alpha, -1)
    hard, index = gumbel_softmax(logits, tau, hard=True, seed=seed, return_index=True)
    loss = ((cell(x, Choice.hard(hard, index)) - target) ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, alpha)

    # The noise of the sample, up to a constant per edge, to which softmax is invariant.
    soft = gumbel_softmax(logits, tau, seed=seed).detach()
    noise = tau * soft.log() - logits.detach()
    p = torch.softmax((torch.log_softmax(alpha, -1) + noise) / tau, -1)
    one_hot = nn.functional.one_hot(p.argmax(-1), 5)
    w = one_hot - p.detach() + p
    expected_loss = ((gdas_by_hand(cell, x, w, index.tolist(), form) - target) ** 2).sum()
    (expected,) = torch.autograd.grad(expected_loss, alpha)

    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-8)
    assert form == "darts" or gradient.abs().max() > 1e-6


@pytest.mark.parametrize("form", ["nb201", "darts"])
def test_sampling_none_on_every_edge_works(form: str) -> None:
    """It happens about once in 100 steps early in a search. α has no gradient in the form "darts"."""
    cell = SuperCell(OPERATIONS, 4, 3, form)
    alpha = torch.zeros(6, 5, requires_grad=True)
    weights = torch.softmax(alpha, -1)
    one_hot = torch.tensor([[1.0, 0, 0, 0, 0]] * 6)
    hard = one_hot + (weights - weights.detach())
    y = cell(torch.randn(2, 3, 4, 4), Choice.hard(hard, torch.zeros(6, dtype=torch.int64)))
    assert torch.equal(y, torch.zeros_like(y))
    (gradient,) = torch.autograd.grad(y.sum(), alpha)
    assert gradient.isfinite().all()
    assert (gradient != 0).any() == (form == "nb201")


def test_unknown_form_is_rejected() -> None:
    for space in (SPACE, Darts()):
        with pytest.raises(ValueError, match='form: expected "nb201" or "darts"'):
            space.build_supernet(**SHAPE, form="soft")


def test_search_batch_norms_have_no_affine_parameters() -> None:
    net = supernet()
    inside = [m for name, m in net.named_modules() if ".edges." in name and isinstance(m, nn.BatchNorm2d)]
    assert len(inside) == 6 * 6 * 2
    assert all(not bn.affine and bn.track_running_stats for bn in inside)


def test_derive_takes_the_largest_alpha() -> None:
    net = supernet()
    with torch.no_grad():
        net.alphas[0].zero_()
        for edge, k in enumerate([1, 0, 4, 3, 2, 3]):
            net.alphas[0][edge, k] = 1
    assert SPACE.encode(net.derive()) == (1, 0, 4, 3, 2, 3)
    assert net.argmax()[0].active == [[1], [0], [4], [3], [2], [3]]
