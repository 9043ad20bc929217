"""Values and gradients of every op are bit-identical for any number of threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import automl_ext
import automl_ext.ops.entmax as entmax

# Above 32768 elements the kernels use a second thread. The rows are split inside a group of a vector of rows.
ROWS = [(40_001, 1), (4099, 8), (2503, 13), (1031, 33), (333, 257), (67, 1000), (33, 2049), (3, 40_000)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flags(*shape: int, seed: int, probability: float = 0.1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < probability


def bits(function: Callable[..., object], inputs: list[Tensor]) -> list[Tensor]:
    """Return the outputs of ``function`` and the gradients of the inputs that require one."""
    outputs = function(*inputs)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    wanted = [x for x in inputs if x.requires_grad]
    smooth = [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]
    # An elementwise non-constant gradient, so that the test itself computes no sums.
    grads = [random(*y.shape, seed=9).to(y.dtype) for y in smooth]
    gradients = torch.autograd.grad(smooth, wanted, grads, allow_unused=True) if wanted and smooth else ()
    return [x.detach().clone() for x in (*outputs, *gradients) if x is not None]


def assert_same_bits(function: Callable[..., object], inputs: list[Tensor]) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(bits(function, inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


MAPS = {
    "entmax15": entmax.entmax15,
    "sparsemax": entmax.sparsemax,
    "gumbel_softmax": lambda x, tau: automl_ext.gumbel_softmax(x, tau, seed=1, return_index=True),
    "gumbel_softmax_hard": lambda x, tau: automl_ext.gumbel_softmax(x, tau, True, seed=1),
    "gumbel_entmax15": lambda x, tau: automl_ext.gumbel_entmax15(x, tau, seed=1, return_index=True),
    "gumbel_argmax": lambda x: automl_ext.gumbel_argmax(x, seed=1),
}
each_map = pytest.mark.parametrize("name", list(MAPS))


@each_map
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_maps(name: str, shape: tuple[int, int]) -> None:
    x = random(*shape)
    x[1::7] = 1e-3 * x[1::7]  # some rows with many candidates
    x[-1] = -torch.inf
    for dtype in (torch.float32, torch.bfloat16)[: 1 + ROWS.index(shape) % 2]:
        inputs = [x.to(dtype).requires_grad_()]
        if "gumbel_softmax" in name or "gumbel_entmax" in name:
            inputs.append(torch.tensor(0.7, requires_grad=True))
        assert_same_bits(MAPS[name], inputs)


@pytest.mark.parametrize("op", [automl_ext.gumbel_softmax, automl_ext.gumbel_entmax15])
@pytest.mark.parametrize(("shape", "dim"), [((33, 1800), 0), ((1596, 13), 1), ((7, 1103, 5), 1)], ids=str)
def test_one_tau_per_row(op: Callable[..., Tensor], shape: tuple[int, ...], dim: int) -> None:
    rows = [1 if i == dim else n for i, n in enumerate(shape)]
    for taus in (rows, [1] * len(shape)):
        inputs = [random(*shape).requires_grad_(), random(*taus, seed=1).sigmoid().requires_grad_()]
        assert_same_bits(lambda x, tau: op(x, tau, dim=dim, seed=1), inputs)


BISECTIONS = {
    "entmax_bisect": lambda x: entmax.entmax_bisect(x, 1.3, n_iter=2),
    "normmax_bisect": lambda x: entmax.normmax_bisect(x, 2, n_iter=2),
    "budget_bisect": lambda x: entmax.budget_bisect(x, 1, n_iter=2),
    "entmax15_loss": lambda x: entmax.entmax15_loss(x, torch.zeros(x.shape[:-1], dtype=torch.int64)),
    "entmax_bisect_loss": lambda x: entmax.entmax_bisect_loss(
        x, torch.zeros(x.shape[:-1], dtype=torch.int64), 1.3, n_iter=2
    ),
}


@pytest.mark.parametrize("name", list(BISECTIONS))
def test_bisections_and_losses(name: str) -> None:
    # Small scores give thousands of terms in each sum.
    for shape in ((4099, 8), (3, 40_000)):
        assert_same_bits(BISECTIONS[name], [(1e-2 * random(*shape)).requires_grad_()])
    # PyTorch splits the sum of one long row among threads, and does so in the gradient of a bisection.
    for shape in ((1, 40_000), (100_000,)):
        x = 1e-2 * random(*shape)
        assert_same_bits(BISECTIONS[name], [x.requires_grad_(name.endswith("loss"))])


def test_means_of_losses() -> None:
    loss = entmax.SparsemaxLoss()
    assert_same_bits(lambda x: loss(x, torch.zeros(len(x), dtype=torch.int64)), [random(40_001, 3).requires_grad_()])


@pytest.mark.parametrize("size", [8191, 8193, 100_003])
def test_mixed_op(size: int) -> None:
    xs = [random(size, seed=seed).requires_grad_() for seed in range(5)]
    weights = random(5, seed=5).requires_grad_()
    assert_same_bits(lambda *inputs: automl_ext.mixed_op(inputs[:-1], inputs[-1]), [*xs, weights])
    # Two edges of two operations; the last tensors are the weights of the edges.
    edges = random(2, 2, seed=6).requires_grad_()
    assert_same_bits(lambda a, b, c, d, w: automl_ext.cell_aggregate([[a, b], [c, d]], w), [*xs[:4], edges])


@pytest.mark.parametrize("rows", [1, 2, 3, 85, 1001])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_mlp(rows: int, activation: str) -> None:
    sizes = [(130, 17), (75, 130), (3, 75)]
    weights = [random(2, *size, seed=i).mul(0.1).requires_grad_() for i, size in enumerate(sizes)]
    biases = [random(2, size[0], seed=3).requires_grad_() for size in sizes]

    def mlp(x: Tensor, *parameters: Tensor) -> Tensor:
        return automl_ext.mlp(x, parameters[:3], parameters[3:], activation)

    inputs = [random(rows, 17, seed=4).requires_grad_(), *weights, *biases]
    assert_same_bits(mlp, inputs)
    assert_same_bits(mlp, [x.detach() for x in inputs])


@pytest.mark.parametrize("rows", [1, 3, 401])
def test_gru_cell(rows: int) -> None:
    sizes = [(rows, 30), (rows, 77), (231, 30), (231, 77), (231,), (231,)]
    assert_same_bits(automl_ext.gru_cell, [random(*s, seed=i).requires_grad_() for i, s in enumerate(sizes)])


@pytest.mark.parametrize("shape", [(7, 5003), (129, 321), (40_000, 3)], ids=str)
def test_returns(shape: tuple[int, int]) -> None:
    rewards, values, following, log_rhos = (random(*shape, seed=seed).requires_grad_() for seed in range(4))
    ends, cuts, valid = (flags(*shape, seed=seed) for seed in (4, 5, 6))
    valid = ~valid
    a = automl_ext
    assert_same_bits(lambda r, v, n: a.gae(r, v, n, ends, cuts, 0.9, 0.8, valid=valid), [rewards, values, following])
    assert_same_bits(
        lambda r, n, d: a.lambda_returns(r, n, ends, cuts, 0.9, 0.8, discounts=d, valid=valid),
        [rewards, following, values],
    )
    assert_same_bits(lambda r, n: a.discounted_returns(r, n, ends, cuts, 0.9, valid=valid), [rewards, following])
    assert_same_bits(lambda r, n: a.n_step_returns(r, n, ends, cuts, 0.9, 3, valid=valid), [rewards, following])
    assert_same_bits(
        lambda p, r, v, n: a.vtrace(p, r, v, n, ends, cuts, 0.9, valid=valid), [log_rhos, rewards, values, following]
    )
    assert_same_bits(
        lambda p, q, r, n: a.retrace(p, q, r, n, ends, cuts, 0.9, valid=valid), [log_rhos, values, rewards, following]
    )


@pytest.mark.parametrize("shape", [(4099, 11), (1031, 51)], ids=str)
def test_targets(shape: tuple[int, int]) -> None:
    rewards, q, online = random(shape[0]), random(*shape, seed=1), random(*shape, seed=2)
    ends = flags(shape[0], seed=3)
    assert_same_bits(lambda: automl_ext.td_targets(rewards, q, ends, 0.9, next_q_online=online), [])
    probabilities = q.softmax(-1)
    assert_same_bits(lambda: automl_ext.categorical_projection(probabilities, rewards, ends, 0.9, -3.0, 3.0), [])
