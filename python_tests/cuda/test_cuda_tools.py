"""Gumbel noise, torch.compile, modules and search steps on a GPU."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cuda_cases import case
from gpu import GPU, REHEARSAL, required
from torch import Tensor, nn

import automl_ext as a
from automl_ext.ops import modules
from automl_ext.ops._gumbel_reference import gumbel_from_words, perturbed, philox_words

required()
pytestmark = pytest.mark.cuda
LENGTHS = (1, 2, 7, 8, 31, 32, 33, 63, 64, 65, 100, 1000, 1024, 1025, 5000, 6100, 12_200, 30_000, 70_000)


# ---- noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("n", LENGTHS)
def test_noise_equals_that_of_the_words(n: int, dim: int, dtype: torch.dtype) -> None:
    """With logits 0 and τ = 1, log y is the noise up to a constant of the row."""
    shape = [3, 2, 33 if n <= 1000 else 5]  # 33: columns
    shape[dim] = n
    logits = torch.zeros(shape, dtype=dtype)
    seed = torch.tensor(2**40 + n)
    noise = perturbed(logits, seed, dim).double().movedim(dim, -1)
    y, index = a.gumbel_softmax(logits.to(GPU), dim=dim, seed=seed.to(GPU), return_index=True)
    logs = y.cpu().double().log().movedim(dim, -1)
    top = noise.argmax(-1, keepdim=True)
    difference = (logs - logs.gather(-1, top)) - (noise - noise.gather(-1, top))
    scale = noise.abs().maximum(noise.gather(-1, top).abs()).clamp(min=1)
    assert (difference.abs() / scale).max() < (1e-6 if dtype == torch.float32 else 1e-13)
    assert_same_choices(index.cpu(), noise)
    assert torch.equal(a.gumbel_argmax(logits.to(GPU), dim, seed=seed.to(GPU)), index)


def assert_same_choices(index: Tensor, z: Tensor) -> None:
    """Check that index is the argmax of z [..., n], or an entry within 1e-5 of the maximum."""
    chosen = z.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    assert (z.amax(-1) - chosen).max() <= 1e-5
    if z.shape[-1] > 1:
        best, second = z.topk(2, -1).values.unbind(-1)
        clear = best - second > 1e-5
        assert torch.equal(index[clear], z.argmax(-1)[clear])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("n", [2, 8, 33, 1000])
def test_choices_equal_those_of_the_cpu(n: int, dtype: torch.dtype) -> None:
    logits = torch.randn(2000, n, generator=torch.Generator().manual_seed(n)).to(dtype)
    z = perturbed(logits, torch.tensor(n), 1)
    for sample in (a.gumbel_softmax, a.gumbel_entmax15):
        y, index = sample(logits.to(GPU), 0.5, True, seed=n, return_index=True)
        assert_same_choices(index.cpu(), z)
        assert torch.equal(y.argmax(-1), index)
    assert torch.equal(a.gumbel_argmax(logits.to(GPU), seed=n), index)


@pytest.mark.parametrize("n", [5, 64, 1000])
def test_every_sample_of_a_vmap_has_its_own_stream(n: int) -> None:
    logits = torch.randn(4, 6, n, generator=torch.Generator().manual_seed(n))
    seeds, taus = torch.tensor([5, -1, 2**50, 5]), torch.tensor([0.5, 1.0, 2.0, 0.5])

    def draw(x: Tensor, seed: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        return a.gumbel_softmax(x, tau, seed=seed, return_index=True)

    for in_dims in ((0, 0, 0), (None, 0, 0), (0, None, 0), (0, 0, None)):
        arguments = [x if d == 0 else x[0] for x, d in zip((logits, seeds, taus), in_dims, strict=True)]
        y, index = torch.func.vmap(draw, in_dims)(*(x.to(GPU) for x in arguments))
        for i in range(4):
            alone = [x[i] if d == 0 else x for x, d in zip(arguments, in_dims, strict=True)]
            expected, _ = draw(*alone)
            torch.testing.assert_close(y[i].cpu(), expected, rtol=1e-5, atol=1e-7)
            assert_same_choices(index[i].cpu(), perturbed(alone[0], alone[1], 1))


def test_extreme_words() -> None:
    """Words 0 and 2³² − 1 give the extreme values of the noise, which are finite."""
    from philox_words import ONES_WORD, ZERO_WORD

    for seed, element in (ZERO_WORD, ONES_WORD):
        for dtype, tolerance in ((torch.float32, 3e-6), (torch.float64, 1e-12)):
            noise = gumbel_from_words(philox_words(torch.tensor(seed), 64), dtype).double()
            y = a.gumbel_softmax(torch.zeros(64, dtype=dtype, device=GPU), seed=seed).cpu().double()
            torch.testing.assert_close(y, noise.softmax(0), rtol=tolerance, atol=0)
            assert element in (y.argmin(), y.argmax())


# ---- torch.compile


compiles = pytest.mark.timeout(180)
each_mode = pytest.mark.parametrize("mode", ["default", "reduce-overhead"])  # the second one records CUDA graphs
CALLS = 4  # the first ones of reduce-overhead warm up and record


@pytest.fixture
def inductor() -> None:
    if not REHEARSAL:
        pytest.importorskip("triton", reason="inductor needs Triton")
    torch._dynamo.reset()


@compiles
@each_mode
@pytest.mark.parametrize("name", ["entmax15", "gumbel_softmax", "gumbel_argmax", "mixed_op_3", "gae", "td_targets"])
def test_inductor(name: str, mode: str, inductor: None) -> None:
    """Compile with inductor; the conformance suite uses aot_eager."""
    c = case(name)

    def doubled(*tensors: Tensor) -> tuple[Tensor, ...]:
        return c.outputs([2 * x if x.is_floating_point() else x for x in tensors])

    compiled = torch.compile(doubled, fullgraph=True, mode=mode)
    for call in range(CALLS):
        tensors = c.tensors(GPU, seed=call)
        if mode != "default":  # a graph waits for the backward pass of the one before
            tensors = [x.detach() for x in tensors]
        torch.compiler.cudagraph_mark_step_begin()
        for got, want in zip(compiled(*tensors), doubled(*tensors), strict=True):
            torch.testing.assert_close(got, want)


@compiles
@each_mode
@pytest.mark.parametrize("op", [a.gumbel_softmax, a.gumbel_entmax15, a.gumbel_argmax], ids=lambda op: op.__name__)
def test_inductor_without_a_seed(op: Callable[..., Tensor], mode: str, inductor: None) -> None:
    """Each call draws new noise, of the right distribution."""
    rows, n = 4000, 8
    compiled = torch.compile(lambda x: op(2 * x), fullgraph=True, mode=mode)
    draws = []
    for _ in range(CALLS):
        torch.compiler.cudagraph_mark_step_begin()
        draws.append(compiled(torch.zeros(rows, n, device=GPU)).clone())
    for x, y in itertools.combinations(draws, 2):
        assert not torch.equal(x, y)
    for y in draws:
        counts = torch.bincount(y if op is a.gumbel_argmax else y.argmax(-1), minlength=n)
        assert (counts - rows / n).abs().max() < 120  # 5.7 standard deviations


def test_autocast_keeps_the_sample() -> None:
    logits = torch.randn(50, 8, device=GPU).bfloat16()
    with torch.autocast(GPU, dtype=torch.bfloat16):
        y, index = a.gumbel_softmax(logits, seed=1, return_index=True)
        assert torch.equal(a.gumbel_argmax(logits, seed=1), index)
        mixed = a.mixed_op([logits, logits.float()], torch.ones(2, device=GPU))
    assert y.dtype == mixed.dtype == torch.float32
    assert torch.equal(index, a.gumbel_argmax(logits, seed=1))


# ---- modules and the search


@pytest.mark.parametrize("sparse", [False, True])
def test_gumbel_mixed_op(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal weights and seeds run the same candidates as on the CPU."""
    for name in ("gumbel_softmax", "gumbel_entmax15"):  # by default, the seed comes from the generator of the device
        monkeypatch.setattr(modules, name, functools.partial(getattr(a, name), seed=11))
    torch.manual_seed(0)
    edge = a.GumbelMixedOp([nn.Tanh(), nn.Sigmoid(), nn.ReLU(), nn.Identity()], tau=0.7, sparse=sparse)
    x = torch.randn(20, 3)
    results = []
    for device in ("cpu", GPU):
        edge = edge.to(device)
        leaf = x.to(device).requires_grad_()
        y = edge(leaf)
        results.append([y, *torch.autograd.grad(y.square().sum(), [leaf, edge.alpha])])
    for here, there in zip(*results, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)


def test_gdas_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps each for the weights and α sample the same architectures as on the CPU; the losses agree."""
    from automl_ext.data.images import Split
    from automl_ext.nas.spaces.nasbench201 import NASBench201
    from automl_ext.nas.supernets.gdas import GDAS, GDASConfig, sample

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 4

    def steps(device: str) -> tuple[list[Any], list[Tensor]]:
        torch.manual_seed(0)
        supernet = NASBench201().build_supernet(in_channels=1, num_classes=4, channels=4, cells=1, form="nb201")
        supernet = supernet.to(device)
        rng = torch.Generator().manual_seed(7)
        batch = Split(images.to(device), labels.to(device))
        gdas = GDAS(GDASConfig(lr=0.05, lr_min=0.05, alpha_lr=0.01), supernet, None, None, rng)
        losses, drawn = [], []
        for _ in range(2):
            losses += [gdas.weight_step(batch, 5.0)[0], gdas.alpha_step(batch, 5.0)[0]]
            drawn += [choice.active for choice in sample(supernet.alphas, 5.0, rng)]
        return drawn, [x.detach().cpu() for x in (*losses, *supernet.alphas)]

    (drawn, expected), (drawn_there, got) = steps("cpu"), steps(GPU)
    assert drawn_there == drawn
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)
