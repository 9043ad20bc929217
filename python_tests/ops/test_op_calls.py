"""Random calls of every op: the reference's result and gradients, or a one-line error that names an argument.

A call is not allowed to end the process, to change an argument or to change the global random state. OP_CALLS=200000
in the environment makes this number of calls, with other values each time. pytest's option ``--hypothesis-seed=7``
repeats a run. With ``-n 0 -s --hypothesis-verbosity=verbose``, each call is named before it is made: if one ends the
process, it is the last.
"""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_calls import ARGUMENTS, Call, calls, described, is_plain, parameters

import automl_ext
from automl_ext import _native, ops
from automl_ext.ops import entmax

CALLS = int(os.environ.get("OP_CALLS", "0"))
quick = settings(
    max_examples=CALLS // len(ARGUMENTS) // 2 if CALLS else 3,
    derandomize=not CALLS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SANITIZED = "ASAN_OPTIONS" in os.environ  # calls are made, and not compared, which takes most of the time
SECONDS = 120  # for one call, which normally takes milliseconds
MEMORY = 4 << 30  # bytes for the calls, since sizes are arguments of some
REFUSALS = (ValueError, TypeError, IndexError, NotImplementedError)
LONGEST = 1000  # number of characters of an error
# Differences between two correct computations, relative to the largest number in the tensor.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# A gradient is a product with an argument, and 0 · ∞ depends on rounding.
PRODUCTS = ("mlp", "gru_cell", "entmax15_attention")
DISTRIBUTIONS = ("gumbelsoftmax", "gumbelentmax15", "entmax", "sparsemax", "normmax", "budget")


@pytest.fixture(scope="module", autouse=True)
def _limited_memory() -> Iterator[None]:
    if SANITIZED:  # the address sanitizer reserves terabytes
        yield
        return
    old = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def test_every_op_has_strategies() -> None:
    elsewhere = {"policy_act", "policy_gradient_step", "td_step"}  # test_policy_act.py, test_training_steps.py
    assert set(ARGUMENTS) == {*ops.__all__, *entmax.__all__} - elsewhere


@pytest.mark.parametrize("name", ARGUMENTS)
@quick
@given(data=st.data())
def test_valid_calls_equal_the_reference(name: str, data: st.DataObject) -> None:
    check(data.draw(calls(name)), with_gradient=data.draw(st.booleans()))


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "EntmaxMultiheadAttention"])  # it has no other
@quick
@given(data=st.data())
def test_calls_with_odd_arguments_equal_the_reference_or_are_refused(name: str, data: st.DataObject) -> None:
    check(data.draw(calls(name, changes=2)))


def reference() -> bool:
    return _native.current_backend() == "reference"


FAULTS = [
    (lambda X: X.softmax(-1) if reference() else X.softmax(-1).flip(-1), "differs from the reference's by"),
    (lambda X: X.softmax(-1) if reference() else X.double().softmax(-1), "output 0 is float64"),
    (lambda X: X.zero_(), "changed in place"),
    (lambda X: X + torch.rand(3), "random state was changed"),
    (lambda X: X.softmax(-1) * 1.001, "the sum of the probabilities"),
    (lambda X: (-X).softmax(-1), "a larger score"),
    (lambda X: X.softmax(-1) - 0.1, "a probability is negative"),
    (lambda X: {}[X], "KeyError of a valid call"),
    (lambda X: torch.zeros(3) @ torch.zeros(4), "RuntimeError of a valid call"),
    (lambda X: ops.entmax15(X, dim=5), "a valid call is refused"),
]


@pytest.mark.parametrize(("function", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_planted_faults_are_found(function: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check(Call("softmax", function, {"X": torch.tensor([[1.0, 2.0, -4.0]])}))


@pytest.mark.parametrize(
    ("text", "words"),
    [("X: no\nmore", "several lines"), ("X: " + "x" * 2000, "characters"), ("no", "names no argument")],
)
def test_planted_errors_are_found(text: str, words: str) -> None:
    def refuses(X: Tensor) -> Tensor:
        raise ValueError(text)

    with pytest.raises(AssertionError, match=words):
        check(Call("entmax15", refuses, {"X": torch.ones(2)}, changed=("X",)))


def check(call: Call, with_gradient: bool = False) -> None:
    """Call an op on the compiled backend and on the reference, and compare."""
    if with_gradient and call.name in PRODUCTS:
        with_gradient = all(x.isfinite().all() for x in tensors_in([*call.arguments.values()]))
    before, state = copies(call.arguments), torch.get_rng_state()
    ours, error = result(call, "auto", with_gradient)
    if error is not None:
        check_error(call, error)
    if call.arguments.get("seed", 0) is not None:
        assert torch.equal(state, torch.get_rng_state()), "the global random state was changed"
    for x, y in zip(before, copies(call.arguments), strict=True):
        assert torch.equal(x.view(torch.uint8), y.view(torch.uint8)), "an argument was changed in place"
    if SANITIZED:
        return
    torch.set_rng_state(state)
    expected, reference_error = result(call, "reference", with_gradient)
    assert type(error) is type(reference_error), f"{error!r:.300}, but the reference gives {reference_error!r:.300}"
    if error is not None:
        return
    if call.arguments.get("n_iter", 50) >= 50:  # the kernels are exact where the reference bisects too few times
        compare(call, ours, expected)
    name = call.name.lower().replace("_", "")
    if "loss" not in name and ours[0].numel():
        if name.startswith((*DISTRIBUTIONS, "softmax")):
            check_distribution(call, ours[0])
        check_precision(call, ours[0])


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [x for item in value for x in tensors_in(item)] if isinstance(value, (list, tuple)) else []


def copies(arguments: dict[str, Any]) -> list[Tensor]:
    plain = [x.detach() for x in tensors_in([*arguments.values()]) if is_plain(x) and x.numel()]
    return [torch.empty(x.shape, dtype=x.dtype).copy_(x).view(-1) for x in plain]


def result(call: Call, backend: str, with_gradient: bool) -> tuple[list[Tensor], Exception | None]:
    """Return the outputs, followed by the gradients if requested, or the error."""
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, list):
            return [leaf(x) for x in value]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaves.append(value.detach().requires_grad_())
        return leaves[-1]

    constants = ("tau", "alpha", "budget")  # their gradients are sums over rows, which may be ill-conditioned
    arguments = call.arguments
    if with_gradient:
        arguments = {name: value if name in constants else leaf(value) for name, value in arguments.items()}
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    try:
        with automl_ext.backend(backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = call.function(**arguments)
            outputs = list(out) if isinstance(out, tuple) else [out]
            followed = [y for y in outputs if y.requires_grad] if leaves else []
            if followed:
                weights = [torch.arange(y.numel()).mul(2.4).cos().view(y.shape).to(y) for y in followed]
                gradients = torch.autograd.grad(followed, leaves, weights, allow_unused=True)
                outputs += [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
        return [y.detach() for y in outputs], None
    except Exception as error:
        return [], error
    finally:
        faulthandler.cancel_dump_traceback_later()


def check_error(call: Call, error: Exception) -> None:
    kind, text = type(error).__name__, str(error)
    if call.name == "FusedMLP" and re.search("can't allocate memory|Storage size", text):  # PyTorch's own
        return
    of_valid = "" if call.changed else " of a valid call"
    assert isinstance(error, REFUSALS), f"{kind}{of_valid}: {text[:300]}"
    assert call.changed, f"a valid call is refused: {kind}: {text[:300]}"
    assert "\n" not in text.strip(), f"an error of several lines: {kind}: {text[:300]}"
    assert len(text) <= LONGEST, f"an error of more than {LONGEST} characters: {kind}: {text[:300]}"
    named = any(re.search(rf"\b{re.escape(name)}\b", text) for name in parameters(call))
    assert named, f"an error that names no argument: {kind}: {text[:300]}"


def compare(call: Call, ours: list[Tensor], expected: list[Tensor]) -> None:
    """Compare outputs and gradients, relative to the largest number of each, or of all arguments."""
    name, alpha = call.name.lower().replace("_", ""), largest_alpha(call)
    inputs = [x for x in tensors_in([*call.arguments.values()]) if x.dtype in TOLERANCE and is_plain(x)]
    reach = max((largest(x) for x in inputs), default=0.0)
    if name.startswith("gumbel") or "loss" in name:  # the noise, and the entropy
        reach = max(reach, 1.0)
    if name == "entmax15attention":  # the scores; the gradient of the result is 1
        query, key = call.arguments["query"], call.arguments["key"]
        reach = max(reach, largest(query) * largest(key) * query.shape[-1], 1.0)
    exact = name.startswith(DISTRIBUTIONS) and not name.endswith(("loss", "attention"))
    # The derivative of p has a pole at p = 0, where p^(α − 1), a difference of scores, has few correct digits.
    steep = exact and alpha > 2 and is_plain(ours[0])
    if steep and any(((p > 0) & (p ** (alpha - 1) < 0.01)).any() for p in (ours[0], expected[0])):
        ours, expected = ours[:1], expected[:1]
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        same = (a.dtype, a.shape, a.device, a.layout) == (b.dtype, b.shape, b.device, b.layout)
        assert same, f"output {i} is {described(a)}, the reference's {described(b)}"
        if not is_plain(a) or not a.numel():
            continue
        if not a.is_floating_point():
            assert torch.equal(a, b), f"output {i} differs from the reference's"
            continue
        x, y = a.double(), b.double()
        both = x.isfinite() & y.isfinite()
        if max(largest(a), largest(b)) < torch.finfo(a.dtype).max / 4:  # above, one of them may round to infinity
            same = torch.equal(x.isnan(), y.isnan())
            assert same, f"output {i} and the reference's have NaN in different places"
            infinite = torch.equal(x[~both].nan_to_num(), y[~both].nan_to_num())
            assert infinite, f"output {i} and the reference's have infinities in different places"
        # A gradient may come from a saved result that was rounded.
        scale = 1.0 if "budget" in call.arguments else largest(b)
        scale = scale if exact and i == 0 else 10 * max(scale, reach)
        error = float((x - y)[both].abs().max()) if both.any() else 0.0
        # For a large α, p is a root of a difference of scores, of degree α − 1, which magnifies its rounding.
        limit = TOLERANCE[a.dtype] ** (1 / max(alpha - 1, 1)) * max(scale, 1e-30)
        assert error <= limit, f"output {i} differs from the reference's by {error:.3g}, more than {limit:.3g}"


def largest_alpha(call: Call) -> float:
    alpha = call.arguments.get("alpha", 1.5)
    return float(alpha.max()) if isinstance(alpha, Tensor) else min(alpha, 1e9)


def largest(x: Tensor) -> float:
    finite = x.detach().double()
    finite = finite[finite.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def check_distribution(call: Call, p: Tensor) -> None:
    """Check without the reference that p ≥ 0, that its sum is right, and that larger scores get no less probability."""
    scores = call.arguments.get("X", call.arguments.get("logits"))
    dim = call.arguments.get("dim", -1)
    if not isinstance(scores, Tensor) or not is_plain(scores) or not is_plain(p) or type(dim) is not int:
        return
    tolerance = TOLERANCE.get(p.dtype, 1e-2) * 5
    x, p = (t.detach().double().reshape(t.shape or (1,)).movedim(dim, -1) for t in (scores, p))
    good = (x < torch.inf).all(-1) & (x > -torch.inf).any(-1)
    wanted: Any = 1.0
    if "budget" in call.arguments:
        budget = torch.as_tensor(call.arguments["budget"], dtype=torch.float64)
        budget = budget.reshape((1,) * (x.ndim - budget.ndim) + budget.shape).movedim(dim, -1).squeeze(-1)
        wanted = torch.minimum(budget, (x > -torch.inf).sum(-1).double())
    assert not (p < 0).any(-1)[good].any(), "a probability is negative"
    sums = p.sum(-1)
    assert not ((sums - wanted).abs() > tolerance * (1 + sums.abs()))[good].any(), (
        "the sum of the probabilities is wrong"
    )
    if "logits" not in call.arguments:  # no noise
        ordered = p.gather(-1, x.argsort(-1))
        falls = (ordered.diff(dim=-1) < -tolerance)[good].any()
        assert not falls, "a larger score gets a smaller probability"


def check_precision(call: Call, p: Tensor) -> None:
    """Check that the maps of the entmax family are as accurate as in float64, also for large scores."""
    x = call.arguments.get("X")
    if not isinstance(x, Tensor) or x.dtype not in TOLERANCE or not is_plain(x) or call.name == "softmax":
        return
    if largest_alpha(call) > 2:  # the map is steep and may lose digits
        return
    expected = call.function(**{**call.arguments, "X": x.detach().double()}).detach()
    error = float((p.double() - expected.double()).abs().nan_to_num().max())
    assert error <= 10 * TOLERANCE[x.dtype], f"the result differs by {error:.3g} from the result in float64"
