"""Results on a GPU equal those on the CPU: values, gradients, choices, NaN, −inf and empty tensors.

`AUTOML_EXT_TEST_GPU=cpu pytest -m cuda` runs this file on the CPU, as a rehearsal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from accuracy import assert_accurate, with_layout
from cuda_cases import CASES, EPISODES_IN_TILES, Case, case
from gpu import GPU, required
from noise_error import moved_by_noise_errors
from op_spec import OpSpec
from op_specs import SPECS
from torch import Tensor

import automl_ext as a

required()
pytestmark = pytest.mark.cuda
INF, NAN = math.inf, math.nan
SEED = 3
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# The ops over episodes, and their number of float tensors, which precede the flags; the last one is V'.
EPISODES = {
    "gae": 3,
    "lambda_returns": 2,
    "discounted_returns": 2,
    "n_step_returns": 2,
    "vtrace": 4,
    "retrace": 4,
}
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def assert_equals_cpu(got: Tensor, expected: Tensor, message: str = "", moved: Tensor | None = None) -> None:
    """Check that integers are equal and floats agree within 4 ulp of the largest value, plus compute rounding.

    `moved`: how far errors of the noise may move each result.
    """
    got = got.cpu()
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), message
    if not got.is_floating_point():
        assert torch.equal(got, expected), message
        return
    assert torch.equal(got.isnan(), expected.isnan()), message
    got, wanted = got.nan_to_num().double(), expected.nan_to_num().double()
    if wanted.numel():
        # 40 roundings for sums of hundreds of terms in another order; the accuracy tests are stricter.
        allowed = 4 * torch.finfo(expected.dtype).eps + 40 * torch.finfo(compute_dtype(expected)).eps
        error = (got - wanted).abs().max()
        noise = 0 if moved is None else moved.max()
        assert error <= allowed * wanted.abs().max() + noise, f"{message}: error {error:.3g}"


def leaves(c: Case, tensors: Sequence[Tensor], device: str) -> list[Tensor]:
    """Return copies on a device that require gradients as in the case."""
    return [x.detach().to(device, copy=True).requires_grad_(i < c.trained) for i, x in enumerate(tensors)]


def compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def moved_by_noise(c: Case, tensors: Sequence[Tensor], seed: int | Tensor | None) -> list[Tensor | None]:
    """Return how far the noise of a GPU may move each result; None for float64 and without a seed."""
    if seed is None or tensors[0].dtype == torch.float64:
        return [None] * len(c.outputs_and_gradients(tensors))
    rest = [x.double() if x.is_floating_point() else x for x in tensors[1:]]
    return [
        *moved_by_noise_errors(
            lambda logits: c.outputs_and_gradients(leaves(c, [logits, *rest], "cpu")), tensors[0], seed, -1
        )
    ]


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_values_and_gradients(case: Case, dtype: torch.dtype) -> None:
    tensors = case.tensors("cpu", dtype=dtype)
    expected = case.outputs_and_gradients(tensors)
    moved = moved_by_noise(case, tensors, tensors[-1] if case.name.startswith("gumbel") else None)
    for i, y in enumerate(case.outputs_and_gradients(case.tensors(GPU, dtype=dtype))):
        assert y.device.type == GPU
        assert_equals_cpu(y, expected[i], f"result {i}", moved[i])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1024, 1025, 5000])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_accuracy_of_long_rows(spec: OpSpec, size: int, dtype: torch.dtype) -> None:
    assert_accurate(spec, dtype, size, GPU, ("contiguous", "misaligned"))


# Rows of up to 48 KB fit the default shared memory of a block: 6100 doubles or 12 200 floats are just below, before
# adding the static shared memory of the kernel. Longer rows need a larger limit, and 70 000 values do not fit at all.
LONG_ROWS = [
    *((n, torch.float32) for n in (6100, 12_200, 30_000, 70_000)),
    *((n, torch.float64) for n in (6100, 12_200, 30_000)),
]


@pytest.mark.parametrize(("size", "dtype"), LONG_ROWS, ids=str)
@pytest.mark.parametrize("spec", [s for s in SPECS if s.rowwise and -1 in s.dims], ids=str)
def test_accuracy_of_rows_in_shared_memory_and_beyond(spec: OpSpec, size: int, dtype: torch.dtype) -> None:
    assert_accurate(spec, dtype, size, GPU, ("contiguous",))


@pytest.mark.parametrize("atoms", [6100, 12_200])
def test_projection_in_shared_memory(atoms: int) -> None:
    """The kernel needs a double per atom: 6100 are just below the default limit of 48 KB."""
    c = case("categorical_projection")
    generator = torch.Generator().manual_seed(atoms)
    probs = torch.randn(5, atoms, generator=generator).softmax(-1)
    tensors = [probs, *(x[:5] for x in c.tensors("cpu")[1:])]
    (expected,) = c.outputs(tensors)
    (got,) = c.outputs([x.to(GPU) for x in tensors])
    assert_equals_cpu(got, expected)


@pytest.mark.parametrize("sample", [a.gumbel_softmax, a.gumbel_entmax15], ids=lambda f: f.__name__)
def test_temperature_below_the_smallest_float(sample: Callable) -> None:
    """A positive temperature that rounds to 0 in float32 gives one-hot samples, not NaN."""
    logits = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    y = sample(logits.to(GPU), 1e-50, seed=4).cpu()
    assert torch.equal(y, sample(logits, 1e-50, seed=4))
    assert torch.equal(y, sample(logits, 1.0, True, seed=4))


@pytest.mark.real_gpu
@pytest.mark.parametrize("logits_on", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["gumbel_softmax", "gumbel_entmax15", "gumbel_argmax"])
def test_raw_ops_refuse_two_devices(name: str, logits_on: str) -> None:
    logits = torch.zeros(4, 3, device=logits_on)
    seed = torch.tensor(3, device="cpu" if logits_on == "cuda" else "cuda")
    rest = (-1,) if name == "gumbel_argmax" else (1.0, None, -1, False, True)
    with pytest.raises(ValueError, match=f"^{name}: ") as error:
        getattr(torch.ops.automl_ext, name).default(logits, seed, *rest)
    message = str(error.value).lower()
    assert "cpu" in message
    assert "cuda" in message


@pytest.mark.parametrize("steps", [1, 2, 31, 32, 33, 64, 127, 129, 1000, 2049])
@pytest.mark.parametrize("columns", [1, 3, 33])
def test_trajectories_of_any_length(steps: int, columns: int) -> None:
    """Outputs and gradients in float64 equal those of the reference."""
    generator = torch.Generator().manual_seed(steps)
    floats = [torch.randn(steps, columns, generator=generator, dtype=torch.float64) for _ in range(4)]
    flags = [torch.rand(steps, columns, generator=generator) < p for p in (0.02, 0.02, 0.98)]
    for name, count in EPISODES.items():
        c = case(name)
        tensors = [*floats[:count], *flags]
        with a.backend("reference"):
            expected = c.outputs_and_gradients(leaves(c, tensors, "cpu"))
        for i, y in enumerate(c.outputs_and_gradients(leaves(c, tensors, GPU))):
            torch.testing.assert_close(y.cpu(), expected[i], rtol=1e-10, atol=1e-10, msg=lambda m, c=c: f"{c}: {m}")


@pytest.mark.parametrize("case", EPISODES_IN_TILES, ids=str)
def test_trajectories_in_tiles(case: Case) -> None:
    expected = case.outputs_and_gradients(case.tensors("cpu"))
    for i, y in enumerate(case.outputs_and_gradients(case.tensors(GPU))):
        assert_equals_cpu(y, expected[i], f"result {i}")


# ---- layouts and empty tensors


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_misaligned_tensors(case: Case, dtype: torch.dtype) -> None:
    """Contiguous tensors that start one element after a 16-byte boundary, weights, flags and seeds included."""
    tensors = case.tensors(GPU, dtype=dtype)
    expected = [y.cpu() for y in case.outputs_and_gradients(tensors)]
    moved = [with_layout(x.detach(), "misaligned").requires_grad_(x.requires_grad) for x in tensors]
    assert all(x.is_contiguous() and x.storage_offset() == 1 for x in moved)
    results = case.outputs_and_gradients(moved)
    if case.name == "sparsemax" and dtype in (torch.bfloat16, torch.float16):
        del results[1]  # the gradient of an entry on the threshold, common in half precision, is ambiguous
    for i, y in enumerate(results):
        assert_equals_cpu(y, expected[i], f"result {i}")


@every_case
def test_strided_tensors(case: Case) -> None:
    tensors = case.tensors(GPU)
    expected = [y.cpu() for y in case.outputs_and_gradients(tensors)]
    strided = [x.detach().T.contiguous().T if x.ndim == 2 else x.detach().clone() for x in tensors]
    strided = [x.repeat_interleave(2, -1)[..., ::2] if x.ndim else x for x in strided]
    leaves = [x.requires_grad_(y.requires_grad) for x, y in zip(strided, tensors, strict=True)]
    for i, y in enumerate(case.outputs_and_gradients(leaves)):
        assert_equals_cpu(y, expected[i], f"result {i}")


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (0, 0), (3, 0, 2), (2**17, 0)], ids=str)
def test_empty_tensors(shape: tuple[int, ...]) -> None:
    x, w = torch.zeros(shape, device=GPU, requires_grad=True), torch.ones(2, device=GPU, requires_grad=True)
    flag = torch.zeros(shape, device=GPU, dtype=torch.bool)
    results = [
        a.entmax15(x),
        a.sparsemax(x, 0),
        a.gumbel_softmax(x, seed=1),
        a.gumbel_entmax15(x, hard=True, dim=0, seed=1),
        a.mixed_op([x, x], w),
        *a.gae(x, x, x, flag, flag, 0.9, 0.9),
        a.lambda_returns(x, x, flag, flag, 0.9, 0.9),
        a.discounted_returns(x, x, flag, flag, 0.9),
        *a.n_step_returns(x, x, flag, flag, 0.9, 3),
        *a.vtrace(x, x, x, x, flag, flag, 0.9),
        a.retrace(x, x, x, x, flag, flag, 0.9),
    ]
    assert all(y.shape == shape and y.device.type == GPU for y in results)
    dx, dw = torch.autograd.grad([y.sum() for y in results if y.requires_grad], [x, w])
    assert dx.shape == shape
    assert dw.tolist() == [0, 0]
    rows = torch.zeros(0, 5, device=GPU)
    assert a.gumbel_argmax(rows, seed=1).shape == (0,)
    none = torch.zeros(0, device=GPU)
    assert a.categorical_projection(rows, none, none.bool(), 0.9, -1.0, 1.0).shape == (0, 5)


# ---- NaN and infinity


def special_rows(n: int) -> Tensor:
    """Return rows [9, n]: finite, with NaN, +inf or some −inf, of only −inf, and of −inf with a NaN or a number."""
    x = torch.randn(9, n, generator=torch.Generator().manual_seed(n))
    x[1, n // 2], x[2, 0], x[3, n - 1], x[4, n // 3] = NAN, NAN, INF, INF
    x[5, ::2] = -INF
    x[6] = -INF
    x[7], x[7, n - 1] = -INF, NAN
    x[8], x[8, n // 2] = -INF, 1.0
    return x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 3, 8, 33, 100, 1000, 5000])
def test_nan_and_infinity_in_rows(n: int, dtype: torch.dtype) -> None:
    ops = {
        "entmax15": a.entmax15,
        "sparsemax": a.sparsemax,
        "softmax": lambda x: a.gumbel_softmax(x, 0.8, seed=SEED, return_index=True),
        "softmax hard": lambda x: a.gumbel_softmax(x, 0.8, True, seed=SEED, return_index=True),
        "entmax": lambda x: a.gumbel_entmax15(x, 0.8, seed=SEED, return_index=True),
        "entmax hard": lambda x: a.gumbel_entmax15(x, 0.8, True, seed=SEED, return_index=True),
        "argmax": lambda x: a.gumbel_argmax(x, seed=SEED),
    }
    x = special_rows(n).to(dtype)
    for name, op in ops.items():
        c = Case(name, lambda g: [], op, trained=0 if name == "argmax" else 1)
        expected = c.outputs_and_gradients(leaves(c, [x], "cpu"))
        got = c.outputs_and_gradients(leaves(c, [x], GPU))
        moved = moved_by_noise(c, leaves(c, [x], "cpu"), None if name in ("entmax15", "sparsemax") else SEED)
        if name == "sparsemax" and dtype in (torch.bfloat16, torch.float16):
            del got[1], expected[1]  # the gradient of an entry on the threshold, common in half precision, is ambiguous
        for row in range(9):
            for i, (y, want) in enumerate(zip(got, expected, strict=True)):
                allowed = None if moved[i] is None else moved[i][row]
                assert_equals_cpu(y[row], want[row], f"{name}, result {i}, row {row}", allowed)
            if expected[0].is_floating_point() and not expected[0][row].isnan().any():
                assert (got[0][row].cpu()[x[row] == -INF] == 0).all(), f"{name}, row {row}: masked entries"


def test_inputs_without_weight_are_not_read() -> None:
    x, bad = torch.randn(1000, device=GPU), torch.full((1000,), NAN, device=GPU, requires_grad=True)
    weights = torch.tensor([2.0, 0.0], device=GPU, requires_grad=True)
    y = a.mixed_op([x, bad], weights)
    assert torch.equal(y, 2 * x)
    dbad, dw = torch.autograd.grad(y, [bad, weights], torch.ones_like(y))
    assert (dbad == 0).all()
    assert dw[0].isfinite()
    assert dw[1].isnan()  # its weight gets the gradient ⟨grad, x⟩


@pytest.mark.parametrize("name", EPISODES)
@pytest.mark.parametrize("bad", [NAN, INF])
def test_ignored_values_are_not_read(name: str, bad: float) -> None:
    """Values at invalid steps and V' of terminated steps are not read."""
    c = case(name)
    tensors = c.tensors("cpu")
    terminated, _, valid = tensors[-3:]
    next_values = EPISODES[name] - 1
    for i, x in enumerate(tensors[:-3]):
        tensors[i] = x.detach().masked_fill(~valid | terminated if i == next_values else ~valid, bad)
    expected = c.outputs_and_gradients(leaves(c, tensors, "cpu"))
    got = c.outputs_and_gradients(leaves(c, tensors, GPU))
    for i, (y, want) in enumerate(zip(got, expected, strict=True)):
        assert torch.equal(y.cpu().isfinite(), want.isfinite()), f"result {i}"
        assert_equals_cpu(torch.where(y.isfinite(), y, 0), torch.where(want.isfinite(), want, 0), f"result {i}")


def test_nan_in_a_projection_affects_only_its_row() -> None:
    c = case("categorical_projection")
    tensors = c.tensors("cpu")
    tensors[0][2, 7] = NAN
    tensors[1][4] = NAN
    (expected,) = c.outputs(tensors)
    (got,) = c.outputs([x.to(GPU) for x in tensors])
    assert expected.isnan().any()
    assert_equals_cpu(got, expected)
