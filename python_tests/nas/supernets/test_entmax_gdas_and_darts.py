"""Tests that GDAS, entmax-GDAS and DARTS share, and the metrics of α."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare_runs import same
from torch import Tensor, nn

from automl_ext.data.images import Split, load_images, split_images
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import Choice, Form, SuperCell, Supernet
from automl_ext.nas.supernets import darts as darts_search
from automl_ext.nas.supernets import entmax_gdas, gdas
from automl_ext.nas.supernets.candidates import decode, masked, without_none
from automl_ext.nas.supernets.darts import DARTSConfig
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.loop import SupernetSearch, alpha_scalars
from automl_ext.nas.supernets.perturbation import PerturbationConfig
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.nas.supernets.supernet_options import SupernetConfig
from automl_ext.training.errors import UserError
from automl_ext.training.search_space import Range, search_space, with_point

SAMPLERS: dict[str, Callable[..., list[Choice]]] = {
    "gdas": gdas.sample,
    "entmax-gdas": entmax_gdas.sample,
    "darts": lambda alphas, tau, rng: darts_search.mix(alphas),
}


TINY = {"subset": 200, "channels": 4, "epochs": 4, "warmup": 0.5, "batch_size": 20}
TINY |= {"retrain_channels": 4, "retrain_epochs": 1}
SEARCHES = {
    "gdas": GDASConfig(**TINY),
    "entmax-gdas": EntmaxGDASConfig(**TINY),
    "darts": DARTSConfig(**TINY),
}


class Toy(nn.Module):
    """One edge, then a linear layer on the means of the channels."""

    def __init__(self, operations: tuple[str, ...], form: Form) -> None:
        super().__init__()
        self.cell = SuperCell(operations, 2, 4, form)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor, choice: Choice) -> Tensor:
        return self.head(self.cell(x, choice).mean((2, 3)))


@pytest.mark.parametrize(("name", "form"), [("gdas", "nb201"), *((name, "darts") for name in SAMPLERS)])
@pytest.mark.parametrize("operations", [("none", "skip_connect"), ("skip_connect", "none")])
def test_alpha_moves_to_the_operation_that_solves_the_task(name: str, form: Form, operations: tuple[str, ...]) -> None:
    """The label is the channel with the largest mean; "none" loses this information."""
    torch.manual_seed(0)
    net = Supernet(Toy(operations, form), [(1, 2)])
    options = {"epochs": 1, "lr": 0.3, "lr_min": 0.3, "momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0}
    options |= {"alpha_lr": 0.05, "alpha_beta1": 0.9, "alpha_weight_decay": 0.0}
    options |= {} if name == "darts" else {"tau_max": 1.0, "tau_min": 1.0}
    algorithm = type(SEARCHES[name])(**options).algorithm(net, None, None, torch.Generator().manual_seed(0))

    def batches() -> Iterator[Split]:
        while True:
            labels = torch.randint(4, (32,))
            images = 0.3 * torch.randn(32, 4, 3, 3) + 2 * nn.functional.one_hot(labels, 4)[:, :, None, None]
            yield Split(images, labels)

    for step in range(60):
        done = algorithm.iterate(0, step / 60, batches(), batches())
        assert done.alpha_loss is not None
        assert len(done.choices) == 2
    assert torch.softmax(net.alphas[0], -1)[0, operations.index("skip_connect")] > 0.8
    algorithm.config = replace(algorithm.config, epochs=5, warmup=0.5)
    done = [algorithm.iterate(epoch, 0.0, batches(), batches()) for epoch in range(5)]
    assert [iteration.alpha_loss is None for iteration in done] == [True, True, True, False, False]


def supernet(seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    net = NASBench201().build_supernet(in_channels=1, num_classes=10, channels=4, cells=1, form="darts")
    with torch.no_grad():
        net.alphas[0].normal_()
    return net


@pytest.mark.parametrize("name", SAMPLERS)
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


@pytest.mark.parametrize("name", ["entmax-gdas", "darts"])
def test_operations_with_weight_zero_change_neither_loss_nor_gradients(name: str) -> None:
    net = supernet().double()
    images, labels = torch.randn(8, 1, 6, 6, dtype=torch.float64), torch.randint(10, (8,))
    gradients, losses = [], []
    for everything in (False, True):
        (choice,) = SAMPLERS[name](net.alphas, 0.7, torch.Generator().manual_seed(1))
        if everything:
            choice = Choice(choice.weights, [list(range(5))] * 6)
        else:
            mean = sum(map(len, choice.active)) / 6
            assert mean == 5 if name == "darts" else 1 <= mean < 5
        loss = nn.functional.cross_entropy(net(images, choice), labels)
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, [net.alphas[0], net.network.stem[0].weight]))  # type: ignore
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0][0].abs().max() > 1e-6


def test_darts_weights_are_the_softmax_of_alpha_without_randomness() -> None:
    net, before = supernet(), torch.get_rng_state()
    (choice,) = darts_search.mix(net.alphas)
    torch.testing.assert_close(choice.weights, torch.softmax(net.alphas[0], -1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_probability_that_entmax_selects_a_single_operation(tau: float) -> None:
    """It is K/(1 + (K − 1)·exp(2τ)); an edge with a single operation has no gradient."""
    alphas = torch.zeros(4000, 5, requires_grad=True)
    (choice,) = entmax_gdas.sample([alphas], tau, torch.Generator().manual_seed(0))
    alone = torch.tensor([len(active) == 1 for active in choice.active])
    expected = 5 / (1 + 4 * math.exp(2 * tau))
    assert alone.double().mean().item() == pytest.approx(expected, abs=4 * math.sqrt(expected / 4000))
    choice.weights[:, 0].square().sum().backward()
    assert alphas.grad is not None
    assert not alphas.grad[alone].any()
    assert alphas.grad[~alone].any()


def test_entmax_prefers_operations_with_larger_alpha() -> None:
    """Largest mean weight, most often in the support, most often the largest: all agree with argmax α."""
    alpha = torch.tensor([0.0, 0.5, -0.5, 1.0, 0.2]).expand(4000, 5)
    for tau in (0.3, 1.0, 3.0):
        weights = entmax_gdas.sample([alpha], tau, torch.Generator().manual_seed(0))[0].weights
        for wanted in (weights.mean(0), (weights > 0).float().mean(0), weights.argmax(-1).bincount(minlength=5)):
            assert wanted.argmax() == 3
            assert wanted.argmin() == 2 or tau == 3.0  # at τ = 3 nearly all operations are in the support


def test_alpha_scalars() -> None:
    alphas = [torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]]), torch.tensor([[0.0, 0.0, 9.0], [0.0, 9.0, 0.0]])]
    scalars = alpha_scalars(alphas, ("none", "skip_connect", "nor_conv_3x3"))
    p = torch.softmax(torch.cat(alphas), -1)
    assert scalars == pytest.approx(
        {
            "alpha_entropy": -(p * p.log()).sum(-1).mean().item(),
            "share_none": 0.25,
            "share_skip": 0.5,
            "prob_none": p[:, 0].mean().item(),
            "prob_skip": p[:, 1].mean().item(),
        }
    )
    assert set(alpha_scalars(alphas, ("max", "skip_connect", "mean"))) == {"alpha_entropy", "share_skip", "prob_skip"}
    assert set(alpha_scalars(alphas, ())) == {"alpha_entropy"}, "a space without names of operations"


@pytest.fixture(scope="module", params=SEARCHES)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp(request.param) / "run"
    search_supernet(SEARCHES[request.param], out)
    return request.param, out


def test_runs_log_support_and_shares(finished: tuple[str, Path]) -> None:
    name, out = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][:4]
    support = [line["search_support"] for line in lines]
    if name == "entmax-gdas":
        assert 1 < support[-1] < support[0] < 4
    else:
        assert support == [1.0 if name == "gdas" else 4.0] * 4
    genotype = NASBench201().parse(json.loads((out / "result.json").read_text())["genotype"])
    assert lines[-1]["search_share_skip"] == pytest.approx(genotype.operations.count("skip_connect") / 6)
    assert lines[-1]["search_share_none"] == pytest.approx(genotype.operations.count("none") / 6)


def test_the_defaults_train_alpha(finished: tuple[str, Path]) -> None:
    """The names of papers that train α do so by default: in the second half here, since the fixture has a warm-up."""
    name, out = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][:4]
    assert ["search_alpha_loss" in line for line in lines] == [False, False, True, True]
    entropy = [line["search_alpha_entropy"] for line in lines]
    assert entropy[0] == entropy[1]
    assert entropy[3] < entropy[2] < entropy[1]
    assert max(SEARCHES[name].warmup, type(SEARCHES[name])().warmup) == 0.5


def test_resume_equals_uninterrupted_run(finished: tuple[str, Path], tmp_path: Path) -> None:
    name, reference = finished
    while search_supernet(SEARCHES[name], tmp_path / "run", resume="auto", stop_after=3) is None:
        torch.rand(7)  # the run must not depend on the global generator
    same(*(json.loads((out / "result.json").read_text()) for out in (reference, tmp_path / "run")))
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()


def test_run_cannot_be_resumed_by_another_search(finished: tuple[str, Path]) -> None:
    name, out = finished
    other = SEARCHES["darts" if name != "darts" else "gdas"]
    with pytest.raises(UserError, match=name):
        search_supernet(other, out, resume="auto")


def test_plot_shows_skip_and_none_in_one_panel(finished: tuple[str, Path], unrendered_figures: list[Any]) -> None:
    from automl_ext.nas.plot import plot_run

    assert finished[1] / "curves.png" in plot_run(finished[1])
    panels = {(a.get_title(loc="left"), a.get_ylabel()): a for a in unrendered_figures[0].axes}
    lines = {key: [line.get_label() for line in axes.get_lines()] for key, axes in panels.items()}
    assert lines["search", "mean probability softmax(α), %"] == ["skip", "none"]
    assert lines.get(("search", "edges where α is largest, %"), ["skip", "none"]) == ["skip", "none"]  # unless constant
    assert lines["search", "loss"] == ["weights", "α"]
    assert not any("tau" in y or "lr" in y for _, y in panels)


@pytest.mark.parametrize("config", [GDASConfig(), EntmaxGDASConfig(), DARTSConfig()])
def test_configuration_error_names_the_field(config: SupernetConfig) -> None:
    """Those that are wrong whatever the other fields are: python_tests/nas/test_bad_input.py."""
    for field, value in (("batch_size", 1), ("warmup", 1.0)):
        with pytest.raises(ValueError, match=f"{field}: expected"):
            replace(config, **{field: value})
    if not isinstance(config, DARTSConfig):
        with pytest.raises(ValueError, match="tau_min: expected above 0"):
            replace(config, tau_min=0.0)  # type: ignore
        with pytest.raises(ValueError, match=r"tau_min: expected at most tau_max \(0\.5\), got 1\.0"):
            replace(config, tau_max=0.5, tau_min=1.0)  # type: ignore
    with pytest.raises(ValueError, match=r"lr_min: expected 0 to lr \(0\.01\), got 0\.02"):
        replace(config, lr=0.01, lr_min=0.02)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_with_dropout_goes_on_exactly(name: str) -> None:
    splits = split_images(load_images("digits", subset=60))
    config = {"gdas": GDASConfig, "entmax-gdas": EntmaxGDASConfig, "darts": DARTSConfig}[name](epochs=2, channels=1)

    def job() -> SupernetSearch:
        made = SupernetSearch(config, NASBench201(), splits, torch.device("cpu"))
        made.supernet.register_forward_hook(lambda module, inputs, output: F.dropout(output, 0.5))
        return made

    first = job()
    first.run_epoch()
    state = copy.deepcopy(first.state_dict())
    measured = first.run_epoch()
    second = job()
    second.load_state_dict(state)
    assert second.run_epoch() == measured
    for a, b in zip(first.supernet.parameters(), second.supernet.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("config", [GDASConfig(), EntmaxGDASConfig(), DARTSConfig(), PerturbationConfig()])
def test_a_tuner_may_take_every_corner_of_the_search_space(config: SupernetConfig) -> None:
    space = search_space(config)
    values = [(v.low, v.high) for v in space.values() if isinstance(v, Range)]
    for corner in product(*values):
        with_point(config, dict(zip(space, corner, strict=True)))


@pytest.mark.parametrize(
    ("epochs", "warmup", "expected"), [(4, 0.5, 2), (5, 0.5, 3), (4, 0.0, 0), (3, 0.9, 2), (1, 0.5, 0), (2, 0.99, 1)]
)
def test_the_warm_up_ends_before_the_last_epoch(epochs: int, warmup: float, expected: int) -> None:
    config = GDASConfig(epochs=epochs, warmup=warmup)
    assert [config.warms_up(epoch) for epoch in range(epochs)] == [epoch < expected for epoch in range(epochs)]


@pytest.mark.parametrize("lr", [0.1, 0.5])
def test_the_rate_of_gdas_is_constant_unless_lr_min_is_given(lr: float) -> None:
    assert GDASConfig(lr=lr).final_lr == EntmaxGDASConfig(lr=lr).final_lr == lr
    assert GDASConfig(lr=lr, lr_min=0.05).final_lr == 0.05
    assert DARTSConfig(lr=lr).final_lr == 0.001
