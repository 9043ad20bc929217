"""gru_cell: equality with torch.nn.GRUCell, gradients, shapes, errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from automl_ext import _native, gru_cell

pytestmark = pytest.mark.usefixtures("each_backend")


def problem(rows: int, inputs: int, n: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    sizes = [(rows, inputs), (rows, n), (3 * n, inputs), (3 * n, n), (3 * n,), (3 * n,)]
    return [torch.randn(size, dtype=dtype).mul(0.3).requires_grad_() for size in sizes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("rows", "inputs", "n"), [(1, 3, 2), (7, 5, 33), (50, 40, 70), (300, 1, 1), (0, 3, 2), (30, 20, 0)]
)
@pytest.mark.parametrize("biases", [True, False])
def test_equals_torch(rows: int, inputs: int, n: int, dtype: torch.dtype, biases: bool) -> None:
    leaves = problem(rows, inputs, n, dtype)[: 6 if biases else 4]
    y, expected = gru_cell(*leaves), torch.gru_cell(*leaves)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(y, expected, **close)
    grad = torch.randn_like(y)
    got, wanted = (torch.autograd.grad(z, leaves, grad) for z in (y, expected))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=10 * close["atol"])


def test_is_the_cell_of_torch_with_its_parameters() -> None:
    cell = nn.GRUCell(5, 8)
    x, h = torch.randn(4, 5), torch.randn(4, 8)
    parameters = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    torch.testing.assert_close(gru_cell(x, h, *parameters), cell(x, h), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gru_cell(x[0], h[0], *parameters), cell(x[0], h[0]), rtol=1e-5, atol=1e-6)
    batch = gru_cell(x.view(2, 2, 5), h.view(2, 2, 8), *parameters)
    torch.testing.assert_close(batch, cell(x, h).view(2, 2, 8), rtol=1e-5, atol=1e-6)


def test_layouts_and_a_part_of_the_gradients() -> None:
    x, h, w_ih, w_hh, b_ih, b_hh = problem(6, 5, 7)
    tensors = (x, h, w_ih, w_hh, b_ih, b_hh)
    y = gru_cell(*tensors)
    turned = [z.detach().t().contiguous().t() if z.ndim == 2 else torch.stack([z, z], 1)[:, 0] for z in tensors]
    torch.testing.assert_close(gru_cell(*turned), y)
    padded = [torch.cat([z, z], 1)[:, : z.shape[1]] if z.ndim == 2 else z for z in tensors]
    torch.testing.assert_close(gru_cell(*padded), y)
    expected = torch.autograd.grad(y.sin().sum(), tensors)
    for wanted in range(6):
        given = [z.detach().requires_grad_(i == wanted) for i, z in enumerate(tensors)]
        (got,) = torch.autograd.grad(gru_cell(*given).sin().sum(), given[wanted])
        torch.testing.assert_close(got, expected[wanted])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])  # a kernel, and torch's ops
def test_errors_name_the_argument(dtype: torch.dtype) -> None:
    x, h, w_ih, w_hh, b_ih, b_hh = (y.to(dtype) for y in problem(6, 5, 7))
    cases: list[tuple[type[Exception], str, tuple]] = [
        (ValueError, r"h: expected shape \[6, n\], got \(5, 7\)", (x, h[:5], w_ih, w_hh)),
        (ValueError, r"h: expected shape \[2, 3, n\], got \(3, 2, 7\)", (x.view(2, 3, 5), h.view(3, 2, 7), w_ih, w_hh)),
        (ValueError, r"w_ih: expected shape \(21, 5\), got \(21, 7\)", (x, h, w_hh, w_hh)),
        (ValueError, r"w_hh: expected shape \(21, 7\), got \(21, 5\)", (x, h, w_ih, w_ih)),
        (ValueError, r"b_hh: expected both biases or neither", (x, h, w_ih, w_hh, b_ih)),
        (ValueError, r"b_hh: expected shape \(21,\), got \(3,\)", (x, h, w_ih, w_hh, b_ih, b_hh[:3])),
        (ValueError, r"b_ih: expected shape \(21,\), got \(1,\)", (x, h, w_ih, w_hh, b_ih[:1], b_hh)),
        (TypeError, rf"h: expected {dtype} as x, got torch.float32", (x, h.float(), w_ih, w_hh)),
        (TypeError, r"w_ih: expected a float64, .*, got NoneType None", (x, h, None, w_hh)),
    ]
    for kind, message, arguments in cases:
        with pytest.raises(kind, match="^gru_cell: " + message):
            gru_cell(*arguments)


@pytest.mark.skipif(not _native.is_loaded(), reason="the native library is not built")
def test_backward_op_checks_its_arguments() -> None:
    tensors = [z.detach() for z in problem(6, 5, 7)]
    op = torch.ops.automl_ext._gru_cell_backward.default
    y, kept = torch.ops.automl_ext._gru_cell_trained.default(*tensors)
    op(y, *tensors[:4], kept, True, True, True)
    with pytest.raises(ValueError, match="grad: expected shape"):
        op(y[:2], *tensors[:4], kept, True, True, True)
    with pytest.raises(ValueError, match="kept: expected shape"):
        op(y, *tensors[:4], kept[:2], True, True, True)
