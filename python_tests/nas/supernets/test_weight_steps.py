"""Search steps compared with plain PyTorch (losses, gradients, statistics), and their memory layout."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from paths import ROOT
from torch import Tensor, nn

import automl_ext
from automl_ext import _native
from automl_ext.data.images import Split
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import Choice, Supernet
from automl_ext.nas.supernets.gdas import GDAS, GDASConfig, sample
from automl_ext.nas.supernets.loop import frozen

BENCHMARKS = ROOT / "benchmarks" / "steps"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import benchmarks/steps/gdas_step.py."""
    if not BENCHMARKS.exists():
        pytest.skip("the package is tested without its sources")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gdas_step

    return gdas_step


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in module.named_parameters()}


def ran_in_both(network: nn.Module, other: nn.Module) -> dict[str, Tensor]:
    """Return the network's state without operations that ran in only one of the two networks.

    The plain step also runs operations that do not reach the output; these get zero gradients and weight decay.
    """
    state, counterpart = network.state_dict(), other.state_dict()
    count = "2.num_batches_tracked"  # of the batch norm in ReLU, convolution, batch norm
    rested = [k.removesuffix(count) for k in state if k.endswith(count) and state[k] != counterpart[k]]
    assert len(rested) < 12, "there are 36 in all"
    return {name: value for name, value in state.items() if not name.startswith(tuple(rested))}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_equal_plain_pytorch(bench: ModuleType, mixed: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(1)
    todo = bench.draw_batches(4, 8, 8)
    ours = bench.OurMixedStep(bench.build(4, 1)) if mixed else bench.OurStep(bench.build(4, 1))
    plain = bench.plain_step(4, 1, mixed)
    seen: dict[str, list[dict[str, Tensor | None]]] = {"ours": [], "plain": []}
    for optimizer, key, module in (
        (ours.optimizers[0], "ours", ours.supernet.network),
        (plain.optimizers[0], "plain", plain.network),
    ):
        # Record gradients at the weight step: the plain α step later adds its own, unused ones.
        optimizer.register_step_pre_hook(
            lambda *_, key=key, module=module: seen[key].append(
                {name: None if g is None else g.clone() for name, g in gradients(module).items()}
            )
        )
    for batches in todo:
        bench.copy_state(ours, plain)
        losses = ours(batches)
        expected = plain([x.contiguous(memory_format=layout) for x in batches.images], batches.labels, batches.noise())
        assert losses == pytest.approx(expected, rel=1e-5)
        alpha = ours.supernet.alphas[0]
        torch.testing.assert_close(alpha.grad, plain.alpha.grad, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(alpha, plain.alpha, rtol=1e-3, atol=1e-6)
        states = [ran_in_both(ours.supernet.network, plain.network), ran_in_both(plain.network, ours.supernet.network)]
        torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)  # includes running statistics
        for name, gradient in seen["ours"][-1].items():
            # Operations that do not reach the output do not run here; their gradient in the plain step is 0.
            wanted = seen["plain"][-1][name]
            if gradient is None and wanted is not None:
                gradient = torch.zeros_like(wanted)
            torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5, msg=name)


def test_alpha_step_keeps_gradients_of_the_weights() -> None:
    """They stay None after zero_grad, and stay equal after a weight step."""
    torch.manual_seed(0)
    net = NASBench201().build_supernet(in_channels=1, num_classes=10, channels=4, cells=1, form="nb201")
    batch = Split(torch.randn(8, 1, 8, 8), torch.randint(10, (8,)))
    gdas = GDAS(GDASConfig(), net, None, None, torch.Generator().manual_seed(0))
    gdas.alpha_step(batch, 1.0)
    assert all(g is None for g in gradients(net.network).values())
    gdas.weight_step(batch, 1.0)
    before = {name: (g, g.clone()) for name, g in gradients(net.network).items() if g is not None}
    assert before
    gdas.alpha_step(batch, 1.0)
    after = {name: g for name, g in gradients(net.network).items() if g is not None}
    assert after.keys() == before.keys()
    for name, (gradient, copy) in before.items():
        assert after[name] is gradient, name
        assert torch.equal(gradient, copy), name


@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_layer_gets_channels_last_images(in_channels: int) -> None:
    net = NASBench201().build_supernet(in_channels=in_channels, num_classes=10, channels=4, cells=1, form="nb201")
    layouts: dict[str, bool] = {}

    def note(name: str, image: Tensor) -> None:
        layouts[name] = image.is_contiguous(memory_format=torch.channels_last)

    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d)):
            module.register_forward_hook(lambda _, inputs, output, name=name: (note(name, inputs[0]), None)[1])
    net(torch.randn(2, in_channels, 8, 8), Choice.fixed([3, 2, 4, 3, 1, 4], 5))
    assert len(layouts) == 2 + 3 * (3 * 2 + 2) + 2 * 6 + 1
    assert all(layouts.values()), layouts


def test_one_hot_weights_without_a_gradient_equal_the_weighted_sum(supernets: tuple[Supernet, Supernet]) -> None:
    """The plain sum of the outputs gives the same value, and the same gradients up to rounding."""
    x = torch.randn(4, 1, 8, 8)
    for indices in ([3, 2, 4, 3, 1, 3], [1, 1, 1, 1, 1, 1], [3, 0, 0, 0, 0, 2]):
        summed = Choice.fixed(indices, 5)
        results = []
        for net, choice in zip(supernets, (summed, summed._replace(one_hot=False)), strict=True):
            net.zero_grad()
            y = net(x, choice)
            y.square().sum().backward()
            results.append((y.detach(), gradients(net)))
        torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            *[{k: v for k, v in g.items() if v is not None} for _, g in results], rtol=1e-3, atol=1e-5
        )


@pytest.fixture
def supernets() -> tuple[Supernet, Supernet]:
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        made.append(NASBench201().build_supernet(in_channels=1, num_classes=10, channels=4, cells=1, form="nb201"))
    return made[0], made[1]


def test_benchmark_runs(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    bench.main(["--steps", "2", "--batch", "4", "--size", "8", "--channels", "4", "--json", str(file)])
    rows = json.loads(file.read_text())
    assert [row["step"] for row in rows] == ["one operation drawn", "all operations mixed"]
    assert all(row["ours_s"] > 0 and row["plain_s"] > 0 for row in rows)
    assert "one operation drawn" in capsys.readouterr().out


def test_benchmark_detects_a_different_step(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "TAU", 5.0)
    torch.manual_seed(1)
    todo = bench.draw_batches(3, 4, 8)
    wrong = [b._replace(seeds=(b.seeds[0] + 1, b.seeds[1])) for b in todo]
    with pytest.raises(AssertionError, match="not close"):
        bench.compare("x", False, 4, 1, wrong, lambda: 0.0)


def test_threads_and_backend_change_only_rounding() -> None:
    """Samples are equal; gradients of α differ by less than 0.001 of the largest, as PyTorch sums in another order."""
    data = torch.Generator().manual_seed(1)
    images, labels = torch.randn(8, 1, 8, 8, generator=data), torch.randint(10, (8,), generator=data)

    def step(threads: int, backend: str) -> tuple[list[list[list[int]]], list[Tensor]]:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        net = NASBench201().build_supernet(in_channels=1, num_classes=10, channels=2, cells=1, form="nb201")
        with automl_ext.backend(backend):
            choices = sample(net.alphas, 1.0, torch.Generator().manual_seed(2))
            nn.functional.cross_entropy(net(images, *choices), labels).backward()
        return [choice.active for choice in choices], [alpha.grad for alpha in net.alphas]

    before = torch.get_num_threads()
    try:
        ran, expected = step(1, "reference")
        native = ["native"] if _native.is_loaded() else []
        for threads, backend in [(1, "reference"), *((1, b) for b in native), (2, (native or ["reference"])[0])]:
            drawn, found = step(threads, backend)
            exact = (threads, backend) == (1, "reference")
            assert drawn == ran
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a, b) if exact else (a - b).abs().max() <= 1e-3 * b.abs().max()
    finally:
        torch.set_num_threads(before)


def test_parameters_that_a_supernet_has_frozen_stay_frozen() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with frozen(layer.parameters()):
        assert not layer.weight.requires_grad
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
