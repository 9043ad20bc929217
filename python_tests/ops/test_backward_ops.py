"""Direct calls of the backward ops: mismatched arguments are refused and never read out of bounds."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from automl_ext import _native

pytestmark = pytest.mark.skipif(not _native.is_loaded(), reason="the native library is missing")
F32, F64 = torch.float32, torch.float64


def call(name: str, grad: torch.Tensor, y: torch.Tensor) -> object:
    op = getattr(torch.ops.automl_ext, name).default
    if name == "_mixed_op_backward":
        return op(grad, [y], torch.ones(1), [0], [True])
    if name == "_bisect_map_backward":
        return op(grad, y, 1.5, None, 0, -1, False)
    return op(grad, y, 0.5, None, -1, False) if "gumbel" in name else op(grad, y, -1)


@pytest.mark.parametrize(
    "name",
    [
        "_entmax15_backward",
        "_sparsemax_backward",
        "_gumbel_softmax_backward",
        "_gumbel_entmax15_backward",
        "_mixed_op_backward",
        "_bisect_map_backward",
    ],
)
def test_a_gradient_of_another_shape_or_dtype_is_refused(name: str) -> None:
    y = torch.ones(1, 8) / 8
    call(name, torch.ones(1, 8), y)
    with pytest.raises(ValueError, match="grad: expected shape"):
        call(name, torch.ones(1, 2), y)
    with pytest.raises(TypeError, match="grad: expected a Float"):
        call(name, torch.ones(1, 8, dtype=F64), y)


@pytest.mark.parametrize("name", ["_gumbel_softmax_backward", "_gumbel_entmax15_backward"])
def test_the_gradient_of_tau_is_computed_only_if_needed(name: str) -> None:
    op, y, tau = getattr(torch.ops.automl_ext, name).default, torch.tensor([[0.25, 0.75]]), torch.tensor(0.5)
    grad = torch.tensor([[1.0, -1.0]])
    (dx, dtau), (other_dx, no_dtau) = (op(grad, y, 1.0, tau, -1, needs) for needs in (True, False))
    assert dtau.shape == ()
    assert dtau != 0
    assert no_dtau.shape == (0,)
    torch.testing.assert_close(dx, other_dx, rtol=0, atol=0)


def test_a_parameter_of_another_shape_or_dtype_or_map_is_refused() -> None:
    x, op = torch.ones(2, 8), torch.ops.automl_ext.bisect_map.default
    with pytest.raises(ValueError, match=r"parameter: expected shape \[2, 1\], got \[8\]"):
        op(x, 0.0, torch.ones(8), 0, -1)
    with pytest.raises(TypeError, match="parameter: expected a Float"):
        op(x, 0.0, torch.ones(2, 1, dtype=F64), 0, -1)
    with pytest.raises(ValueError, match=r"map: expected a value in \[0, 3\], got 4"):
        op(x, 1.5, None, 4, -1)


def test_mixed_op_lists_of_different_lengths_are_refused() -> None:
    op = torch.ops.automl_ext._mixed_op_backward.default
    x = torch.ones(3)
    with pytest.raises(ValueError, match="input_needs"):
        op(x, [x], torch.ones(2), [0, 1], [True, True])
    with pytest.raises(ValueError, match="input_needs"):
        op(x, [x, x], torch.ones(2), [0, 1], [True])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["entmax15", "gumbel_softmax", "gumbel_entmax15"])
def test_half_composites_compute_in_float(name: str, dtype: torch.dtype) -> None:
    """Gradients with create_graph are as accurate as those without."""
    import automl_ext

    x = (2 * torch.randn(200, 40, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    function = getattr(automl_ext, name)
    y = function(x, **({"seed": 1} if "gumbel" in name else {}))
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (fused,) = torch.autograd.grad(y, x, grad, retain_graph=True)
    (composite,) = torch.autograd.grad(y, x, grad, create_graph=True)
    # Two nearly equal floats round to values at most one ulp apart.
    assert ((fused - composite).abs() <= torch.finfo(dtype).eps * fused.abs().clamp_min(1e-3)).all()


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_tangent_of_an_incoming_gradient_is_kept(create_graph: bool) -> None:
    """The forward pass was before the forward-mode level, so the graph is that of the kernel."""
    import automl_ext

    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=F64).requires_grad_()
    y = automl_ext.entmax15(x)
    grad, tangent = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(1), dtype=F64)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(grad, tangent)
        (got,) = torch.autograd.grad(y, x, dual, retain_graph=True, create_graph=create_graph)
        got = forward_ad.unpack_dual(got).tangent
    (expected,) = torch.autograd.grad(y, x, tangent)  # the backward pass is linear
    torch.testing.assert_close(got, expected)
