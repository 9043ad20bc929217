"""MixedOp and GumbelMixedOp: which candidates run, learning, state."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from automl_ext import GumbelMixedOp, MixedOp


class Scale(nn.Module):
    """Multiply x by a constant and count the calls."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.factor * x


def calls(candidates: nn.ModuleList) -> list[int]:
    return [op.calls for op in candidates]


def test_mixed_op_runs_candidates_with_a_weight() -> None:
    edge = MixedOp(Scale(factor) for factor in (1.0, 10.0, 100.0))
    x = torch.randn(3)
    weights = torch.tensor([0.5, 0.0, -1.0], requires_grad=True)
    y = edge(x, weights)
    torch.testing.assert_close(y, -99.5 * x)
    assert calls(edge.candidates) == [1, 0, 1]
    y.sum().backward()
    torch.testing.assert_close(weights.grad, torch.stack([x.sum(), 0 * x.sum(), 100 * x.sum()]))


def test_mixed_op_under_vmap() -> None:
    edge = MixedOp(nn.Linear(3, 3) for _ in range(3))
    x, weights = torch.randn(4, 2, 3), torch.randn(4, 3)
    some_zero = weights * torch.tensor([[1.0, 0.0, 1.0]])
    alone = [edge(a, w) for a, w in zip(x, some_zero, strict=True)]
    torch.testing.assert_close(torch.func.vmap(edge)(x, some_zero), torch.stack(alone))
    torch.testing.assert_close(torch.func.vmap(edge, (None, 0))(x[0], some_zero)[0], alone[0])
    gradient = torch.func.grad(lambda w, a: edge(a, w).sin().sum())
    each = torch.func.vmap(gradient)(weights, x)
    torch.testing.assert_close(each, torch.stack([gradient(w, a) for a, w in zip(x, weights, strict=True)]))


def test_mixed_op_under_vmap_of_x_runs_candidates_with_a_weight() -> None:
    edge = MixedOp(Scale(factor) for factor in (1.0, 10.0))
    x, weights = torch.randn(4, 3), torch.tensor([0.0, 2.0])
    torch.testing.assert_close(torch.func.vmap(edge, (0, None))(x, weights), 20 * x)
    assert calls(edge.candidates) == [0, 1]


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_mixed_op_takes_any_weights(strict: bool) -> None:
    edge = MixedOp([nn.Linear(3, 3), nn.Tanh(), nn.Identity()])
    program = torch.export.export(edge, (torch.randn(2, 3), torch.tensor([1.0, 0.0, 0.0])), strict=strict)
    for weights in (torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.5, -1.0, 0.25])):
        x = torch.randn(2, 3)
        torch.testing.assert_close(program.module()(x, weights), edge(x, weights))


QUANTIZED = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    "weights", [torch.ones(2), torch.ones(()), torch.ones(3, 1), [1.0, 1.0, 1.0], QUANTIZED], ids=range(5)
)
def test_mixed_op_requires_one_weight_per_candidate(weights: object) -> None:
    edge = MixedOp(Scale(1.0) for _ in range(3))
    with pytest.raises(ValueError, match=r"MixedOp: weights: expected a tensor of shape \(3,\), got"):
        edge(torch.ones(3), weights)


def test_mixed_op_without_candidates_or_weights() -> None:
    with pytest.raises(ValueError, match="MixedOp: candidates: expected at least one module"):
        MixedOp([])
    with pytest.raises(ValueError, match="MixedOp: weights: expected at least one non-zero weight"):
        MixedOp([Scale(1.0)])(torch.ones(2), torch.zeros(1))


def test_gumbel_runs_one_candidate_in_training_and_the_best_in_evaluation() -> None:
    torch.manual_seed(0)
    edge = GumbelMixedOp([Scale(1.0), Scale(2.0), Scale(3.0)])
    x = torch.ones(2)
    seen = set()
    for n in range(1, 61):
        y = edge(x)
        assert sum(calls(edge.mixed.candidates)) == n
        assert (y == y[0]).all()
        seen.add(y[0].item())
    assert seen == {1.0, 2.0, 3.0}

    edge.eval()
    with torch.no_grad():
        edge.alpha.copy_(torch.tensor([0.0, 2.0, 1.0]))
    before = calls(edge.mixed.candidates)
    assert edge.choice == 1
    assert torch.equal(edge(x), 2 * x)
    assert [b - a for a, b in zip(before, calls(edge.mixed.candidates), strict=True)] == [0, 1, 0]


def test_gumbel_samples_with_probability_softmax_of_alpha() -> None:
    torch.manual_seed(1)
    edge = GumbelMixedOp([Scale(0.0), Scale(1.0)])
    with torch.no_grad():
        edge.alpha.copy_(torch.tensor([0.0, 1.0]))
        mean = torch.stack([edge(torch.ones(())) for _ in range(1000)]).mean()
    assert mean == pytest.approx(1 / (1 + 2.718281828**-1), abs=4 * 0.014)  # four standard deviations


def test_sparse_runs_the_support() -> None:
    torch.manual_seed(2)
    edge = GumbelMixedOp([Scale(1.0) for _ in range(8)], tau=0.5, sparse=True)
    runs = []
    for _ in range(50):
        before = sum(calls(edge.mixed.candidates))
        torch.testing.assert_close(edge(torch.ones(3)), torch.ones(3))  # the weights sum to one
        runs.append(sum(calls(edge.mixed.candidates)) - before)
    assert min(runs) >= 1
    assert max(runs) < 8
    assert len(set(runs)) > 1


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("better", [0, 1])
def test_alpha_learns_the_better_candidate(sparse: bool, better: int) -> None:
    """One candidate is the target and the other its negative: a gradient of the wrong sign would select the other."""
    torch.manual_seed(3)
    factors = [-1.0, -1.0]
    factors[better] = 1.0
    edge = GumbelMixedOp([Scale(f) for f in factors], sparse=sparse)
    optimizer = torch.optim.SGD([edge.alpha], lr=0.1)
    x = torch.randn(16)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.mse_loss(edge(x), x).backward()
        optimizer.step()
    assert edge.choice == better
    assert edge.alpha.detach().softmax(0)[better] > 0.9


def test_gradients_reach_only_the_sampled_candidate() -> None:
    torch.manual_seed(4)
    edge = GumbelMixedOp(nn.Linear(3, 3) for _ in range(4))
    edge(torch.randn(2, 3)).sum().backward()
    assert sum(op.weight.grad is not None for op in edge.mixed.candidates) == 1
    assert edge.alpha.grad is not None
    assert edge.alpha.grad.abs().sum() > 0


def test_state_dict_round_trip() -> None:
    torch.manual_seed(5)
    first, second = (GumbelMixedOp(nn.Linear(3, 3) for _ in range(3)) for _ in range(2))
    state = first.state_dict()
    assert set(state) == {"alpha"} | {f"mixed.candidates.{k}.{name}" for k in range(3) for name in ("weight", "bias")}
    assert not torch.equal(first.alpha, second.alpha)
    second.load_state_dict(state)
    x = torch.randn(2, 3)
    assert torch.equal(first.eval()(x), second.eval()(x))
    first.train()
    second.train()
    torch.manual_seed(6)
    y = first(x)
    torch.manual_seed(6)
    assert torch.equal(second(x), y)


def test_annealing_by_assignment() -> None:
    torch.manual_seed(7)
    edge = GumbelMixedOp([Scale(1.0) for _ in range(8)], sparse=True)
    edge.tau = 1e-4
    edge(torch.ones(1))
    assert sum(calls(edge.mixed.candidates)) == 1
    edge.tau = 0.0
    with pytest.raises(ValueError, match="tau: expected a positive finite temperature"):
        edge(torch.ones(1))


@pytest.mark.parametrize("container", [dict, nn.ModuleDict])
def test_names_of_candidates(container: type) -> None:
    torch.manual_seed(8)
    edge = GumbelMixedOp(container({"1x1": nn.Linear(3, 3), "skip (identity)": nn.Identity(), "tanh": nn.Tanh()}))
    assert set(edge.state_dict()) == {"alpha", "mixed.candidates.1x1.weight", "mixed.candidates.1x1.bias"}
    with torch.no_grad():
        edge.alpha.copy_(torch.tensor([0.0, 1.0, 5.0]))
    x = torch.randn(2, 3)
    assert edge.choice == "tanh"
    assert torch.equal(edge.eval()(x), x.tanh())
    assert torch.equal(edge.mixed(x, torch.tensor([0.0, 2.0, 0.0])), 2 * x)
    edge.train()(x).sum().backward()
    assert edge.alpha.grad is not None


def test_candidates_of_wrong_types_and_names() -> None:
    for wrong in ({1: nn.Tanh()}, {"a": 1}, "tanh", torch.ones(2)):
        with pytest.raises(TypeError, match="MixedOp: candidates: expected a sequence or a dict of modules, got"):
            MixedOp(wrong)  # type: ignore[arg-type]
    for name in ("a.b", "", "keys"):
        with pytest.raises(ValueError, match="MixedOp: candidates: expected names of modules: "):
            MixedOp({name: nn.Tanh()})


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_export_in_evaluation_mode(strict: bool, named: bool) -> None:
    modules = [nn.Linear(3, 3), nn.Tanh(), nn.Identity()]
    edge = GumbelMixedOp(dict(zip("abc", modules, strict=True)) if named else modules).eval()
    program = torch.export.export(edge, (torch.randn(2, 3),), strict=strict)
    for k in range(3):
        state = edge.state_dict() | {"alpha": torch.eye(3)[k]}
        edge.load_state_dict(state)
        exported = program.module()
        exported.load_state_dict(state)
        x = torch.randn(2, 3)
        assert torch.equal(exported(x), edge(x))


@pytest.mark.parametrize("tau", [-1, 0, 0.0, math.nan, math.inf])
def test_a_wrong_temperature_is_refused_at_once(tau: float) -> None:
    with pytest.raises(ValueError, match="GumbelMixedOp: tau: expected"):
        GumbelMixedOp([nn.Identity()], tau=tau)
    with pytest.raises(TypeError, match="GumbelMixedOp: tau: expected a float"):
        GumbelMixedOp([nn.Identity()], tau=str(tau))
