"""The DARTS supernet: its operations and values, the gradient of α, the derived cell, and searches."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from compare_runs import same
from torch import Tensor, nn

from automl_ext.nas.plot import plot_run
from automl_ext.nas.spaces.cell_network import FixedReductionCell, Place
from automl_ext.nas.spaces.darts_space import (
    NONE,
    NUM_EDGES,
    OPERATIONS,
    Darts,
    DartsGenotype,
    DartsSupernet,
    edges_of,
    strongest,
)
from automl_ext.nas.spaces.supernet import Choice
from automl_ext.nas.supernets.gdas import GDASConfig, sample
from automl_ext.nas.supernets.search_supernet import search_supernet

SHAPE = {"in_channels": 1, "num_classes": 10, "channels": 4, "cells": 1}


def supernet(form: str = "darts", fixed: bool = False) -> DartsSupernet:
    torch.manual_seed(0)
    return Darts(fixed).build_supernet(**SHAPE, form=form)


def derived(net: DartsSupernet, genotype: DartsGenotype, fixed: bool) -> nn.Module:
    """Return the network of a genotype with the supernet's weights."""
    network = Darts(fixed).build(genotype, **SHAPE)
    state = net.network.state_dict()
    chosen = {name: value for name, value in state.items() if ".edges." not in name}
    for i, cell in enumerate(network.cells):
        if not hasattr(cell, "nodes"):
            continue
        nodes = genotype.reduction if i in (1, 3) else genotype.normal
        assert nodes is not None
        for n, node in enumerate(nodes):
            for m, (name, start) in enumerate(node):
                prefix = f"cells.{i}.edges.{edges_of(n)[start]}.{OPERATIONS.index(name)}."
                for key, value in state.items():
                    if key.startswith(prefix):
                        chosen[f"cells.{i}.nodes.{n}.{m}.{key.removeprefix(prefix)}"] = value
    missing, unexpected = network.load_state_dict(chosen, strict=False)
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert not unexpected
    assert {name.rpartition(".")[0] for name in missing} <= {*norms}, "all but scales of 1 and shifts of 0"
    return network


@pytest.mark.parametrize(  # each pair of values once
    ("fixed", "form", "training"),
    [(False, "nb201", True), (False, "darts", False), (True, "nb201", False), (True, "darts", True)],
)
def test_one_hot_weights_give_the_derived_network(fixed: bool, form: str, training: bool) -> None:
    net = supernet(form, fixed).train(training)
    x = torch.randn(6, 1, 9, 8)
    for seed in range(4):
        genotype = Darts(fixed).random(Random(seed))
        network = derived(net, genotype, fixed).train(training)
        torch.testing.assert_close(net(x, *net.choices(genotype)), network(x))


def test_only_sampled_operations_run() -> None:
    net = supernet()
    ran: list[str] = []
    for name, module in net.network.named_modules():
        parts = name.split(".")
        if len(parts) == 5 and parts[2] == "edges":
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    choices = sample(net.alphas, 1.0, torch.Generator().manual_seed(0))
    net(torch.randn(2, 1, 8, 8), *choices)
    expected = {
        f"cells.{i}.edges.{e}.{k}"
        for i in range(5)
        for e, active in enumerate(choices[i in (1, 3)].active)
        for k in active
        if k != NONE
    }
    assert set(ran) == expected
    assert len(ran) == len(expected)
    assert 5 * NUM_EDGES / 2 < len(ran) < 5 * NUM_EDGES


def test_gradient_of_alpha_equals_the_formula() -> None:
    """Compare with w_index · op_index(x), as in GDAS's code for this space, written out for a cell."""
    torch.manual_seed(0)
    net = supernet()
    cell = net.network.cells[1]  # a reduction cell
    before, previous = torch.randn(2, 12, 7, 6), torch.randn(2, 16, 7, 6)
    weights = torch.rand(NUM_EDGES, len(OPERATIONS), requires_grad=True)
    index = torch.randint(1, len(OPERATIONS), (NUM_EDGES,))
    index[5] = NONE
    unused = Choice(weights, [])
    choice = Choice(weights, [[k] for k in index.tolist()])
    y = cell(before, previous, unused, choice)
    probe = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * probe).sum(), weights)

    states = [cell.adapt[0](before), cell.adapt[1](previous)]
    e = 0
    for node in range(4):
        value: Tensor | float = 0.0
        for start in range(2 + node):
            k = int(index[e])
            if k != NONE:
                value = value + weights[e, k] * cell.edges[e][k](states[start])
            e += 1
        states.append(value)  # type: ignore[arg-type]
    expected = torch.cat(states[2:], dim=1)
    torch.testing.assert_close(y, expected)
    (expected_gradient,) = torch.autograd.grad((expected * probe).sum(), weights)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
    assert (gradient.count_nonzero(dim=1) == (index != NONE)).all()


def test_every_alpha_has_a_gradient() -> None:
    for fixed in (False, True):
        net = supernet(fixed=fixed)
        assert len(net.alphas) == 1 + (not fixed)
        net(
            torch.randn(4, 1, 8, 8), *sample(net.alphas, 5.0, torch.Generator().manual_seed(0))
        ).square().sum().backward()
        for alpha in net.alphas:
            assert alpha.grad is not None
            assert (alpha.grad != 0).any(dim=1).sum() >= 10


def test_cell_of_none_is_zero() -> None:
    net = supernet()
    choices = [Choice.fixed([NONE] * NUM_EDGES, len(OPERATIONS))] * 2
    logits = net(torch.randn(2, 1, 7, 5), *choices)
    torch.testing.assert_close(logits, net.network.classifier.bias.expand(2, 10))


def test_derived_cell_of_a_hand_made_alpha() -> None:
    """Each node keeps the two edges with the largest softmax weights of operations except "none"."""
    alpha = torch.zeros(NUM_EDGES, len(OPERATIONS))
    skip, sep3, dil5 = (OPERATIONS.index(name) for name in ("skip_connect", "sep_conv_3x3", "dil_conv_5x5"))
    alpha[0, skip] = 1  # node 0 has only two edges
    alpha[1, NONE] = 9
    alpha[1, dil5] = 0.5
    alpha[2, sep3] = 2  # node 1: edges from 0 and 2; on that from 1, "none" has almost all the weight
    alpha[3, NONE], alpha[3, sep3] = 9, 5
    alpha[4, dil5] = 1
    alpha[7, skip], alpha[8, sep3] = 3, 3  # node 2: edges from 2 and 3
    alpha[9, sep3], alpha[13, skip] = 1, 1  # node 3: edges from 0 and 4
    cell = strongest(alpha)
    assert [[tuple(edge) for edge in node] for node in cell] == [
        [("skip_connect", 0), ("dil_conv_5x5", 1)],
        [("sep_conv_3x3", 0), ("dil_conv_5x5", 2)],
        [("skip_connect", 2), ("sep_conv_3x3", 3)],
        [("sep_conv_3x3", 0), ("skip_connect", 4)],
    ]
    net = supernet()
    with torch.no_grad():
        for a in net.alphas:
            a.copy_(alpha)
    assert net.derive() == DartsGenotype(cell, cell)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(net.eval()(x, *net.argmax()), net(x, *net.choices(net.derive())))


def test_fixed_reduction_cell_is_that_of_gdas() -> None:
    """The outputs are, in order: convolutions of both inputs, then max pools of both."""
    torch.manual_seed(0)
    cell = FixedReductionCell(Place(6, 8, 8, True, False)).eval()
    before, previous = torch.randn(2, 6, 9, 6), torch.randn(2, 8, 9, 6)
    y = cell(before, previous)
    assert y.shape == (2, 32, 5, 3)
    inputs = [cell.adapt[0](before), cell.adapt[1](previous)]
    for i, piece in enumerate(y.split(8, dim=1)):
        branch = cell.convolutions[i] if i < 2 else cell.pools[i - 2]
        torch.testing.assert_close(piece, branch(inputs[i % 2]))
    convolutions = [m for m in cell.convolutions[0] if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.stride, m.groups) for m in convolutions] == [
        ((1, 3), (1, 2), 8),
        ((3, 1), (2, 1), 8),
        ((1, 1), (1, 1), 1),
    ]


TINY = GDASConfig(
    subset=60, channels=1, epochs=2, warmup=0.0, batch_size=18, retrain_epochs=1, retrain_channels=1, space="darts-frc"
)


@pytest.mark.slow
def test_resume_equals_uninterrupted_search(tmp_path: Path) -> None:
    found = search_supernet(TINY, tmp_path / "whole")
    assert found is not None
    while (again := search_supernet(TINY, tmp_path / "parts", resume="auto", stop_after=2)) is None:
        torch.manual_seed(7)
    same(again, found)
    assert Darts(fixed_reduction=True).parse(found["genotype"]).reduction is None
    assert len(found["alpha"]) == 1
    written = plot_run(tmp_path / "whole")
    assert [path.name for path in written] == ["curves.png", "cell.png", "cell.svg", "confusion.png"]
