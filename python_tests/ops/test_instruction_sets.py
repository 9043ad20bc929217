"""Each instruction set can be forced. All give the same choices, and the same noise up to rounding."""

from __future__ import annotations

import pathlib

import fresh_python
import pytest
import torch
from torch import Tensor

import automl_ext
from automl_ext import _native

pytestmark = pytest.mark.skipif(not _native.is_loaded(), reason="the native library is not built")

NAMES = ("default", "avx2", "avx512", "amx")  # each contains the ones before it
SCRIPT = """
import torch, automl_ext as a
from torch.autograd import grad
results = {}

def keep(name, y, *inputs):
    results[name] = y.detach()
    for i, g in enumerate(grad((y * torch.linspace(0.5, 1.5, y.numel()).view(y.shape).to(y.dtype)).sum(), inputs)):
        results[f"{name} gradient {i}"] = g

generator = torch.Generator().manual_seed(0)
for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    for n in (1, 2, 3, 5, 8, 31, 100, 1000):
        x = (3 * torch.randn(40, n, generator=generator)).to(dtype).requires_grad_()
        tau = torch.tensor(0.7, requires_grad=True)
        name = f"{str(dtype)[6:]} {n} "
        for f in (a.entmax15, a.sparsemax):
            keep(name + f.__name__, f(x), x)
        for f in (a.gumbel_softmax, a.gumbel_entmax15):
            keep(name + f.__name__, f(x, tau, seed=5), x, tau)
        results[name + "bits of hard"] = a.gumbel_softmax(x, hard=True, seed=5).detach()
        results[name + "bits of argmax"] = a.gumbel_argmax(x, seed=5)
        xs = [(x.abs() * (k / n)).detach().requires_grad_() for k in range(1, 5)]
        w = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=dtype, requires_grad=True)
        keep(name + "mixed_op", a.mixed_op(xs, w), w, *xs)
        actions = torch.arange(40) % n
        keep(name + "log_probs", a.categorical_log_probs(x, actions)[0], x)
        keep(name + "entropy", a.categorical_log_probs(x, actions)[1], x)
        old, advantages = x.detach() * 0.9, xs[0].detach() - 1
        loss = a.policy_gradient_loss(x, old, x * 2, advantages, old, old_log_probs=old, old_values=old, ent_coef=0.1)
        keep(name + "loss", loss[0], x)
    if dtype in (torch.float32, torch.float64):
        own = torch.Generator().manual_seed(1)
        for rows in (1, 2, 3, 7, 30, 90):
            x = torch.randn(rows, 5, generator=own).to(dtype).requires_grad_()
            parameters = [torch.randn(size, generator=own).to(dtype).mul(0.2).requires_grad_()
                          for size in ((37, 5), (18, 37), (37,), (18,))]
            for f in ("tanh", "relu", "elu", "gelu", "silu"):
                y = a.mlp(x, parameters[:2], parameters[2:], f)
                keep(f"mlp {dtype} {rows} {f}", y, x, *parameters)
            parameters = [torch.randn(size, generator=own).to(dtype).mul(0.2).requires_grad_()
                          for size in ((rows, 19), (57, 5), (57, 19), (57,), (57,))]
            keep(f"gru_cell {dtype} {rows}", a.gru_cell(x, *parameters), x, *parameters)
    own = torch.Generator().manual_seed(2)
    for queries, keys, width, factor in ((60, 70, 20, 1), (60, 70, 20, 0.1), (3, 200, 16, 1), (50, 1100, 8, 0.6)):
        shapes = ((2, 4, queries, width), (2, 2, keys, width), (2, 2, keys, 24))
        q, k, v = (torch.randn(size, generator=own).to(dtype) for size in shapes)
        tensors = [x.requires_grad_() for x in ((q * factor).detach(), k, v)]
        for mask in (None, torch.rand(queries, keys, generator=own) < 0.7, torch.randn(queries, keys, generator=own)):
            y = a.entmax15_attention(*tensors, mask, enable_gqa=True)
            keep(f"attention {dtype} {queries} {factor} {mask is None or mask.dtype}", y, *tensors)
    # Two categories at tau = 1: one exponential of a difference of noise, independent of the order of summation.
    results[f"noise {dtype}"] = a.gumbel_softmax(torch.zeros(5000, 2, dtype=dtype), seed=9)
results["bits of choices"] = a.gumbel_argmax(torch.zeros(100, 10_000), seed=-3)
torch.save({"instruction_set": a.build_info()["instruction_set"], "results": results}, path)
"""


def used(**environment: str) -> str:
    code = "import json, automl_ext; print(json.dumps(automl_ext.build_info()['instruction_set']))"
    return fresh_python.facts(code, **environment)


@pytest.fixture(scope="module")
def names() -> list[str]:
    """Return the instruction sets of this processor that the library has; the best is used unless another is forced."""
    return list(NAMES[: NAMES.index(used()) + 1])


@pytest.fixture(scope="module")
def by_set(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Return the results of each available instruction set; another one would repeat those of the best."""
    found, folder = {}, tmp_path_factory.mktemp("instruction_sets")
    for name in names:
        path = folder / f"{name}.pt"
        status, _, err = fresh_python.run(f"path = {str(path)!r}\n{SCRIPT}", AUTOML_EXT_CPU=name)
        assert status == 0, err
        found[name] = torch.load(path)
        assert found[name]["instruction_set"] == name
    return found


@pytest.mark.slow
def test_each_instruction_set_can_be_forced(names: list[str]) -> None:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists() and {"avx512bw", "amx_tile", "amx_bf16"} <= set(cpuinfo.read_text().split()):
        assert names[-1] == "amx"
    assert names[-1] in automl_ext.build_info()["instruction_sets"].split(", ")
    for name in NAMES:  # falls back to the best available one
        assert used(AUTOML_EXT_CPU=name) == (name if name in names else names[-1])


def ulp(x: Tensor) -> float:
    """Return the ulp of the largest value, or of 1: gradients are differences of numbers up to 1."""
    return torch.finfo(x.dtype).eps * max(1.0, float(x.abs().max()))


@pytest.mark.parametrize("name", NAMES[1:])
def test_instruction_sets_agree(name: str, by_set: dict[str, dict]) -> None:
    if name not in by_set:
        pytest.skip("this processor or build lacks it")
    expected, got = by_set["default"]["results"], by_set[name]["results"]
    assert got.keys() == expected.keys()
    assert len(expected) > 500
    for key, y in expected.items():
        if "bits of" in key:
            assert torch.equal(got[key], y), key
            continue
        # The order of sums differs: up to a thousand terms per row, and forty rows for tau. The noise may differ in its
        # last bit, so a half-precision sample may be rounded differently, which changes the float32 gradient of tau.
        tau_of_halves = key.endswith("gradient 1") and "gumbel" in key and "float16" in key
        one_half = torch.finfo(torch.bfloat16).eps * float(y.abs().max()) if tau_of_halves else 0.0
        assert (got[key].double() - y.double()).abs().max() <= 16 * ulp(y) + one_half, key


def test_instruction_sets_differ_in_some_bits(by_set: dict[str, dict]) -> None:
    noise = by_set["default"]["results"]["noise torch.float32"]
    assert noise.unique().numel() > 9000
    assert by_set["default"]["results"]["bits of choices"].unique().numel() > 90
