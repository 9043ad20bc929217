"""The Gumbel ops with torch.compile, checkpoint, vmap and autocast."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils.checkpoint import checkpoint

from automl_ext import _native, gumbel_argmax, gumbel_entmax15, gumbel_softmax

each_sample = pytest.mark.parametrize("sample", [gumbel_softmax, gumbel_entmax15])
each_op = pytest.mark.parametrize("op", [gumbel_softmax, gumbel_entmax15, gumbel_argmax])
pytestmark = pytest.mark.usefixtures("each_backend")


def some_logits(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(
    ("each_backend", "sample", "hard"),
    [
        *itertools.product(["native"], [gumbel_softmax, gumbel_entmax15], [False, True]),
        ("reference", gumbel_softmax, False),  # all samples of the reference divide by tau in one function
        ("reference", gumbel_entmax15, True),
    ],
    indirect=["each_backend"],
)
def test_an_invalid_tau_gives_nan_if_compiled_and_an_error_if_mapped(sample: Callable, hard: bool) -> None:
    logits = some_logits(4, 3)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, tau: sample(x, tau, hard, seed=1), fullgraph=True, backend="eager")
    for tau in (torch.tensor(-1.0), torch.tensor(0.0), torch.tensor(math.nan), -1.0, 0.0):
        assert compiled(logits, tau).isnan().all()
    mapped = torch.func.vmap(lambda tau: sample(logits, tau, hard, seed=1))
    torch.testing.assert_close(mapped(torch.tensor([0.5, 1.0]))[1], sample(logits, 1.0, hard, seed=1))
    with pytest.raises(ValueError, match="tau: expected a positive finite temperature"):
        mapped(torch.tensor([1.0, 0.0, -2.0]))


@each_op
def test_cuda_tensors_reach_the_op_before_the_checks(op: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors are fake, since there may be no GPU."""
    if not _native.is_loaded() or _native.current_backend() == "reference":
        pytest.skip("without kernels")
    calls: list[tuple] = []
    monkeypatch.setattr(_native, "autograd", SimpleNamespace(**{op.__name__: lambda *given: calls.append(given)}))
    monkeypatch.setattr(_native, "_devices", frozenset({"cuda", "meta"}))
    monkeypatch.setattr(_native, "_PLAIN", (FakeTensor,))
    with FakeTensorMode():
        logits = torch.empty(2, 3, device="cuda")
        op(logits)
        op(logits, generator=(generator := torch.Generator()))
        assert [given[:2] for given in calls] == [(logits, None), (logits, generator)]
        op(torch.empty(2, 3, device="meta"))  # its kernels check nothing
    assert len(calls) == 2


@each_sample
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_draws_the_same_noise_again(sample: Callable, reentrant: bool) -> None:
    logits, c = some_logits(30, 8), some_logits(30, 8, seed=1)
    gradients, states = [], []
    for checkpointed in (False, True):
        torch.manual_seed(5)
        x = logits.clone().requires_grad_()
        y = checkpoint(sample, x, use_reentrant=reentrant) if checkpointed else sample(x)
        (y * c).sum().backward()
        gradients.append(x.grad)
        states.append(torch.get_rng_state())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert torch.equal(states[0], states[1])


@each_op
def test_vmap_randomness(op: Callable) -> None:
    logits = some_logits(10, 8).expand(4, 10, 8)
    different = torch.func.vmap(op, randomness="different")(logits)
    assert all(not torch.equal(different[0], different[i]) for i in (1, 2, 3))
    same = torch.func.vmap(op, randomness="same")(logits)
    assert all(torch.equal(same[0], same[i]) for i in (1, 2, 3))
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(op)(logits)


@each_sample
@pytest.mark.slow
def test_annealing_does_not_recompile(sample: Callable) -> None:
    """The value of a tensor is not part of the graph. A float is a constant for its first value only."""
    for wrap, graphs in ((torch.tensor, 1), (float, 2)):
        torch._dynamo.reset()
        counters.clear()
        # Not the "eager" backend, because only later compiler passes make some numbers part of the graph.
        compiled = torch.compile(lambda x, tau: sample(x, tau, seed=3), fullgraph=True, backend="aot_eager")
        for tau in (1.0, 0.9, 0.7, 0.5):
            x, y = (some_logits(4, 5).requires_grad_() for _ in range(2))
            result, expected = compiled(x, wrap(tau)), sample(y, tau, seed=3)
            torch.testing.assert_close(result, expected)
            result.cos().sum().backward()
            expected.cos().sum().backward()
            torch.testing.assert_close(x.grad, y.grad)
        assert counters["stats"]["unique_graphs"] <= graphs


@each_sample
def test_seeds_drawn_in_compiled_code(sample: Callable) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: sample(x), fullgraph=True, backend="aot_eager")
    logits = some_logits(50, 8)
    first, second = compiled(logits), compiled(logits)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sum(-1), torch.ones(50))


@each_sample
def test_autocast_keeps_the_sample(sample: Callable) -> None:
    """Under autocast, half-precision logits are sampled in float32 with the same noise as outside."""
    logits = some_logits(50, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, index = sample(logits, seed=1, return_index=True)
        assert torch.equal(gumbel_argmax(logits, seed=1), index)
    assert y.dtype == torch.float32
    assert torch.equal(index, gumbel_argmax(logits, seed=1))


POSITIONAL = [
    ((), {}, -1),
    ((0,), {}, 0),
    ((1e-10,), {}, -1),
    ((1e-10, 0), {}, 0),
    ((0, 0), {}, 0),  # an int followed by dim is eps
    ((1e-10,), {"dim": 0}, 0),
    ((), {"dim": 0}, 0),
    ((), {"eps": 1e-10}, -1),
    ((), {"eps": 1e-10, "dim": 0}, 0),
    ((0,), {"eps": 1e-10}, 0),
]


@each_sample
@pytest.mark.parametrize(("args", "keywords", "dim"), POSITIONAL, ids=str)
def test_arguments_in_the_order_of_pytorch(sample: Callable, args: tuple, keywords: dict, dim: int) -> None:
    logits = some_logits(4, 3)
    expected = sample(logits, 0.5, True, dim=dim, seed=1)
    assert torch.equal(sample(logits, 0.5, True, *args, **keywords, seed=1), expected)
    # PyTorch accepts every form with an eps.
    if len(args) == 2 or ("eps" in keywords and not args):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an eps other than 1e-10 is deprecated
            torch.nn.functional.gumbel_softmax(logits, 0.5, True, *args, **keywords)


@each_sample
@pytest.mark.parametrize(
    ("args", "keywords", "message"),
    [
        ((True,), {}, "dim: expected an int, got bool True"),
        (("0",), {}, "dim: expected an int, got str '0'"),
        ((None,), {}, "dim: expected an int, got NoneType None"),
        ((1e-10, 0.5), {}, "dim: expected an int, got float 0.5"),
        ((1e-10, None), {}, "dim: expected an int, got NoneType None"),
        ((True, 0), {}, "eps: expected a number, got bool True"),
        (("a", 0), {}, "eps: expected a number, got str 'a'"),
        ((), {"eps": "a"}, "eps: expected a number, got str 'a'"),
        ((0,), {"dim": -1}, "dim: expected once, got it by position and by keyword"),
        ((1e-10, 0), {"dim": -1}, "dim: expected once"),
        ((1e-10,), {"eps": 1e-10}, "eps: expected once"),
        ((1e-10, 0, None), {}, "expected at most 5 positional arguments, got 6"),
        ((), {"dim": None}, "dim: expected an int, got NoneType None"),
    ],
    ids=str,
)
def test_wrong_arguments_after_hard(sample: Callable, args: tuple, keywords: dict, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{sample.__name__}: {message}"):
        sample(some_logits(4, 3), 1.0, True, *args, **keywords)


@each_sample
@pytest.mark.slow
def test_compile_of_both_orders(sample: Callable) -> None:
    torch._dynamo.reset()
    logits = some_logits(4, 3)

    def all_orders(x: Tensor) -> list[Tensor]:
        return [sample(x, 1.0, False, *args, **keywords, seed=3) for args, keywords, _ in POSITIONAL]

    compiled = torch.compile(all_orders, fullgraph=True, backend="eager")
    for y, (*_, dim) in zip(compiled(logits), POSITIONAL, strict=True):
        torch.testing.assert_close(y, sample(logits, dim=dim, seed=3))
