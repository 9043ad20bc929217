"""The switches against collapse, each compared with a literal implementation of its paper."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from automl_ext.data.images import Split
from automl_ext.nas.differentiable import darts as darts_search
from automl_ext.nas.differentiable.beta_decay import beta_loss, beta_weight
from automl_ext.nas.differentiable.candidates import masked, without_none
from automl_ext.nas.differentiable.darts import DARTSConfig
from automl_ext.nas.differentiable.deriving import (
    break_ties,
    decode,
    derived_choices,
    never_derived,
    skip_share,
    with_edge_strengths,
)
from automl_ext.nas.differentiable.fair_sampling import fair_cycle
from automl_ext.nas.differentiable.samplers import Sampler, sample, sample_entmax, softmax_weights
from automl_ext.nas.differentiable.steps import alpha_step
from automl_ext.nas.differentiable.supernet_search import SupernetSearch
from automl_ext.nas.retraining.supernet_step import supernet_step
from automl_ext.nas.spaces.darts import Darts
from automl_ext.nas.spaces.darts_supernet import DartsSupernet
from automl_ext.nas.spaces.nasbench201 import OPERATIONS, NASBench201, NASBench201Supernet
from automl_ext.nas.spaces.partial_channels import edge_weights, merge, selected
from automl_ext.nas.spaces.supernet import Choice, SuperCell

SAMPLERS: dict[str, Sampler] = {"gdas": sample, "entmax-gdas": sample_entmax, "darts": softmax_weights}
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def supernet(channels: int = 4, partial_channels: int = 1) -> NASBench201Supernet:
    torch.manual_seed(0)
    return NASBench201().build_supernet(
        in_channels=1, num_classes=10, channels=channels, cells=1, form="darts", partial_channels=partial_channels
    )


def darts_supernet(partial_channels: int = 1) -> DartsSupernet:
    torch.manual_seed(0)
    return Darts().build_supernet(
        in_channels=1, num_classes=10, channels=2, cells=1, form="darts", partial_channels=partial_channels
    )


def batch(size: int = 8) -> Split:
    return Split(torch.randn(size, 1, 8, 8), torch.randint(10, (size,)))


def test_beta_decay_is_the_mean_logsumexp() -> None:
    alphas = [torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.randn(2, 5, dtype=torch.float64)]
    expected = sum(row.exp().sum().log() for alpha in alphas for row in alpha) / 8
    loss = beta_loss(alphas)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, alphas[0])
    torch.testing.assert_close(gradient, torch.softmax(alphas[0], -1) / 8)
    assert [beta_weight(epoch, 100, 50.0) for epoch in (0, 1, 99)] == [0.0, 0.5, 49.5]


def test_beta_decay_enters_the_step_of_alpha() -> None:
    """With λ = 1e6 the gradient is that of the penalty; the returned loss excludes it."""
    net, images = supernet(), batch()
    optimizer = torch.optim.SGD(net.alphas.parameters(), lr=1e-6)
    before = net.alphas[0].detach().clone()
    penalty = 1e6 * beta_loss(net.alphas)
    loss = alpha_step(net, optimizer, images, 1.0, torch.Generator(), softmax_weights, penalty=penalty)
    torch.testing.assert_close(net.alphas[0].detach() - before, -torch.softmax(before, -1) / 6, rtol=1e-3, atol=1e-5)
    assert loss < 10


@every_sampler
@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_masked_none_is_never_chosen_and_gets_no_gradient(name: str, tau: float) -> None:
    net = supernet()
    with torch.no_grad():
        net.alphas[0][:, 0] = 5.0  # "none" would be chosen nearly always
    allowed = without_none(net)
    assert allowed[0].tolist() == [[False, True, True, True, True]] * 6
    for seed in range(30):
        (choice,) = SAMPLERS[name](masked(net.alphas, allowed), tau, torch.Generator().manual_seed(seed))
        assert all(0 not in active and active for active in choice.active)
        assert not choice.weights[:, 0].any()
        (gradient,) = torch.autograd.grad(choice.weights.square()[:, 3].sum(), net.alphas[0])
        assert gradient.isfinite().all()
        assert not gradient[:, 0].any()
    derived = masked([net.alphas[0].detach()], allowed)
    assert "none" not in decode(net, derived).operations
    assert net.alphas[0][0, 0] == 5.0, "decoding restores α"
    assert masked(net.alphas, None)[0] is net.alphas[0]


def test_fair_cycle_runs_every_candidate_of_every_edge_once() -> None:
    for net in (supernet(), darts_supernet()):
        rng = torch.Generator().manual_seed(0)
        for _ in range(5):
            cycle = fair_cycle(without_none(net), rng)
            for kind, alpha in enumerate(net.alphas):
                for edge in range(alpha.shape[0]):
                    ran = [choices[kind].active[edge] for choices in cycle]
                    assert sorted(ran) == [[k] for k in range(1, alpha.shape[1])]
    one_edge = [without_none(supernet())[0][:1]]
    orders = {tuple(c[0].active[0][0] for c in fair_cycle(one_edge, rng)) for _ in range(200)}
    assert len(orders) == 24, "all orders of four operations occur"


def test_fair_step_sums_the_gradients_of_a_cycle() -> None:
    net, other, images = supernet(), supernet(), batch()
    cycle = fair_cycle(without_none(net), torch.Generator().manual_seed(0))
    supernet_step(net, torch.optim.SGD(net.weights(), lr=0.0), images, 1e9, cycle)
    losses = [nn.functional.cross_entropy(other(images.images, *choices), images.labels) for choices in cycle]
    torch.stack(losses).sum().backward()
    trained = 0
    for (key, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
        if q.grad is not None and p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6, msg=key)
            trained += 1
    assert trained > 30


def mixed_by_hand(cell: SuperCell, x: Tensor, weights: Tensor, beta: Tensor, k: int) -> Tensor:
    """Compute a cell as PC-DARTS's code does: per edge concatenate and shuffle, then sum with the edge weights."""
    nodes, edge = [x], 0
    for node in (1, 2, 3):
        factors, total = torch.softmax(beta[edge : edge + node], 0), 0
        for factor, source in zip(factors, nodes, strict=True):
            size = source.shape[1] // k
            part, rest = source[:, :size], source[:, size:]
            mixed = sum(
                w * (torch.zeros_like(part) if name == "none" else op(part))
                for w, name, op in zip(weights[edge], OPERATIONS, cell.edges[edge], strict=True)
            )
            n, c, h, w = source.shape
            joined = torch.cat([mixed, rest], 1).view(n, k, c // k, h, w).transpose(1, 2).reshape(n, c, h, w)
            total = total + factor * joined
            edge += 1
        nodes.append(total)
    return nodes[-1]


@pytest.mark.parametrize("k", [2, 4])
def test_partial_channels_equal_the_formula(k: int) -> None:
    torch.manual_seed(0)
    cell = SuperCell(OPERATIONS, 4, 8, "darts", partial_channels=k).double()
    x = torch.randn(3, 8, 5, 5, dtype=torch.float64)
    alpha = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    beta = torch.randn(6, dtype=torch.float64, requires_grad=True)
    weights = torch.softmax(alpha, -1)
    choice = Choice.support(weights)._replace(edges=edge_weights(beta, NASBench201Supernet.nodes))
    values = [cell(x, choice), mixed_by_hand(cell, x, torch.softmax(alpha, -1), beta, k)]
    torch.testing.assert_close(*values)
    gradients = [torch.autograd.grad(y.square().sum(), [alpha, beta], retain_graph=True) for y in values]
    torch.testing.assert_close(*gradients)
    assert gradients[0][1].abs().max() > 1e-6


def test_bypassing_channels_are_pooled_at_stride_2() -> None:
    x, y = torch.randn(2, 4, 5, 7), torch.randn(2, 4, 3, 4)
    value = torch.randn(2, 2, 3, 4)
    merged = merge(value, [x, y], torch.tensor([0.25, 0.75]), 2, [2, 1])
    rest = 0.25 * nn.functional.max_pool2d(x[:, 2:], 2, 2, ceil_mode=True) + 0.75 * y[:, 2:]
    torch.testing.assert_close(merged, torch.stack([value[:, 0], rest[:, 0], value[:, 1], rest[:, 1]], 1))
    assert merge(value, [x], None, 1) is value
    assert selected(x, 2).shape[1] == 2


def test_partial_channels_run_in_the_darts_space() -> None:
    net = darts_supernet(partial_channels=2)
    net.add_betas()
    choices = [
        choice._replace(edges=edge_weights(beta, net.nodes))
        for choice, beta in zip(softmax_weights(net.alphas, 1.0, torch.Generator()), net.betas, strict=True)
    ]
    net(torch.randn(2, 1, 9, 9), *choices).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in [*net.alphas, *net.betas])
    assert "betas" not in "".join(supernet().state_dict()), "checkpoints without edge normalization are unchanged"


def test_edge_strengths_are_products_of_operation_and_edge_weights() -> None:
    net = darts_supernet()
    net.add_betas()
    alphas = [torch.randn(14, 8) for _ in range(2)]
    with torch.no_grad():
        for beta in net.betas:
            beta.copy_(torch.randn(14))
    for alpha, beta, found in zip(alphas, net.betas, with_edge_strengths(net, alphas), strict=True):
        expected = torch.softmax(alpha, -1) * edge_weights(beta, net.nodes)[:, None]
        torch.testing.assert_close(torch.softmax(found, -1)[:, 1:], expected[:, 1:])
    plain = supernet()
    assert with_edge_strengths(plain, list(plain.alphas))[0] is plain.alphas[0]


def test_skip_share_counts_derived_operations() -> None:
    net = supernet()
    share = skip_share([Choice.fixed([1, 0, 3, 1, 2, 4], 5)], net.operations)
    assert share == pytest.approx(2 / 5), "none is not counted"
    assert skip_share([Choice.fixed([0] * 6, 5)], net.operations) == 0
    wide = darts_supernet()
    with torch.no_grad():
        for alpha in wide.alphas:
            alpha.zero_()[:, 2] = 1.0
        wide.alphas[0][[0, 1], 1] = 9.0  # both edges of the first node of the normal cell
    assert skip_share(derived_choices(wide, list(wide.alphas)), wide.operations) == pytest.approx(2 / 16)


TINY = DARTSConfig(subset=100, channels=2, epochs=4, batch_size=20, retrain_epochs=1, retrain_channels=2)


def test_skips_end_the_search_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")
    run_epoch = SupernetSearch.run_epoch

    def with_skips(job: SupernetSearch) -> dict[str, float]:
        with torch.no_grad():
            job.supernet.alphas[0][: job.epoch, 1] = 9.0  # one more edge of skip_connect per epoch
        return run_epoch(job)

    monkeypatch.setattr(SupernetSearch, "run_epoch", with_skips)
    config = replace(TINY, stop_skip=0.25, none=False, epochs=6)
    found = darts_search.search(config, tmp_path / "whole")
    assert found is not None
    while (again := darts_search.search(config, tmp_path / "parts", resume="auto", stop_after=1)) is None:
        pass
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    shares = [line["search_derived_skip"] for line in lines if "search_derived_skip" in line]
    assert shares[-1] >= 0.25
    assert all(share < 0.25 for share in shares[:-1])
    assert len(shares) < 6
    assert len(lines) == len(shares) + 1
    assert again["genotype"] == found["genotype"]
    assert NASBench201().parse(found["genotype"]).operations.count("skip_connect") >= 2


def test_ties_are_decided_by_the_score() -> None:
    """Only operations within ``tie`` of the largest probability compete; equal scores keep the largest α."""
    net = supernet()
    alpha = torch.full((6, 5), -9.0)
    alpha[:, 1], alpha[:, 3] = 0.02, 0.0  # probabilities of about 0.505 and 0.495
    alpha[5, 4] = 2.0

    def convolutions(genotype: object) -> float:
        return float(str(genotype).count("conv_3x3"))

    def chosen(tie: float, score: object = convolutions) -> list[int]:
        return break_ties([alpha], tie, lambda a: decode(net, a), score)[0].argmax(-1).tolist()  # type: ignore

    assert chosen(0.02) == [3, 3, 3, 3, 3, 4]
    assert chosen(0.005) == [1, 1, 1, 1, 1, 4]
    assert chosen(0.02, lambda genotype: 0.0) == [1, 1, 1, 1, 1, 4]


@pytest.mark.parametrize("partial_channels", [1, 2])
def test_ties_ignore_none_if_no_derived_cell_has_it(partial_channels: int) -> None:
    net = darts_supernet(partial_channels)
    if partial_channels > 1:
        net.add_betas()
    alpha = torch.full((14, 8), -9.0)
    alpha[:, 0], alpha[:, 2], alpha[:, 4] = 3.0, 0.02, 0.0  # operation 0 is none
    strengths = with_edge_strengths(net, [alpha, alpha])

    def number_of(genotype: object) -> float:
        return float(str(genotype).count(net.operations[4]))

    tied = break_ties(strengths, 0.02, lambda trial: decode(net, trial), number_of, never_derived(net))
    assert number_of(decode(net, strengths)) == 0
    assert number_of(decode(net, tied)) == 16, "all edges of both cells"
