"""Dense layers and GRU gates, compiled and in PyTorch, compared with autograd in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import automl_ext
from automl_ext._native import is_loaded
from automl_ext.rl.dreamer.fused import layers

BACKENDS = [
    "reference",
    pytest.param("auto", marks=pytest.mark.skipif(not is_loaded(), reason="the compiled library is missing")),
]
# Tiles of the product have 1 to 6 rows and 4 to 64 columns; these shapes include partial tiles.
SHAPES = [(1, 1, 1), (2, 3, 5), (6, 17, 16), (7, 30, 33), (13, 64, 64), (31, 5, 79), (50, 128, 158), (600, 70, 90)]


def close(actual: Tensor, expected: Tensor, inner: int) -> None:
    """Assert equality within the rounding of float32 sums of ``inner`` terms of about 1."""
    torch.testing.assert_close(actual.double(), expected.double(), rtol=1e-5, atol=4e-7 * inner)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense(backend: str, shape: tuple[int, int, int]) -> None:
    """Inputs include column slices of a larger tensor, as states are slices of features."""
    torch.manual_seed(0)
    rows, inner, columns = shape
    x, weight, bias = torch.randn(rows, inner + 3)[:, 2:-1], torch.randn(columns, inner), torch.randn(columns)
    add = torch.randn(rows, columns + 1)[:, 1:]
    product = x.double() @ weight.double().t()
    with automl_ext.backend(backend):
        close(layers.dense(x, weight), product, inner)
        close(layers.dense(x, weight, bias), product + bias, inner)
        expected = nn.functional.elu(product + bias + add)
        close(layers.dense(x, weight, bias, add, elu=True), expected, inner)
        column_major = weight.t().contiguous().t()
        assert torch.equal(layers.dense(x, column_major, bias), layers.dense(x, weight, bias)) or backend == "reference"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_backward(backend: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    rows, inner, columns = shape
    gradient, weight = torch.randn(rows, inner + 1)[:, 1:], torch.randn(inner, columns)
    z, add = torch.randn(rows, columns, dtype=torch.float64, requires_grad=True), torch.randn(rows, columns)
    y = nn.functional.elu(z)
    grad_y = gradient.double() @ weight.double() + add
    (grad_z,) = torch.autograd.grad(y, z, grad_y)
    with automl_ext.backend(backend):
        close(layers.dense_backward(gradient, weight), grad_y - add, inner)
        close(layers.dense_backward(gradient, weight, add=add), grad_y, inner)
        close(layers.dense_backward(gradient, weight, y.detach().float(), add), grad_z, inner)
        x = torch.randn(rows, columns)
        close(layers.weight_gradient(gradient, x), gradient.double().t() @ x.double(), rows)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rows", "n"), [(1, 1), (5, 7), (16, 64), (300, 130)])
def test_gru_gates(backend: str, rows: int, n: int) -> None:
    """Against torch.nn.GRUCell."""
    torch.manual_seed(0)
    cell = nn.GRUCell(n, n).double()
    x, state = (torch.randn(rows, n, dtype=torch.float64, requires_grad=True) for _ in range(2))
    from_input = nn.functional.linear(x, cell.weight_ih, cell.bias_ih)
    from_state = nn.functional.linear(state, cell.weight_hh, cell.bias_hh)
    from_input.retain_grad()
    from_state.retain_grad()
    expected = cell(x, state)
    gradient = torch.randn(rows, n)
    reset, update = (from_input + from_state)[:, : 2 * n].sigmoid().chunk(2, 1)
    candidate = (from_input[:, 2 * n :] + reset * from_state[:, 2 * n :]).tanh()
    next_state = (1 - update) * candidate + update * state
    torch.testing.assert_close(next_state, expected)
    next_state.backward(gradient.double())
    assert from_input.grad is not None
    assert from_state.grad is not None
    out = torch.empty(rows, n + 2)[:, :n]
    with automl_ext.backend(backend):
        overwritten = from_state.detach().float()
        gates, candidate = layers.gru_gates(from_input.detach().float(), overwritten, state.detach().float(), out)
        close(out, next_state.detach(), 1)
        grad_products, grad_state = layers.gru_gates_backward(gradient, gates, candidate, state.detach().float())
    close(grad_products[:, n:], from_input.grad, 4)
    close(torch.cat([grad_products[:, n : 3 * n], grad_products[:, :n]], 1), from_state.grad, 4)
    close(grad_state, gradient * update.detach(), 4)


@pytest.mark.skipif(not is_loaded(), reason="the compiled library is missing")
def test_extreme_and_nonfinite_inputs() -> None:
    x = torch.cat([torch.linspace(-110, 110, 1001), torch.tensor([-1e-4, 0, -torch.inf, torch.inf, torch.nan])])
    one = torch.ones(1, 1)
    y = layers.dense(x.unsqueeze(1), one, elu=True).squeeze(1)
    torch.testing.assert_close(y, nn.functional.elu(x), rtol=1e-6, atol=2e-7, equal_nan=True)
    from_input = torch.cat([x, x, x]).unsqueeze(0)
    zeros, out = torch.zeros(1, 3 * len(x)), torch.empty(1, len(x))
    gates, candidate = layers.gru_gates(from_input, zeros, torch.zeros(1, len(x)), out)
    tolerance = {"rtol": 1e-6, "atol": 2e-7, "equal_nan": True}
    torch.testing.assert_close(gates[0, : len(x)], x.sigmoid(), **tolerance)
    torch.testing.assert_close(candidate[0], x.tanh(), **tolerance)


@pytest.mark.skipif(not is_loaded(), reason="the compiled library is missing")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    x, weight, before = torch.randn(700, 90), torch.randn(130, 90), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(layers.dense(x, weight, elu=True))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.skipif(not is_loaded(), reason="the compiled library is missing")
def test_empty_tensors() -> None:
    assert layers.dense(torch.ones(0, 3), torch.ones(2, 3)).shape == (0, 2)
    assert torch.equal(layers.dense(torch.ones(2, 0), torch.ones(3, 0), torch.ones(3)), torch.ones(2, 3))
    assert torch.equal(layers.weight_gradient(torch.ones(0, 2), torch.ones(0, 3)), torch.zeros(2, 3))


@pytest.mark.skipif(not is_loaded(), reason="the compiled library is missing")
def test_bad_input_is_refused() -> None:
    x, weight = torch.ones(4, 3), torch.ones(5, 3)
    with pytest.raises(ValueError, match=r"dense_product: b: expected shape \[3, n\], got \[2, 5\]"):
        layers.dense(x, weight[:, :2])
    with pytest.raises(TypeError, match="b: expected a float32 tensor on the CPU, got Double"):
        layers.dense(x, weight.double())
    with pytest.raises(ValueError, match=r"bias: expected 5 contiguous numbers, got shape \[4\]"):
        layers.dense(x, weight, torch.ones(4))
    with pytest.raises(ValueError, match=r"add: expected shape \[4, 5\], got \[3, 5\]"):
        layers.dense(x, weight, None, torch.ones(3, 5))
    with pytest.raises(ValueError, match=r"add: expected contiguous rows, got strides \[1, 4\]"):
        layers.dense(x, weight, None, torch.ones(5, 4).t())
    state = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"gru_gates: hidden_gates: expected shape \[4, 6\], got \[4, 5\]"):
        layers.gru_gates(torch.ones(4, 6), torch.ones(4, 5), state, state)
    with pytest.raises(ValueError, match=r"gru_gates_backward: gates: expected shape \[4, 6\], got \[4, 4\]"):
        layers.gru_gates_backward(state, torch.ones(4, 4), state, state)
