"""Gradients that are written out, against those of autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from automl_ext.rl.dreamer.fused import MLP, ScalarOf, elu_, gru, linear_elu


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_elu() -> None:
    x = torch.cat([torch.linspace(-30, 30, 1001), torch.tensor([-1e-4, 0, -torch.inf, 90])])
    torch.testing.assert_close(elu_(x.clone()), nn.functional.elu(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [False, True])
def test_linear_elu(rows: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = double(5, 3), double(4, 3), double(*((5, 4) if rows else (4,)))
    torch.testing.assert_close(linear_elu(x, weight, bias), nn.functional.elu(x @ weight.t() + bias))
    assert torch.autograd.gradcheck(linear_elu, (x, weight, bias))
    frozen = weight.detach(), bias.detach()
    assert torch.autograd.gradcheck(lambda x: linear_elu(x, *frozen), (x,))


def test_gru() -> None:
    torch.manual_seed(0)
    cell, x, state = nn.GRUCell(3, 4).double(), double(5, 3), double(5, 4)
    inputs = x, state, *cell.parameters()
    own, expected = gru(cell, x, state), cell(x, state)
    torch.testing.assert_close(own, expected)
    torch.testing.assert_close(
        torch.autograd.grad(own.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs)
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_a_scalar_of_rows(layers: int) -> None:
    torch.manual_seed(0)
    head, x, factors = MLP(3, 5, layers, 1).double(), double(7, 3), torch.randn(7, dtype=torch.float64)
    parameters = list(head.parameters())
    expected = head(x).squeeze(-1)
    wanted = torch.autograd.grad(expected, (x, *parameters), factors)
    own = ScalarOf(head, x)
    torch.testing.assert_close(own.values, expected)
    torch.testing.assert_close(torch.autograd.grad(own.values, x, factors)[0], wanted[0])
    assert all(p.grad is None for p in parameters)  # not by autograd
    for p in parameters:
        p.grad = torch.ones_like(p)
    own.backward(factors)
    torch.testing.assert_close([p.grad - 1 for p in parameters], list(wanted[1:]))
