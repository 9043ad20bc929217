"""Deriving by perturbation: it keeps what the supernet needs, in place of the largest α."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from automl_ext.data.images import Split
from automl_ext.nas.spaces.darts_space import Darts
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import Choice, SuperCell, Supernet
from automl_ext.nas.supernets.candidates import decode, without_none
from automl_ext.nas.supernets.perturbation import Perturbation, PerturbationConfig, measure
from automl_ext.training.machine.clock import Clock


class Shift(nn.Module):
    """Multiply by ``factor`` and move channel c to c + ``shift``."""

    def __init__(self, factor: float, shift: int) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.roll(self.shift, dims=1)


class Toy(nn.Module):
    """Edges in a row. The class is the channel with the largest mean.

    On every edge, operation 0 loses all information, 1 keeps it, and 2 moves it to a wrong channel, more weakly.
    """

    def __init__(self, edges: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(SuperCell(("zero", "keep", "move"), 2, 4, "darts") for _ in range(edges))
        self.unused = nn.Linear(1, 1)

    def forward(self, x: Tensor, *choices: Choice) -> Tensor:
        for cell, choice in zip(self.cells, choices, strict=True):
            x = cell(x, choice)
        return x.mean((2, 3))


def toy(monkeypatch: pytest.MonkeyPatch, alpha: list[float], edges: int = 2) -> Perturbation:
    from automl_ext.nas.spaces import supernet as module

    made = {"zero": (0.0, 0), "keep": (1.0, 0), "move": (0.1, 1)}
    monkeypatch.setattr(module, "make_operation", lambda operation, *_, **__: Shift(*made[operation]))
    torch.manual_seed(0)
    net = Supernet(Toy(edges), [(1, 3)] * edges)
    with torch.no_grad():
        for a in net.alphas:
            a.copy_(torch.tensor([alpha]))
    labels = torch.randint(4, (200,))
    images = 0.1 * torch.randn(200, 4, 3, 3) + nn.functional.one_hot(labels, 4)[:, :, None, None]
    return Perturbation(fake_search(net, Split(images, labels)))


def fake_search(net: Supernet, images: Split, allowed: Any = None) -> Any:
    return SimpleNamespace(
        config=PerturbationConfig(batch_size=20, orders=1),
        epoch=1,
        supernet=net,
        allowed=allowed,
        rng=torch.Generator().manual_seed(0),
        alpha_images=images,
        weight_images=images,
        clock=Clock(),
    )


def test_keeps_the_operation_whose_removal_hurts_most(monkeypatch: pytest.MonkeyPatch) -> None:
    derivation = toy(monkeypatch, [4.0, 0, 0], edges=1)
    scalars = derivation.run_epoch()
    assert scalars["accuracy_without_best"] < scalars["accuracy_without_worst"]
    assert derivation.epoch == derivation.epochs == 1
    assert derivation.allowed[0].tolist() == [[False, True, False]]
    assert derivation.supernet.alphas[0].argmax().item() == 0, "argmax α would lose all information"
    assert derivation.alphas()[0].argmax().item() == 1


def test_removal_leaves_the_other_weights_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    derivation = toy(monkeypatch, [0.5, 1.0, -1.0])
    choices = derivation.without(1, 0, 2)
    expected = torch.softmax(torch.tensor([[0.5, 1.0, -1.0]]), -1)
    torch.testing.assert_close(choices[0].weights, expected)
    torch.testing.assert_close(choices[1].weights, expected * torch.tensor([1.0, 1.0, 0.0]))
    assert choices[1].active == [[0, 1]]


def test_measure_is_the_accuracy_and_loss_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    derivation = toy(monkeypatch, [0.0, 0.0, 0.0])
    images, net = derivation.images, derivation.supernet
    logits = net(images.images, *derivation.choices())
    accuracy, loss = measure(net, images, 33, derivation.choices())
    assert accuracy == pytest.approx((logits.argmax(-1) == images.labels).float().mean().item())
    assert loss == pytest.approx(-nn.functional.cross_entropy(logits, images.labels).item(), rel=1e-5)


def test_no_batch_of_a_measurement_is_much_smaller_than_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    derivation, sizes = toy(monkeypatch, [0.0, 0.0, 0.0]), []
    derivation.supernet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    measure(derivation.supernet, derivation.images, 199, derivation.choices())
    assert sizes == [100, 100]


def digits_like(size: int = 40) -> Split:
    return Split(torch.randn(size, 1, 8, 8), torch.randint(10, (size,)))


def test_decisions_are_one_operation_per_edge_and_none_is_left_out() -> None:
    torch.manual_seed(0)
    net = NASBench201().build_supernet(in_channels=1, num_classes=10, channels=2, cells=1, form="darts")
    derivation = Perturbation(fake_search(net, digits_like(), without_none(net)))
    assert derivation.decisions == derivation.epochs == 6
    while derivation.epoch < derivation.epochs:
        derivation.run_epoch()
    assert derivation.allowed[0].sum(-1).tolist() == [1] * 6
    genotype = decode(net, derivation.alphas())
    assert NASBench201().encode(genotype) == tuple(derivation.allowed[0].int().argmax(-1).tolist())
    assert "none" not in genotype.operations


def test_nodes_of_the_darts_space_keep_the_two_edges_that_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy is replaced by a sum of values of the edges that are left."""
    torch.manual_seed(0)
    net = Darts().build_supernet(in_channels=1, num_classes=10, channels=1, cells=1, form="darts")
    derivation = Perturbation(fake_search(net, digits_like()))
    assert derivation.epochs == 2 * (14 + 4)
    value = [torch.rand(14).tolist() for _ in range(2)]

    def worth(choices: list[Choice]) -> tuple[float, float]:
        left = [(kind, e) for kind, c in enumerate(choices) for e in range(14) if c.active[e] != [0]]
        return sum(value[kind][e] for kind, e in left), 0.0

    monkeypatch.setattr(derivation, "measure", worth)
    while derivation.epoch < derivation.epochs:
        derivation.run_epoch()
    genotype = decode(net, derivation.alphas())
    for kind, cell in enumerate((genotype.normal, genotype.reduction)):
        for node, edges in zip(cell, net.nodes, strict=True):
            best = sorted(sorted(edges, key=lambda e: -value[kind][e])[:2])
            assert [edge.start for edge in node] == [e - edges.start for e in best]
