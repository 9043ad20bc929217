"""Tensors on different devices are refused by argument name; the ops work on the `meta` device."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import automl_ext as a
import automl_ext.ops.entmax as entmax

pytestmark = pytest.mark.usefixtures("each_backend")
X, V, BOOL = torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, 3, dtype=torch.bool)
ENDS = {"terminated": BOOL, "truncated": BOOL, "valid": BOOL}
SCALAR, SEED, TARGET = torch.ones(()), torch.tensor(3), torch.zeros(4, dtype=torch.int64)

# Each op with its tensors by name; the first determines the device.
CALLS: dict[str, tuple[Callable, dict[str, Tensor]]] = {
    "entmax15": (a.entmax15, {"X": X}),
    "sparsemax": (a.sparsemax, {"X": X}),
    "entmax_bisect": (entmax.entmax_bisect, {"X": X, "alpha": 1.5 * SCALAR}),
    "normmax_bisect": (entmax.normmax_bisect, {"X": X, "alpha": 2 * SCALAR}),
    "budget_bisect": (entmax.budget_bisect, {"X": X, "budget": 2 * SCALAR}),
    "sparsemax_loss": (entmax.sparsemax_loss, {"X": X, "target": TARGET}),
    "entmax15_loss": (entmax.entmax15_loss, {"X": X, "target": TARGET}),
    "sparsemax_bisect_loss": (entmax.sparsemax_bisect_loss, {"X": X, "target": TARGET}),
    "entmax_bisect_loss": (entmax.entmax_bisect_loss, {"X": X, "target": TARGET, "alpha": 1.5 * SCALAR}),
    "normmax_bisect_loss": (entmax.normmax_bisect_loss, {"X": X, "target": TARGET, "alpha": 2 * SCALAR}),
    "gumbel_softmax": (a.gumbel_softmax, {"logits": X, "tau": SCALAR, "seed": SEED}),
    "gumbel_entmax15": (a.gumbel_entmax15, {"logits": X, "tau": SCALAR, "seed": SEED}),
    "gumbel_argmax": (a.gumbel_argmax, {"logits": X, "seed": SEED}),
    "mixed_op": (
        lambda x, y, weights: a.mixed_op([None, x, y], weights),
        {"x": X, "inputs[2]": X, "weights": torch.ones(3)},
    ),
    "cell_aggregate": (
        lambda x, y, weights: a.cell_aggregate([[x], [y]], weights),
        {"x": X, "inputs[1]": X, "weights": torch.ones(2, 1)},
    ),
    "entmax15_attention": (
        a.entmax15_attention,
        {"query": X, "key": X, "value": X, "attn_mask": torch.ones(len(X), len(X), dtype=torch.bool)},
    ),
    "mlp": (
        lambda x, w, b: a.mlp(x, [w], [b]),
        {"x": X, "weights[0]": torch.ones(2, 3), "biases[0]": torch.ones(2)},
    ),
    "gru_cell": (
        a.gru_cell,
        {
            "x": X,
            "h": X,
            "w_ih": torch.ones(9, 3),
            "w_hh": torch.ones(9, 3),
            "b_ih": torch.ones(9),
            "b_hh": torch.ones(9),
        },
    ),
    "categorical_log_probs": (a.categorical_log_probs, {"logits": X, "actions": V.long()}),
    "policy_gradient_loss": (
        a.policy_gradient_loss,
        dict.fromkeys(
            ("log_probs", "entropy", "values", "advantages", "returns", "old_log_probs", "old_values", "weights"), X
        ),
    ),
    "gae": (lambda **t: a.gae(**t, gamma=0.9, lam=0.9), {"rewards": X, "values": X, "next_values": X, **ENDS}),
    "lambda_returns": (
        lambda **t: a.lambda_returns(**t, gamma=0.9, lam=0.9),
        {"rewards": X, "next_values": X, "discounts": X, **ENDS},
    ),
    "discounted_returns": (lambda **t: a.discounted_returns(**t, gamma=0.9), {"rewards": X, "next_values": X, **ENDS}),
    "n_step_returns": (lambda **t: a.n_step_returns(**t, gamma=0.9, n=2), {"rewards": X, "next_values": X, **ENDS}),
    "vtrace": (
        lambda **t: a.vtrace(**t, gamma=0.9),
        {"rewards": X, "log_rhos": X, "values": X, "next_values": X, **ENDS},
    ),
    "retrace": (
        lambda **t: a.retrace(**t, gamma=0.9),
        {"rewards": X, "log_rhos": X, "q_values": X, "next_values": X, **ENDS},
    ),
    "td_targets": (
        a.td_targets,
        {"next_q": X, "rewards": V, "terminated": V.bool(), "discounts": V, "next_q_online": X},
    ),
    "categorical_projection": (
        lambda **t: a.categorical_projection(**t, v_min=-1.0, v_max=1.0),
        {"next_probs": X, "rewards": V, "terminated": V.bool(), "discounts": V},
    ),
}
SECOND = [(op, name) for op, (_, tensors) in CALLS.items() for name in list(tensors)[1:]]


def call(op: str, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    function = CALLS[op][0]
    named = op not in ("mixed_op", "cell_aggregate", "mlp")
    out = function(**tensors) if named else function(*tensors.values())
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize(("op", "name"), SECOND)
def test_tensors_on_another_device_are_refused_by_name(op: str, name: str) -> None:
    for here, there in (("cpu", "meta"), ("meta", "cpu")):
        tensors = {n: x.to(there if n == name else here) for n, x in CALLS[op][1].items()}
        with pytest.raises(ValueError, match=f"^{op}: {re.escape(name)}: expected ") as error:
            call(op, tensors)
        assert re.search(rf"\b{here}\b.*\b{there}\b", str(error.value))
        assert str(error.value).endswith(f"; use {name}.to('{here}')")


@pytest.mark.parametrize("op", CALLS)
def test_meta_tensors_have_the_shapes_and_dtypes_of_real_ones(op: str) -> None:
    tensors = CALLS[op][1]
    real, meta = call(op, tensors), call(op, {n: x.to("meta") for n, x in tensors.items()})
    for x, y in zip(real, meta, strict=True):
        assert y.device.type == "meta"
        assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("op", [a.gumbel_softmax, a.gumbel_entmax15, a.gumbel_argmax])
def test_seeds_are_drawn_on_the_device_of_the_logits(op: Callable) -> None:
    assert op(X.to("meta")).device.type == "meta"
    assert op(X.to("meta"), seed=1).device.type == "meta"
