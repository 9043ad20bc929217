"""GDAS: its steps, its learning, its results, and exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compare_runs import newest, same
from torch import Tensor

from automl_ext.data.images import Split
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import Choice, Supernet, recalibrate
from automl_ext.nas.supernets.darts import mix
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDAS, GDASConfig, sample
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.nas.training.compare import CompareConfig, compare
from automl_ext.nas.training.retrain import RetrainConfig, retrain
from automl_ext.training.errors import UserError

TINY = GDASConfig(warmup=0.0, subset=200, channels=4, epochs=3, retrain_channels=4, retrain_epochs=2, batch_size=20)


def batch(size: int = 16, channels: int = 1) -> Split:
    return Split(torch.randn(size, channels, 8, 8), torch.randint(10, (size,)))


def supernet() -> Supernet:
    torch.manual_seed(0)
    return NASBench201().build_supernet(in_channels=1, num_classes=10, channels=4, cells=1, form="nb201")


def algorithm(net: Supernet, **options: Any) -> GDAS:
    return GDAS(GDASConfig(**options), net, None, None, torch.Generator().manual_seed(0))


def parameters(net: Supernet) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def changed(net: Supernet, before: dict[str, Tensor]) -> set[str]:
    return {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}


def test_alpha_step_changes_only_alpha_and_computes_no_other_gradient() -> None:
    net = supernet()
    before = parameters(net)
    algorithm(net, alpha_lr=0.1).alpha_step(batch(), 1.0)
    assert changed(net, before) == {"alphas.0"}
    assert all(p.grad is None for p in net.weights())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("mixed", [False, True])
def test_bfloat16_is_only_less_exact(mixed: bool) -> None:
    net, images = supernet(), batch()
    choices = mix(net.alphas) if mixed else sample(net.alphas, 1.0, torch.Generator().manual_seed(0))
    exact, rough = (algorithm(net, bfloat16=b).loss(images, choices) for b in (False, True))
    assert exact != rough
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    expected, found = (torch.autograd.grad(loss, net.alphas[0], retain_graph=True)[0] for loss in (exact, rough))
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.95


def test_weights_require_gradients_after_a_failed_alpha_step() -> None:
    net = supernet()
    with pytest.raises(RuntimeError):
        algorithm(net).alpha_step(batch(channels=2), 1.0)
    assert all(p.requires_grad for p in net.parameters())


def test_weight_step_changes_only_sampled_operations() -> None:
    net = supernet()
    before = parameters(net)
    algorithm(net, weight_decay=0.1).weight_step(batch(), 1.0)
    moved = changed(net, before)
    assert "alphas.0" not in moved
    assert net.alphas[0].grad is None
    assert "network.stem.0.weight" in moved
    for edge in range(6):
        drawn = {name.split(".")[6] for name in moved if f".0.edges.{edge}." in name}
        assert len(drawn) <= 1, f"edge {edge}: more than one operation changed"


def test_gradients_of_weights_are_clipped() -> None:
    net = supernet()
    before = parameters(net)
    algorithm(net, lr=1.0, momentum=0.0, weight_decay=0.0, grad_clip=0.01).weight_step(batch(), 1.0)
    moves = [(p - before[name]).square().sum() for name, p in net.named_parameters()]
    assert 0 < torch.stack(moves).sum().sqrt() <= 0.0101


def test_recalibrated_statistics_match_the_images() -> None:
    net = supernet()
    for _ in range(3):
        net(10 * batch(64).images, *sample(net.alphas, 1.0, torch.Generator()))
    images, choices = batch(64).images, [Choice.fixed([3, 1, 2, 4, 1, 3], 5)]
    recalibrate(net, images, choices)
    net.train()
    expected = net(images, *choices)
    net.eval()
    torch.testing.assert_close(net(images, *choices), expected, rtol=0.05, atol=0.05)


def test_all_images_count_alike_in_the_recalibrated_statistics() -> None:
    net = supernet()
    x = torch.zeros(501, 1, 8, 8)
    x[-1] = 100.0  # alone in a batch, it would have half of the weight
    recalibrate(net, x, [Choice.fixed([3, 1, 2, 4, 1, 3], 5)])
    norm = next(module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert int(norm.num_batches_tracked) == 2
    one = x[-1:].mean() / 501
    convolution = next(module for module in net.modules() if isinstance(module, torch.nn.Conv2d))
    expected = convolution(x[-1:]).mean((0, 2, 3)) / 501
    torch.testing.assert_close(norm.running_mean, expected, rtol=0.01, atol=float(one) * 1e-3)


def test_temperature_falls_linearly() -> None:
    for kind in (GDASConfig, EntmaxGDASConfig):
        config = kind(epochs=5, tau_max=10.0, tau_min=0.1)
        assert [config.tau(epoch) for epoch in range(5)] == pytest.approx([10.0, 7.525, 5.05, 2.575, 0.1])
        assert replace(config, epochs=1).tau(0) == 10.0


JOBS: dict[str, tuple[Any, Any, int]] = {
    "search": (search_supernet, TINY, 3),  # of 5 epochs, after 1, 3 and 4
    "retrain": (
        retrain,
        RetrainConfig(genotype=str(NASBench201().decode([3, 1, 0, 4, 2, 1])), subset=200, channels=4, epochs=4),
        2,
    ),
    "compare": (
        compare,
        CompareConfig(genotype=str(NASBench201().decode([3] * 6)), subset=200, channels=4, epochs=2, random_cells=2),
        3,  # of 6 epochs
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the run directory of a job, which runs once."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        if not (folder / name).exists():
            JOBS[name][0](JOBS[name][1], folder / name)
        return folder / name

    return run


@pytest.fixture(params=JOBS)
def finished(request: pytest.FixtureRequest, runs: Callable[[str], Path]) -> tuple[str, Path]:
    return request.param, runs(request.param)


def test_resume_equals_uninterrupted_run(finished: tuple[str, Path], tmp_path: Path) -> None:
    """Parts of one and of two epochs: they end within a training, and between two."""
    name, reference = finished
    job, config, stops = JOBS[name]
    out = tmp_path / "run"
    stopped = 0
    while job(config, out, resume="auto", stop_after=1 + stopped % 2) is None:
        stopped += 1
        torch.manual_seed(stopped + 1000)  # the run must not depend on the global generator
        torch.rand(stopped)
    assert stopped == stops

    expected = json.loads((reference / "result.json").read_text())
    same(json.loads((out / "result.json").read_text()), expected)
    assert (out / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()
    same(newest(out), newest(reference))


def test_resuming_a_finished_run_gives_its_result(finished: tuple[str, Path]) -> None:
    name, out = finished
    job, config, _ = JOBS[name]
    before = json.loads((out / "result.json").read_text())
    assert job(config, out, resume="auto") == before


def test_result_entries(finished: tuple[str, Path]) -> None:
    name, out = finished
    result = json.loads((out / "result.json").read_text())
    for trained in {"compare": result.get("random"), "search": [result], "retrain": [result]}[name]:
        NASBench201().parse(trained["genotype"])
        assert 0 <= trained["test_accuracy"] <= 1
        assert trained["parameters"] > 1000
        assert trained["times"]["retrain_seconds"] > 0
        assert trained["times"]["retrain_cpu_seconds"] > 0
    if name == "search":
        assert result["times"]["search_seconds"] > 0
        assert 0 <= result["supernet_accuracy"] <= 1
        logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        shares = [row["search_supernet_accuracy"] for row in logged if "search_loss" in row]
        assert len(shares) == TINY.epochs
        assert all(0 <= share <= 1 for share in shares)
        assert all("retrain_train_accuracy" in row for row in logged if "retrain_loss" in row)
    if name == "compare":
        accuracies = torch.tensor([r["test_accuracy"] for r in result["random"]], dtype=torch.float64)
        assert result["random_mean"] == pytest.approx(accuracies.mean().item())
        assert result["random_median"] == pytest.approx(accuracies.quantile(0.5).item())
        assert result["random_std"] == pytest.approx(accuracies.std().item())


def test_final_training_equals_the_command_retrain(runs: Callable[[str], Path], tmp_path: Path) -> None:
    found = json.loads((runs("search") / "result.json").read_text())
    config = RetrainConfig(genotype=found["genotype"], subset=200, channels=4, epochs=2)
    alone = retrain(config, tmp_path / "retrain")
    assert alone is not None
    assert alone["test_accuracy"] == found["test_accuracy"]
    states = [newest(run)[1]["job"]["network"] for run in (runs("search"), tmp_path / "retrain")]
    same(*states)


def test_seeds_give_different_searches(runs: Callable[[str], Path], tmp_path: Path) -> None:
    other = search_supernet(replace(TINY, seed=1, retrain_epochs=1), tmp_path / "run")
    assert other is not None
    assert other["alpha"] != json.loads((runs("search") / "result.json").read_text())["alpha"]


def test_divergence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="search: diverged in epoch 1"):
        search_supernet(replace(TINY, lr=1e30, grad_clip=1e30), tmp_path / "run")


def test_space_without_supernet_leaves_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="space renas: has no supernet"):
        search_supernet(replace(TINY, space="renas"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stop_after_and_genotype_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop_after: expected at least 1, got 0"):
        search_supernet(TINY, tmp_path / "a", stop_after=0)
    with pytest.raises(UserError, match="NAS-Bench-201 cell"):
        retrain(RetrainConfig(genotype="|sep_conv_3x3~0|"), tmp_path / "b")
    assert not (tmp_path / "b").exists()
