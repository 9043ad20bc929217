"""Invalid arguments: every op returns a result or raises a one-line error that names the argument."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from odd_values import Unprintable, odd_values

import automl_ext as a
import automl_ext.ops.entmax as e
from automl_ext.ops import returns
from automl_ext.ops._checks import MESSAGE_LIMIT, describe, shown

X, STEPS = torch.linspace(-1, 1, 12).reshape(4, 3), torch.linspace(-1, 1, 4)
FLAG, TARGET = torch.zeros(4, 3, dtype=torch.bool), torch.tensor([0, 1, 2, 0])
FLAGS = {"terminated": FLAG, "truncated": FLAG, "valid": ~FLAG}
TARGETS = {"rewards": STEPS, "terminated": FLAG[:, 0], "discounts": 0.9}


def loss_module(X: object, target: object, ignore_index: object, reduction: object) -> object:
    return e.SparsemaxLoss(None, ignore_index, reduction)(X, target)  # type: ignore[arg-type]


def edge(candidates: object, weights: object) -> object:
    return a.MixedOp(candidates)(X, weights)  # type: ignore[arg-type]


# Valid arguments of each op.
OPS: dict[str, tuple[Callable, dict]] = {
    "entmax15": (e.entmax15, {"X": X, "dim": -1, "k": None}),
    "sparsemax": (e.sparsemax, {"X": X, "dim": -1, "k": None}),
    "entmax_bisect": (e.entmax_bisect, {"X": X, "alpha": 1.3, "dim": -1, "n_iter": 3, "ensure_sum_one": True}),
    "sparsemax_bisect": (e.sparsemax_bisect, {"X": X, "dim": -1, "n_iter": 3, "ensure_sum_one": True}),
    "normmax_bisect": (e.normmax_bisect, {"X": X, "alpha": 2, "dim": -1, "n_iter": 3}),
    "budget_bisect": (e.budget_bisect, {"X": X, "budget": 2, "dim": -1, "n_iter": 3}),
    "sparsemax_loss": (e.sparsemax_loss, {"X": X, "target": TARGET, "k": None}),
    "entmax_bisect_loss": (e.entmax_bisect_loss, {"X": X, "target": TARGET, "alpha": 1.3, "n_iter": 3}),
    "normmax_bisect_loss": (e.normmax_bisect_loss, {"X": X, "target": TARGET, "alpha": 2, "n_iter": 3}),
    "SparsemaxLoss": (loss_module, {"X": X, "target": TARGET, "ignore_index": -100, "reduction": "mean"}),
    "gumbel_softmax": (
        a.gumbel_softmax,
        {"logits": X, "tau": 1.0, "hard": False, "dim": -1, "generator": None, "seed": 1, "return_index": False},
    ),
    "gumbel_argmax": (a.gumbel_argmax, {"logits": X, "dim": -1, "generator": None, "seed": 1}),
    "mixed_op": (a.mixed_op, {"inputs": [X, None, X], "weights": torch.ones(3)}),
    "cell_aggregate": (a.cell_aggregate, {"inputs": [[X, None], [X, X]], "weights": torch.ones(2, 2)}),
    "entmax15_attention": (
        a.entmax15_attention,
        {"query": X, "key": X, "value": X, "attn_mask": None, "is_causal": False, "scale": None, "enable_gqa": False},
    ),
    "mlp": (
        a.mlp,
        {"x": X, "weights": [torch.ones(2, 3), torch.ones(1, 2)], "biases": [torch.ones(2), torch.ones(1)]}
        | {"activation": "elu", "activate_last": False, "stacked_x": False},
    ),
    "gru_cell": (
        a.gru_cell,
        {"x": X, "h": torch.ones(4, 2), "w_ih": torch.ones(6, 3), "w_hh": torch.ones(6, 2)}
        | {"b_ih": torch.ones(6), "b_hh": torch.ones(6)},
    ),
    "categorical_log_probs": (a.categorical_log_probs, {"logits": X, "actions": torch.zeros(4, dtype=torch.int64)}),
    "policy_gradient_loss": (
        a.policy_gradient_loss,
        {"log_probs": X, "entropy": X, "values": X, "advantages": X, "returns": X}
        | {"old_log_probs": X, "old_values": X, "weights": X}
        | {"clip": 0.2, "value_clip": 0.2, "vf_coef": 0.5, "ent_coef": 0.0},
    ),
    "MixedOp": (edge, {"candidates": [torch.nn.Identity(), torch.nn.Tanh()], "weights": torch.ones(2)}),
    "discounted_returns": (
        a.discounted_returns,
        {"rewards": X, "next_values": X, **FLAGS, "gamma": 0.9, "time_dim": 0},
    ),
    "n_step_returns": (
        a.n_step_returns,
        {"rewards": X, "next_values": X, **FLAGS, "gamma": 0.9, "n": 2, "time_dim": 0},
    ),
    "gae": (
        a.gae,
        {"rewards": X, "values": X, "next_values": X, **FLAGS, "gamma": 0.9, "lam": 0.9, "time_dim": 0},
    ),
    "lambda_returns": (
        a.lambda_returns,
        {"rewards": X, "next_values": X, **FLAGS, "discounts": X, "gamma": 0.9, "lam": 0.9, "time_dim": 0},
    ),
    "vtrace": (
        a.vtrace,
        {"log_rhos": X, "rewards": X, "values": X, "next_values": X, **FLAGS, "gamma": 0.9, "lam": 0.9}
        | {"rho_clip": 1.0, "c_clip": 1.0, "time_dim": 0},
    ),
    "retrace": (
        a.retrace,
        {"log_rhos": X, "q_values": X, "rewards": X, "next_values": X, **FLAGS, "gamma": 0.9, "lam": 0.9},
    ),
    "td_targets": (a.td_targets, {"next_q": X, **TARGETS, "next_q_online": X}),
    "categorical_projection": (
        a.categorical_projection,
        {"next_probs": X.softmax(-1), **TARGETS, "v_min": -1.0, "v_max": 1.0},
    ),
}


ODD = odd_values(X)


@pytest.mark.usefixtures("each_backend")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", list(OPS))
def test_one_odd_argument(op: str) -> None:
    function, valid = OPS[op]
    function(**valid)
    for name in valid:
        for value in ODD:
            try:
                function(**(valid | {name: value}))
            except (TypeError, ValueError, IndexError) as error:
                message = str(error)
                subject = message.split(": ")[1] if ": " in message else ""
                assert subject.split("[")[0].split(" ")[0] in {*valid, name}, (name, describe(value), message[:300])
                assert len(message) < 300, (name, len(message), message[:100])
                assert "\n" not in message, (name, message)
            except Exception as error:
                raise AssertionError(f"{op}({name}={describe(value)})") from error


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: a.mlp(X, [torch.ones(2, 3)], 0), "mlp: biases: expected a sequence of tensors, got int 0"),
        (lambda: a.mlp(X, [torch.ones(2, 3)], []), r"mlp: biases: expected as many as weights \(1\), got 0"),
        (lambda: a.mixed_op([X, 0], torch.ones(4, 3, 2)), "mixed_op: weights: expected a 1-dim float tensor"),
        (lambda: a.FusedMLP(2**63, [], 1), "FusedMLP: inputs: expected an int of 64 bits"),
        (lambda: a.FusedMLP(1, torch.ones(1, device="meta").long(), 1), r"FusedMLP: hidden\[0\]: expected an int"),
        (lambda: a.entmax15(torch.ones(3, device="meta"), 1), r"entmax15: dim: expected a value in \[-1, 0\], got 1"),
        (lambda: a.sparsemax(torch.ones((), device="meta"), 1), r"sparsemax: dim: expected a value in \[-1, 0\]"),
        (lambda: a.entmax15(torch.ones(3, device="meta").long()), "entmax15: X: expected a float64"),
        (lambda: a.sparsemax(torch.ones(3, device="meta").long()), "sparsemax: X: expected a float64"),
        (lambda: a.gumbel_argmax(X, FLAG), "gumbel_argmax: dim: expected an int, got bool tensor"),
    ],
)
def test_backends_refuse_alike(call: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError), match=f"^{message}"):
        call()


def test_values_in_messages_are_shortened() -> None:
    for value in (list(range(10**6)), "x" * 10**6, 10**4000, 10**5000, {i: i for i in range(10**5)}, Unprintable()):
        assert len(shown(value)) <= MESSAGE_LIMIT
        assert len(describe(value)) <= MESSAGE_LIMIT + 10
    assert describe([1.0, 2.0]) == "list [1.0, 2.0]"
    assert describe("mean") == "str 'mean'"
    assert describe(X) == "float32 tensor of shape (4, 3)"
    assert describe(X.to_sparse()) == "sparse_coo float32 tensor of shape (4, 3)"


def test_an_error_of_the_gae_kernel_is_raised_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernels:
        def gae(self, *args: object) -> None:
            raise RuntimeError("the kernel's own error")

    monkeypatch.setattr(returns._native, "autograd", Kernels())
    monkeypatch.setattr(returns._native, "calls_directly", lambda x: True)
    with pytest.raises(RuntimeError, match=r"^the kernel's own error$"):
        a.gae(X, X, X, FLAG, FLAG, 0.9, 0.9)
    with pytest.raises(TypeError, match="gae: values: expected a float32 tensor like rewards, got NoneType None"):
        a.gae(X, None, X, FLAG, FLAG, 0.9, 0.9)  # type: ignore[arg-type]


@pytest.mark.usefixtures("each_backend")
def test_numbers_of_numpy_are_numbers() -> None:
    x, rewards = torch.randn(4, 3), torch.randn(5, 2)
    over = torch.zeros(5, 2, dtype=torch.bool)
    pairs = [
        (lambda f, i: a.gumbel_softmax(x, tau=f(0.5), dim=i(0), seed=i(7)), np.float32),
        (lambda f, i: a.entmax15(x, dim=i(0)), np.float64),
        (lambda f, i: a.n_step_returns(rewards, rewards, over, over, f(0.5), i(2), time_dim=i(0))[0], np.float16),
        (lambda f, i: a.vtrace(rewards, rewards, rewards, rewards, over, over, f(0.5), rho_clip=f(2))[0], np.float32),
        (lambda f, i: a.td_targets(x[:, 0], x, over[:4, 0], f(0.5)), np.float32),
    ]
    for call, number in pairs:
        torch.testing.assert_close(call(number, np.int64), call(float, int), rtol=0, atol=0)
    with pytest.raises(ValueError, match="seed: expected an int of 64 bits"):
        a.gumbel_softmax(x, seed=np.uint64(2**64 - 1))
