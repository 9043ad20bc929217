"""Gradients in Python, for a version of torch that no autograd library was built for."""

from __future__ import annotations

import pathlib
import shutil

import fresh_python
import pytest

from automl_ext import _native

pytestmark = pytest.mark.skipif(not _native.is_loaded(), reason="the native library is not built")

CODE = """
import json, torch, automl_ext
from automl_ext import _native, ops
from automl_ext.ops import entmax
assert _native.is_loaded()
assert _native.autograd is None
torch.manual_seed(0)
wide = torch.float64

def as_tensors(x):
    return x if isinstance(x, tuple) else (x,)

def second(op, inputs):
    outputs = [y for y in as_tensors(op(*inputs)) if y.requires_grad]
    weights = [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape) for y in outputs]
    total = sum((y * w).sum() for y, w in zip(outputs, weights))
    kernels = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)  # other code than for a graph
    outputs += [x for x in kernels if x is not None]
    first = torch.autograd.grad(total, inputs, create_graph=True)
    of_first = sum((g**2).sum() for g in first)
    if not of_first.requires_grad:
        return [*outputs, *first]
    of_inputs = torch.autograd.grad(of_first, inputs, allow_unused=True)
    return [*outputs, *first, *(x for x in of_inputs if x is not None)]

def error(op, inputs):
    ours = second(op, inputs)
    with automl_ext.backend("reference"):
        expected = second(op, inputs)
    assert len(ours) == len(expected)
    return max(float(((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).detach()) for a, b in zip(ours, expected))

def old(log_probs, values):
    return {"old_log_probs": log_probs.detach() + 0.1, "old_values": values.detach() - 0.5}

def leaves(*shapes):
    return [torch.randn(shape, dtype=wide, requires_grad=True) for shape in shapes]

ends = torch.rand(6, 3) < 0.2
cut, valid = torch.rand(6, 3) < 0.2, torch.rand(6, 3) < 0.9
tau = torch.tensor(0.7, dtype=wide, requires_grad=True)
x, w = leaves((3, 5), (3,))
flat = leaves((6, 3), (6, 3), (6, 3))
discounts = torch.rand(6, 3, dtype=wide, requires_grad=True)
net = leaves((4, 5), (6, 5), (2, 6), (6,), (2,))
cell = leaves((4, 5), (4, 3), (9, 5), (9, 3), (9,), (9,))
actions = torch.tensor([0, 4, 2])
cases = {
    "entmax15": (lambda x: ops.entmax15(x, dim=0), [x]),
    "sparsemax": (ops.sparsemax, [x]),
    "entmax_bisect": (lambda x, t: entmax.entmax_bisect(x, t, 0), [x, tau]),
    "normmax_bisect": (lambda x, t: entmax.normmax_bisect(x, 1 + t), [x, tau]),
    "gumbel_softmax": (lambda x, t: ops.gumbel_softmax(x, t, seed=1), [x, tau]),
    "gumbel_softmax hard": (lambda x: ops.gumbel_softmax(x, 0.7, hard=True, seed=1), [x]),
    "gumbel_entmax15": (lambda x, t: ops.gumbel_entmax15(x, t, seed=1), [x, tau]),
    "mixed_op": (lambda a, b, w: ops.mixed_op([a, b, a + b], w), [*leaves((3, 5), (3, 5)), w]),
    "gae": (lambda r, v, n: ops.gae(r, v, n, ends, cut, 0.9, 0.8, valid=valid), flat),
    "lambda_returns": (
        lambda r, n, d: ops.lambda_returns(r, n, ends, cut, 0.9, 0.8, discounts=d),
        [*flat[:2], discounts],
    ),
    "lambda_returns gamma": (lambda r, n: ops.lambda_returns(r, n, ends, cut, 0.9, 0.8), flat[:2]),
    "n_step_returns": (lambda r, n: ops.n_step_returns(r, n, ends, cut, 0.9, 3)[0], flat[:2]),
    "gae carry": (lambda r, v, n: ops.gae(r, v, n, ends, cut, 0.9, 0.8, valid=valid, invalid="carry"), flat),
    "lambda_returns carry": (
        lambda r, n, d: ops.lambda_returns(r, n, ends, cut, 0.9, 0.8, discounts=d, valid=valid, invalid="carry"),
        [*flat[:2], discounts],
    ),
    "n_step_returns carry": (
        lambda r, n: ops.n_step_returns(r, n, ends, cut, 0.9, 3, valid=valid, invalid="carry")[0],
        flat[:2],
    ),
    "entmax15_attention": (lambda q, k, v: ops.entmax15_attention(q, k, v, ends), leaves((6, 2), (3, 2), (3, 4))),
    "entmax15_attention causal": (
        lambda q, k, v: ops.entmax15_attention(q, k, v, is_causal=True, enable_gqa=True),
        leaves((4, 6, 2), (2, 6, 2), (2, 6, 4)),
    ),
    "mlp": (lambda x, a, b, c, d: ops.mlp(x, [a, b], [c, d]), net),
    "mlp without biases": (lambda x, a, b: ops.mlp(x, [a, b]), net[:3]),
    "gru_cell": (lambda *all: ops.gru_cell(*all), cell),
    "gru_cell without biases": (lambda *all: ops.gru_cell(*all), cell[:4]),
    "categorical_log_probs": (lambda x: ops.categorical_log_probs(x, actions), [x]),
    "policy_gradient_loss": (
        lambda l, e, v: ops.policy_gradient_loss(
            l, e, v, v.detach() - 1, e.detach(), **old(l, v), ent_coef=0.1
        )[0],
        leaves((5,), (5,), (5,)),
    ),
}
facts = {
    "errors": {name: error(op, inputs) for name, (op, inputs) in cases.items()},
    "autograd": automl_ext.build_info()["autograd"],
    "vmap": torch.allclose(
        torch.vmap(torch.func.grad(lambda x: ops.entmax15(x).pow(2).sum()))(x.detach()),
        torch.autograd.grad(ops.entmax15(x).pow(2).sum(), x)[0],
    ),
    "constants": [y.requires_grad for y in ops.n_step_returns(flat[0], flat[1], ends, cut, 0.9, 3)],
    "targets": ops.td_targets(flat[0][0], flat[1].T @ flat[0], ends[0], 0.9).requires_grad,
    "half": ops.mlp(torch.ones(2, 3).bfloat16(), [torch.ones(1, 3).bfloat16().requires_grad_()]).grad_fn is not None,
}
print(json.dumps(facts))
"""


@pytest.mark.slow
def test_values_and_derivatives_are_those_of_the_reference(tmp_path: pathlib.Path) -> None:
    ignored = shutil.ignore_patterns("_autograd_*", "__pycache__")
    shutil.copytree(fresh_python.PACKAGE, tmp_path / "automl_ext", ignore=ignored)
    facts = fresh_python.facts(CODE, tmp_path)
    assert {name: error for name, error in facts["errors"].items() if not error < 1e-10} == {}
    assert facts["autograd"].startswith("Python, slower for small tensors (no autograd library for torch ")
    assert facts["vmap"]
    assert facts["constants"] == [True, False, False]
    assert not facts["targets"]
    assert facts["half"]
