"""mlp and FusedMLP: equality with nn.Sequential, gradients, stacks, layouts, errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from automl_ext import FusedMLP, _native, mlp
from automl_ext.ops.networks import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("each_backend")
every_activation = pytest.mark.parametrize("activation", list(ACTIVATIONS))
F64 = torch.float64


def sequential(inputs: int, hidden: list[int], outputs: int, activation: str = "tanh") -> nn.Sequential:
    modules: list[nn.Module] = []
    for before, after in pairwise([inputs, *hidden, outputs]):
        modules += [nn.Linear(before, after), ACTIVATIONS[activation][1]()]
    return nn.Sequential(*modules[:-1])


def parameters(*sizes: int, networks: tuple[int, ...] = (), dtype: torch.dtype = F64) -> tuple[list, list]:
    torch.manual_seed(0)
    weights = [torch.randn(*networks, o, i, dtype=dtype) / max(i, 1) ** 0.5 for i, o in pairwise(sizes)]
    return weights, [torch.randn(*networks, o, dtype=dtype) for o in sizes[1:]]


# ---- FusedMLP


@every_activation
def test_fused_mlp_is_the_sequential_that_it_replaces(activation: str) -> None:
    torch.manual_seed(3)
    expected, after = sequential(5, [8, 7], 3, activation), torch.rand(1)
    torch.manual_seed(3)
    fused = FusedMLP(5, [8, 7], 3, activation)
    assert torch.equal(torch.rand(1), after)
    assert list(fused.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    for (name, x), (other, y) in zip(fused.state_dict().items(), expected.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(x, y)
    fused.load_state_dict(expected.state_dict())
    expected.load_state_dict(fused.state_dict())
    x = torch.randn(4, 2, 5)
    torch.testing.assert_close(fused(x), expected(x), rtol=1e-5, atol=1e-6)
    fused(x).square().sum().backward()
    expected(x).square().sum().backward()
    for p, q in zip(fused.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)
    assert torch.equal(copy.deepcopy(fused)(x), fused(x))


def test_fused_mlp_without_hidden_layers_and_in_other_dtypes() -> None:
    linear = FusedMLP(4, [], 2)
    assert list(linear.state_dict()) == ["0.weight", "0.bias"]
    x = torch.randn(3, 4)
    torch.testing.assert_close(linear(x), linear[0](x))
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        network = FusedMLP(4, (6,), 2, "elu").to(dtype)
        expected = network[2](network[1](network[0](x.to(dtype))))
        torch.testing.assert_close(network(x.to(dtype)), expected)


def test_functional_call_of_fused_mlp_uses_the_given_parameters() -> None:
    network = FusedMLP(4, [6], 2)
    zeros = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    assert (torch.func.functional_call(network, zeros, torch.randn(3, 4)) == 0).all()


def test_no_change_of_the_layers_is_ignored() -> None:
    network, x = FusedMLP(4, [6], 2), torch.randn(3, 4)
    assert type(network[:-1]) is nn.Sequential
    torch.testing.assert_close(network[:-1](x), torch.tanh(network[0](x)))
    torch.testing.assert_close((network + nn.Sequential(nn.Softmax(-1)))(x), network(x).softmax(-1))
    network[2] = nn.Linear(6, 5)
    assert network(x).shape == (3, 5)
    with pytest.raises(TypeError, match=r"FusedMLP: module 1: expected another Tanh\(\), got ReLU"):
        network[1] = nn.ReLU()
    with pytest.raises(TypeError, match="FusedMLP: module 0: expected another Linear with a bias, got Linear"):
        network[0] = nn.Linear(4, 6, bias=False)
    with pytest.raises(TypeError, match=r"FusedMLP: module 1: expected another ELU\(alpha=1.0\), got ELU\(alpha=2.0\)"):
        FusedMLP(4, [6], 2, "elu")[1] = nn.ELU(2.0)
    with pytest.raises(TypeError, match=r"FusedMLP: module 1: expected another Tanh\(\), got ReLU"):
        setattr(network, "1", nn.ReLU())  # as loops over named_children() do
    replica = nn.Linear(4, 6)
    del replica.bias  # nn.parallel.replicate sets it later
    setattr(FusedMLP(4, [6], 2), "0", replica)
    parametrized = FusedMLP(4, [6], 2)
    nn.utils.parametrizations.weight_norm(parametrized[0])
    with pytest.raises(TypeError, match="FusedMLP: a layer's weight is computed, not a parameter"):
        parametrized(x)
    changes: list[Callable[[], Any]] = [
        lambda: network.append(nn.Softmax(-1)),
        lambda: network.insert(0, nn.Linear(4, 4)),
        lambda: network.extend([nn.ReLU()]),
        lambda: network.pop(2),
        lambda: network.__delitem__(2),
        lambda: network.add_module("softmax", nn.Softmax(-1)),
        lambda: setattr(network, "softmax", nn.Softmax(-1)),
    ]
    for change in changes:
        with pytest.raises(TypeError, match=r"FusedMLP: its modules are fixed; change nn.Sequential\(\*network\)"):
            change()
    assert len(network) == 3


def test_hooks_of_the_layers_run() -> None:
    network, x = FusedMLP(4, [6], 2), torch.randn(3, 4, requires_grad=True)
    expected, seen = network(x), []
    handles = [network[1].register_forward_hook(lambda *args: seen.append("forward"))]
    handles.append(network[0].register_forward_pre_hook(lambda *args: seen.append("before")))
    handles.append(network[2].register_full_backward_hook(lambda *args: seen.append("backward")))
    y = network(x)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert seen == ["before", "forward", "backward"]
    for handle in handles:
        handle.remove()
    network(x).sum().backward()
    assert len(seen) == 3


@every_activation
def test_from_sequential_shares_the_modules(activation: str) -> None:
    network = sequential(5, [8, 7], 3, activation).eval()
    x, state = torch.randn(4, 5), torch.get_rng_state()
    fused = FusedMLP.from_sequential(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert (fused.activation, fused.training, fused[0]) == (activation, False, network[0])
    torch.testing.assert_close(fused(x), network(x), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        network[0].weight.zero_()
    torch.testing.assert_close(fused(x), network(x), rtol=1e-5, atol=1e-6)
    assert FusedMLP.from_sequential(network[:1])(x).shape == (4, 8)
    inplace = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    assert FusedMLP.from_sequential(inplace).activation == "relu"


def test_from_sequential_refuses_what_it_cannot_compute() -> None:
    linear = nn.Linear
    cases: list[tuple[list[nn.Module], type[Exception], str]] = [
        ([], TypeError, r"network\[0\]: expected a Linear with a bias, got the end"),
        ([linear(4, 6, bias=False)], TypeError, r"network\[0\]: expected a Linear with a bias, got Linear"),
        ([linear(4, 6), nn.Tanh()], TypeError, r"network\[2\]: expected a Linear with a bias, got the end"),
        ([linear(4, 6), nn.Sigmoid(), linear(6, 2)], TypeError, r"network\[1\]: expected Tanh\(\) or .*got Sigmoid"),
        ([linear(4, 6), nn.ELU(2.0), linear(6, 2)], TypeError, r"network\[1\]: expected .*got ELU\(alpha=2.0\)"),
        ([linear(4, 6), nn.Tanh(), linear(6, 6), nn.ReLU(), linear(6, 2)], TypeError, r"\[3\]: expected Tanh\(\), got"),
        ([linear(4, 6), nn.Tanh(), linear(5, 2)], ValueError, r"network\[2\]: expected 6 inputs, got Linear"),
    ]
    for modules, error, text in cases:
        with pytest.raises(error, match=f"FusedMLP: .*{text}"):
            FusedMLP.from_sequential(nn.Sequential(*modules))
    with pytest.raises(TypeError, match=r"FusedMLP: network: expected an nn\.Sequential, got Linear"):
        FusedMLP.from_sequential(linear(4, 2))  # type: ignore[arg-type]


def test_fused_mlp_errors() -> None:
    with pytest.raises(ValueError, match=r"FusedMLP: hidden\[1\]: expected at least 1, got 0"):
        FusedMLP(4, [3, 0], 2)
    with pytest.raises(TypeError, match="FusedMLP: hidden: expected a sequence of ints, got int 3"):
        FusedMLP(4, 3, 2)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="FusedMLP: activation: expected one of tanh, relu, elu, gelu, silu, got 'sin'"
    ):
        FusedMLP(4, [3], 2, "sin")
    with pytest.raises(TypeError, match="FusedMLP: activation: expected a str, got list"):
        FusedMLP(4, [3], 2, ["tanh"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mlp: weights\[0\]: expected shape \[outputs, 3\], got \(2, 4\)"):
        FusedMLP(4, [], 2)(torch.ones(5, 3))


# ---- values


@every_activation
@pytest.mark.parametrize("sizes", [(4, 64, 64, 2), (17, 33, 129, 6), (300, 40, 1), (1, 1), (3, 520, 2)], ids=str)
def test_float32_against_float64(activation: str, sizes: tuple[int, ...]) -> None:
    """The error is at most 1e-6 of the largest value, and 3e-6 for gradients, as the documentation says."""
    weights, biases = parameters(*sizes)
    n = len(weights)
    for rows in (1, 2, 3, 12, 13, 64, 85, 170):
        x = torch.randn(rows, sizes[0], dtype=F64)
        results = {}
        for dtype in (F64, torch.float32):
            leaves = [y.to(torch.float32).to(dtype).requires_grad_() for y in (x, *weights, *biases)]
            y = mlp(leaves[0], leaves[1 : 1 + n], leaves[1 + n :], activation)
            grad = torch.linspace(-1, 2, y.numel(), dtype=dtype).view(y.shape)
            results[dtype] = [y.detach(), *torch.autograd.grad(y, leaves, grad)]
        for i, (exact, got) in enumerate(zip(results[F64], results[torch.float32], strict=True)):
            error = (got.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30)
            assert error < (3e-6 if i else 1e-6), (rows, i, error)


@every_activation
def test_activations_over_their_whole_range(activation: str) -> None:
    x = torch.cat([torch.linspace(-120, 120, 20001, dtype=F64), torch.logspace(-30, 0, 1000, dtype=F64)])
    x = torch.cat([x, -x]).float()
    one = torch.ones(1, 1)
    for dtype, tolerance in ((torch.float32, 6e-7), (F64, 2e-15)):
        leaf = x.to(dtype).requires_grad_()
        y = mlp(leaf.unsqueeze(1), [one.to(dtype)], None, activation, activate_last=True).squeeze(1)
        (slope,) = torch.autograd.grad(y.sum(), leaf)
        exact_leaf = x.double().requires_grad_()
        exact = ACTIVATIONS[activation][0](exact_leaf)
        (exact_slope,) = torch.autograd.grad(exact.sum(), exact_leaf)
        relative = exact.abs() if activation in ("tanh", "relu", "elu") else x.double().abs()
        assert ((y - exact).abs() <= tolerance * relative.clamp_min(1e-35)).all()
        assert ((slope - exact_slope).abs() <= 4 * tolerance).all()


def test_special_values() -> None:
    one = [torch.ones(1, 1)]
    x = torch.tensor([torch.nan, torch.inf, -torch.inf]).unsqueeze(1)
    for activation, (function, _) in ACTIVATIONS.items():
        if activation not in ("gelu", "silu"):  # −∞ · 0
            y = mlp(x, one, None, activation, activate_last=True)
            torch.testing.assert_close(y, function(x), equal_nan=True)
        for dtype in (torch.float32, F64):
            huge = torch.tensor([[0.5], [-0.9]], dtype=dtype).mul_(torch.finfo(dtype).max).requires_grad_()
            y = mlp(huge, [torch.ones(1, 1, dtype=dtype)], None, activation, activate_last=True)
            torch.testing.assert_close(y, function(huge))
            torch.testing.assert_close(
                torch.autograd.grad(y.sum(), huge)[0],
                torch.tensor([[1.0], [0]], dtype=dtype) if activation != "tanh" else torch.zeros(2, 1, dtype=dtype),
            )
        assert mlp(x[:1], one, None, activation, activate_last=True).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_layouts_and_empty_batches(dtype: torch.dtype) -> None:
    weights, biases = parameters(6, 9, 4, dtype=dtype)
    x = torch.randn(5, 3, 6, dtype=dtype)
    y = mlp(x, weights, biases)
    transposed = [w.t().contiguous().t() for w in weights]
    sliced = [torch.stack([w, w], -1)[..., 0] for w in weights]
    padded = [torch.cat([w, w], -1)[:, : w.shape[1]] for w in weights]
    for other in (transposed, sliced, padded):
        torch.testing.assert_close(mlp(x, other, [torch.stack([b, b], 1)[:, 0] for b in biases]), y)
    for z in (x.transpose(0, 1).contiguous().transpose(0, 1), torch.cat([x, x], -1)[..., :6], x.repeat(2, 1, 1)[:5]):
        torch.testing.assert_close(mlp(z, weights, biases), y)
    torch.testing.assert_close(mlp(x[0, 0].expand(7, 6), weights, biases), y[0, 0].expand(7, 4))
    torch.testing.assert_close(mlp(x[0, 0], weights, biases), y[0, 0])
    torch.testing.assert_close(mlp(x, weights), mlp(x, weights, [torch.zeros_like(b) for b in biases]))
    leaves = [z.requires_grad_() for z in (torch.zeros(0, 3, 6, dtype=dtype), *weights, *biases)]
    empty = mlp(leaves[0], leaves[1:3], leaves[3:])
    assert empty.shape == (0, 3, 4)
    grads = torch.autograd.grad(empty.sum(), leaves)
    assert [g.shape for g in grads] == [z.shape for z in leaves]
    assert all((g == 0).all() for g in grads)


def test_gradients_of_a_part_of_the_inputs() -> None:
    weights, biases = parameters(6, 9, 4)
    x = torch.randn(20, 6, dtype=F64)
    leaves = [x.requires_grad_(), *(y.requires_grad_() for y in (*weights, *biases))]
    expected = torch.autograd.grad(mlp(x, weights, biases).sin().sum(), leaves)
    for wanted in range(len(leaves)):
        given = [y.detach().requires_grad_(i == wanted) for i, y in enumerate(leaves)]
        loss = mlp(given[0], given[1:3], given[3:]).sin().sum()
        torch.testing.assert_close(torch.autograd.grad(loss, given[wanted])[0], expected[wanted])


@every_activation
@pytest.mark.parametrize("activate_last", [False, True])
@pytest.mark.parametrize("stacked_x", [False, True])
def test_stacks_equal_single_networks(activation: str, activate_last: bool, stacked_x: bool) -> None:
    weights, biases = parameters(6, 9, 9, 4, networks=(3,))
    x = torch.randn(3, 2, 7, 6, dtype=F64) if stacked_x else torch.randn(2, 7, 6, dtype=F64)
    leaves = [y.requires_grad_() for y in (x, *weights, *biases)]
    y = mlp(x, weights, biases, activation, activate_last=activate_last, stacked_x=stacked_x)
    each = []
    for e in range(3):
        own = ([w[e] for w in weights], [b[e] for b in biases])
        each.append(mlp(x[e] if stacked_x else x, *own, activation, activate_last=activate_last))
    torch.testing.assert_close(y, torch.stack(each))
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(torch.stack(each), leaves, grad)
    torch.testing.assert_close(torch.autograd.grad(y, leaves, grad), expected)


def test_rows_of_a_stack_may_lie_apart() -> None:
    weights, biases = parameters(6, 9, 4, networks=(3,))
    x = torch.randn(3, 7, 12, dtype=F64)
    for apart in (x[..., :6], x[..., 6:].transpose(0, 1).contiguous().transpose(0, 1), x[:, :1, :6].expand(3, 7, 6)):
        y = mlp(apart, weights, biases, stacked_x=True)
        torch.testing.assert_close(y, mlp(apart.contiguous(), weights, biases, stacked_x=True))


def test_no_networks_have_no_gradient() -> None:
    x = torch.randn(2, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(mlp(x, [torch.randn(0, 4, 5, requires_grad=True)]).sum(), x)
    assert torch.equal(grad, torch.zeros(2, 5))


def test_gradients_of_parameters_may_be_changed_in_place() -> None:
    """Autograd takes the gradients over without a copy, so they must not share memory."""
    network = FusedMLP(4, [8], 2)
    network(torch.randn(30, 4)).sum().backward()
    before = [p.grad.clone() for p in network.parameters()]
    for i, p in enumerate(network.parameters()):
        p.grad.fill_(i)
        for other, value in list(zip(network.parameters(), before, strict=True))[i + 1 :]:
            assert torch.equal(other.grad, value)


# ---- errors and devices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # a kernel, and torch's ops
def test_errors_name_the_argument(dtype: torch.dtype) -> None:
    weights, biases = parameters(3, 5, 2, dtype=dtype)
    stack, _ = parameters(3, 5, networks=(2,), dtype=dtype)
    x = torch.ones(4, 3, dtype=dtype)
    cases: list[tuple[type[Exception], str, tuple, dict]] = [
        (ValueError, r"weights: expected at least one layer, got none", (x, []), {}),
        (ValueError, r"weights\[0\]: expected shape \[outputs, 4\], got \(5, 3\)", (x.new_ones(2, 4), weights), {}),
        (ValueError, r"weights\[1\]: expected shape \[outputs, 5\], got \(5, 3\)", (x, [weights[0]] * 2), {}),
        (ValueError, r"weights\[0\]: expected shape \[outputs, inputs\] or", (x, [weights[0][0]]), {}),
        (ValueError, r"biases\[1\]: expected shape \(2,\), got \(5,\)", (x, weights, [biases[0]] * 2), {}),
        (ValueError, r"biases\[1\]: expected shape \(2,\), got \(1,\)", (x, weights, [biases[0], biases[1][:1]]), {}),
        (ValueError, r"biases: expected as many as weights \(2\), got 1", (x, weights, biases[:1]), {}),
        (TypeError, rf"weights\[1\]: expected {dtype} as x", (x, [weights[0], weights[1].double()]), {}),
        (TypeError, r"weights: expected a sequence of tensors, got b?float\d+ tensor", (x, weights[0]), {}),
        (TypeError, r"biases\[0\]: expected a float64, .* got NoneType None", (x, weights, [None, None]), {}),
        (TypeError, r"x: expected a float64, .* got int64 tensor", (x.long(), weights), {}),
        (ValueError, r"x: expected shape \[..., inputs\]", (x.new_ones(()), weights), {}),
        (ValueError, r"activation: expected one of tanh, .*, got 'sin'", (x, weights, None, "sin"), {}),
        (ValueError, r"stacked_x: expected x of shape", (x, weights), {"stacked_x": True}),
        (ValueError, r"stacked_x: expected x of shape", (x[:1, None], stack), {"stacked_x": True}),
        (TypeError, r"activate_last: expected a bool, got int 1", (x, weights), {"activate_last": 1}),
    ]
    for kind, message, arguments, named in cases:
        with pytest.raises(kind, match="^mlp: " + message):
            mlp(*arguments, **named)


def test_meta_tensors() -> None:
    network = FusedMLP(4, [8], 2).to("meta")
    y = network(torch.ones(3, 4, device="meta"))
    assert y.shape == (3, 2)
    y.sum().backward()
    assert network[0].weight.grad.shape == (8, 4)


@pytest.mark.skipif(not _native.is_loaded(), reason="the native library is not built")
def test_backward_op_checks_its_arguments() -> None:
    weights, _ = parameters(3, 5, 2, dtype=torch.float32)
    x, op = torch.ones(4, 3), torch.ops.automl_ext._mlp_backward.default
    y, kept = torch.ops.automl_ext._mlp_trained.default(x, weights, [], 0, False, False)
    flags = (None, 0, False, False, True, True, True)
    op(y, x, weights, kept, *flags)
    with pytest.raises(ValueError, match="grad: expected shape"):
        op(y[:2], x, weights, kept, *flags)
    with pytest.raises(ValueError, match="kept: expected shape"):
        op(y, x, weights, kept[1:], *flags)
    with pytest.raises(TypeError, match="grad: expected Float"):
        op(y.double(), x, weights, kept, *flags)
    with pytest.raises(ValueError, match="y: expected the result"):
        op(y, x, weights, kept, None, 0, True, False, True, True, True)


@pytest.mark.skipif(not _native.is_loaded(), reason="the native library is not built")
def test_other_dtypes_and_devices_are_composites_of_torch_ops() -> None:
    """Such calls have PyTorch's own gradients, and torch.compile sees its ops: no kernel of ours may be needed."""
    weights, biases = parameters(3, 5, 2, dtype=torch.bfloat16)
    x = torch.ones(4, 3, dtype=torch.bfloat16, requires_grad=True)
    assert "Mlp" not in mlp(x, weights, biases).grad_fn.name()
    on_meta = [[y.to("meta") for y in ys] for ys in (weights, biases)]
    assert "Mlp" not in mlp(x.to("meta"), *on_meta).grad_fn.name()


def test_vmap_over_parameters_is_an_ensemble() -> None:
    weights, biases = parameters(3, 5, 2, networks=(4,))
    x = torch.randn(6, 3, dtype=F64)
    together: Tensor = torch.func.vmap(lambda w0, w1, b0, b1: mlp(x, [w0, w1], [b0, b1]))(*weights, *biases)
    torch.testing.assert_close(together, mlp(x, weights, biases))
