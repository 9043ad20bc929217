"""Check the result of an op: the reference's result, or an error that names an argument."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import Tensor

import automl_ext
from fuzzing.case import Finding, short
from fuzzing.ops.calls import Call

REFUSALS = (ValueError, TypeError, IndexError, NotImplementedError)
LONGEST = 1000  # maximum number of characters of an error
# Differences between two correct computations, relative to the largest number in the tensor.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
DISTRIBUTIONS = ("gumbel_softmax", "gumbel_entmax15", "entmax", "sparsemax", "normmax", "budget")


def check(call: Call, with_gradient: bool) -> Finding:
    """Call the op on the compiled backend and on the reference, and compare."""
    what = f"{call.name}({', '.join(f'{k}={_text(v)}' for k, v in call.arguments.items())})"
    before = _snapshot(call.arguments)
    state = torch.get_rng_state()
    ours, ours_error = _result(call, "auto", with_gradient)
    seeded = call.arguments.get("seed") is not None or not call.name.lower().startswith("gumbel")
    if seeded and not call.name.startswith("Gumbel") and not torch.equal(state, torch.get_rng_state()):
        return Finding(what, "wrong", "the global random state was changed")
    if not _same_bits(before, _snapshot(call.arguments)):
        return Finding(what, "wrong", "an argument was changed in place")
    torch.set_rng_state(state)
    theirs, theirs_error = _result(call, "reference", with_gradient)
    if ours_error is not None:
        violation = _bad_error(call, ours_error)
        if violation is None and type(theirs_error) is not type(ours_error):
            other = "a result" if theirs_error is None else type(theirs_error).__name__
            violation = f"{type(ours_error).__name__}, but the reference gives {other}"
        text = f"{type(ours_error).__name__}: {str(ours_error)[:500]}"
        return Finding(what, type(ours_error).__name__, violation, text)
    if theirs_error is not None:
        violation = f"a result, but the reference raises {type(theirs_error).__name__}"
        return Finding(what, "wrong", violation, f"{short(ours)}\n{theirs_error}")
    # The kernels ignore n_iter: they are exact where the reference bisects too few times.
    violation = _differs(ours, theirs, call) if call.arguments.get("n_iter", 50) >= 50 else None
    violation = violation or _no_distribution(call, ours) or _imprecise(call, ours)
    evidence = f"ours {short(ours, 600)}\nreference {short(theirs, 600)}" if violation else ""
    return Finding(what, "wrong" if violation else "equal", violation, evidence)


def _text(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(x, Tensor) for x in value):
        return f"[{', '.join(_text(x) for x in value[:3])}{', …' * (len(value) > 3)}]"
    if not isinstance(value, Tensor):
        return short(value, 60)
    text = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape) if not value.is_nested else ' nested'}"
    if value.layout == torch.strided and not value.is_nested:
        text += "" if value.is_contiguous() else f"/{list(value.stride())}"
    if value.numel() == 1 and value.device.type == "cpu" and value.layout == torch.strided:
        text += f"={value.item()}"
    return f"{text}{'' if value.device.type == 'cpu' else value.device}"


def _tensors(arguments: Any) -> list[Tensor]:
    if isinstance(arguments, Tensor):
        return [arguments]
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    return [x for item in arguments for x in _tensors(item)] if isinstance(arguments, (list, tuple)) else []


def _snapshot(arguments: dict[str, Any]) -> list[Tensor]:
    plain = [x for x in _tensors(arguments) if x.layout == torch.strided and x.device.type == "cpu" and not x.is_nested]
    copies = [(torch.empty(x.shape, dtype=x.dtype), x.detach()) for x in plain if not x.is_quantized]
    return [empty.copy_(x).view(-1) for empty, x in copies if x.numel()]


def _same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x.view(torch.uint8), y.view(torch.uint8)) for x, y in zip(a, b, strict=True))


def _result(call: Call, backend: str, with_gradient: bool) -> tuple[Any, Exception | None]:
    """Return the outputs as a list, followed by the gradients if requested, or the error."""
    arguments, leaves = call.arguments, []
    if with_gradient and not call.mutated:
        arguments, leaves = _with_leaves(arguments)
    try:
        with automl_ext.backend(backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = call.function(**arguments)
        if not isinstance(out, (Tensor, tuple)):
            return None, RuntimeError(f"it returned a {type(out).__name__}")
        outputs = list(out) if isinstance(out, tuple) else [out]
        followed = [y for y in outputs if y.requires_grad] if leaves else []
        if followed:
            weights = [torch.linspace(-1, 2, y.numel()).cos().view(y.shape).to(y) for y in followed]
            with automl_ext.backend(backend):
                gradients = torch.autograd.grad(followed, leaves, weights, allow_unused=True)
            outputs += [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
        return [y.detach() for y in outputs], None
    except Exception as error:
        return None, error


def _with_leaves(arguments: dict[str, Any]) -> tuple[dict[str, Any], list[Tensor]]:
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, list):
            return [leaf(x) for x in value]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaves.append(value.detach().requires_grad_())
        return leaves[-1]

    constants = ("tau", "alpha", "budget")  # their gradients are sums over rows, which may be ill-conditioned
    return {name: value if name in constants else leaf(value) for name, value in arguments.items()}, leaves


def _bad_error(call: Call, error: Exception) -> str | None:
    kind, text = type(error).__name__, str(error)
    if call.name == "FusedMLP" and re.search("can't allocate memory|Storage size", text):  # PyTorch's own
        return None
    if not isinstance(error, REFUSALS):
        first = re.sub(r"[\d.]+", "N", text.splitlines()[0][:110] if text else "")
        return f"{kind}{'' if call.mutated else ' of a valid call'}: {first}"
    if not call.mutated:
        return f"a valid call is refused: {kind}: {text[:120]}"
    if "\n" in text.strip():
        return f"an error of several lines: {kind}: {_start(call, text)[:40]}"
    if len(text) > LONGEST:
        return f"an error of more than {LONGEST} characters: {kind}: {_start(call, text)[:40]}"
    if not any(re.search(rf"\b{re.escape(name)}\b", text) for name in call.parameters):
        return f"an error that names no argument: {kind}: {_start(call, text)}"
    return None


def _start(call: Call, text: str) -> str:
    """Return the beginning of an error without the names of op and argument, so that equal causes give equal text."""
    text = text.splitlines()[0].removeprefix(f"{call.name}: ")
    return re.sub(r"automl_ext::\w+|\w*CPU\w*|^[\w\[\]]+(?=: )", "…", text)[:80]


def _differs(ours: list[Tensor], theirs: list[Tensor], call: Call) -> str | None:
    inputs = [x for x in _tensors(call.arguments) if x.dtype in TOLERANCE and _plain(x)]
    reach = max((_largest(x) for x in inputs), default=0.0)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.dtype != b.dtype or a.shape != b.shape or a.device != b.device or a.layout != b.layout:
            return f"output {i} is {_text(a)}, the reference's {_text(b)}"
        if not _plain(a) or not a.numel():
            continue
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return f"output {i} differs from the reference's"
            continue
        x, y = a.double(), b.double()
        if not torch.equal(x.isnan(), y.isnan()):
            return f"output {i} and the reference's have NaN in different places"
        both = x.isfinite() & y.isfinite()
        limit = torch.finfo(a.dtype).max / 4  # above it, one of the two results may round to infinity
        if not torch.equal(x[~both].nan_to_num(), y[~both].nan_to_num()) and max(_largest(a), _largest(b)) < limit:
            return f"output {i} and the reference's have infinities in different places"
        distribution = call.name.lower().startswith(DISTRIBUTIONS) and "loss" not in call.name.lower()
        if distribution and i == 0:
            scale = 1e-30
        else:  # a gradient may come from a saved result that was rounded
            scale = max(reach, 1.0 if call.name.lower().startswith("gumbel") else 1e-30)
        scale = max(_largest(b), scale)
        error = float((x - y)[both].abs().max()) if both.any() else 0.0
        if error > TOLERANCE[a.dtype] * scale * (1 if distribution and i == 0 else 10):
            return f"output {i} differs from the reference's by more than rounding, {call.name}"
    return None


def _plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.layout == torch.strided and not x.is_nested and not x.is_quantized


def _largest(x: Tensor) -> float:
    finite = x.detach().double()
    finite = finite[finite.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _no_distribution(call: Call, outputs: list[Tensor]) -> str | None:
    """Check without the reference that p ≥ 0, that its sum is right, and that larger scores get no less probability."""
    name = call.name.lower().replace("_", "")
    p = outputs[0]
    if not name.startswith(tuple(n.replace("_", "") for n in DISTRIBUTIONS)) or "loss" in name or not p.numel():
        return None
    scores = call.arguments.get("X", call.arguments.get("logits"))
    dim = call.arguments.get("dim")
    if not isinstance(scores, Tensor) or not _plain(scores) or not _plain(p) or type(dim) is not int:
        return None
    x, p = (t.detach().double().reshape(t.shape or (1,)).movedim(dim, -1) for t in (scores, p))
    good = (x < torch.inf).all(-1) & (x > -torch.inf).any(-1)
    wanted: Any = 1.0
    if name.startswith("budget"):
        budget = call.arguments["budget"]
        budget = torch.as_tensor(budget, dtype=torch.float64)
        budget = budget.reshape((1,) * (x.ndim - budget.ndim) + budget.shape).movedim(dim, -1).squeeze(-1)
        wanted = torch.minimum(budget, (x > -torch.inf).sum(-1).double())
    if not good.any():
        return None
    tolerance = TOLERANCE.get(outputs[0].dtype, 1e-2) * 5
    if bool((p < 0).any(-1)[good].any()):
        return "a probability is negative"
    if bool(((p.sum(-1) - wanted).abs() > tolerance * (1 + p.sum(-1).abs()))[good].any()):
        return "the sum of the probabilities is wrong"
    if name.startswith("gumbel"):
        return None
    ordered = p.gather(-1, x.argsort(-1))
    if bool((ordered.diff(dim=-1) < -tolerance)[good].any()):
        return "a larger score gets a smaller probability"
    return None


def _imprecise(call: Call, outputs: list[Tensor]) -> str | None:
    """Check that the maps of the entmax family are as accurate as in float64, also for large scores."""
    x, name = call.arguments.get("X"), call.name.lower()
    exact = isinstance(x, Tensor) and x.dtype in (torch.float32, torch.bfloat16, torch.float16) and _plain(x)
    if not exact or "loss" in name or not outputs[0].numel():
        return None
    if torch.as_tensor(call.arguments.get("alpha", 1.5)).max() > 2:  # the map is steep and may lose digits
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = call.function(**{**call.arguments, "X": x.detach().double()})
    error = (outputs[0].double() - expected.detach().double()).abs().nan_to_num()
    if float(error.max()) > 10 * TOLERANCE[x.dtype]:
        return f"{call.name}: the result differs from the result in float64"
    return None
