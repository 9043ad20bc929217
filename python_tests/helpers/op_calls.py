"""Hypothesis strategies for calls of every public op: valid arguments, and arguments of wrong types or values."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from accuracy import DTYPES, EVERY_LAYOUT, with_layout
from hypothesis import strategies as st
from odd_values import HUGE, NUMBERS, odd_values
from torch import Tensor

from automl_ext import ops
from automl_ext.ops import entmax
from automl_ext.ops.networks import ACTIVATIONS

Arguments = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]
Maker = Callable[[Draw], Arguments]
INF = float("inf")
SPECIAL = (float("nan"), INF, -INF, 0.0, -0.0)
ODD = odd_values(torch.linspace(-1, 1, 12).reshape(4, 3))
dtypes, halves = st.sampled_from(DTYPES), st.booleans()


@dataclass
class Call:
    """One call of an op. ``changed`` has the names of the arguments that were replaced; none: the call is valid."""

    name: str
    function: Callable[..., Any]
    arguments: Arguments
    changed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={described(value)}' for name, value in self.arguments.items())})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # for Hypothesis
        printer.text(repr(self))


def described(value: Any) -> str:
    """Return a short text of an argument, also of one without a ``repr``."""
    if isinstance(value, list) and any(isinstance(x, Tensor) for x in value):
        return f"[{', '.join(described(x) for x in value[:3])}{', …' * (len(value) > 3)}]"
    if isinstance(value, Tensor):
        shape = "nested" if value.is_nested else list(value.shape)
        text = f"{str(value.dtype).removeprefix('torch.')}{shape}{value.device if value.device.type != 'cpu' else ''}"
        if not is_plain(value):
            return text
        text += "" if value.is_contiguous() else f"/{list(value.stride())}"
        return f"{text}={value.tolist()}" if value.numel() <= 12 else text
    try:
        return repr(value)[:60]
    except Exception as error:  # an int of 5,000 digits
        return f"<{type(value).__name__} without a repr: {type(error).__name__}>"


def is_plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.layout == torch.strided and not x.is_nested and not x.is_quantized


@st.composite
def calls(draw: Draw, name: str, changes: int = 0) -> Call:
    """Draw a call of an op, with up to ``changes`` of its arguments replaced; at least one, unless it is 0."""
    arguments = {k: draw(laid_out(v)) if isinstance(v, Tensor) else v for k, v in ARGUMENTS[name](draw).items()}
    changed = []
    for _ in range(draw(st.integers(1, changes)) if changes else 0):
        changed.append(draw(st.sampled_from([key for key in arguments if key != "given"])))
        arguments[changed[-1]] = draw(replacements(arguments[changed[-1]]))
    function = WRAPPED.get(name) or getattr(ops, name, None) or getattr(entmax, name)
    return Call(name, function, arguments, tuple(changed))


@st.composite
def replacements(draw: Draw, value: Any) -> Any:
    """Draw a value in place of a valid one: a variant of it, or a value of another kind."""
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        i = draw(st.integers(0, len(value) - 1))
        return [*value[:i], draw(replacements(value[i])), *value[i + 1 :]]
    if isinstance(value, Tensor) and draw(st.integers(0, 2)):
        return draw(variants(value))
    if isinstance(value, (int, float)) and draw(halves):
        return draw(st.integers(-10, 10) | st.sampled_from([*NUMBERS, *HUGE]))
    return draw(st.sampled_from(ODD))


# Tensors of another dtype, shape, layout, device or range. Not every dtype has every layout.
VARIANTS: dict[str, Callable[[Tensor], Any]] = {
    "float32": Tensor.float,
    "float64": Tensor.double,
    "float16": Tensor.half,
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "int64": Tensor.long,
    "int32": Tensor.int,
    "uint8": Tensor.byte,
    "bool": Tensor.bool,
    "complex": lambda x: x.to(torch.complex64),
    "one more dimension": lambda x: x.unsqueeze(0),
    "one more dimension, the last": lambda x: x.unsqueeze(-1),
    "flat": Tensor.flatten,
    "one column": lambda x: x[..., :1],
    "empty": lambda x: x[:0],
    "doubled": lambda x: torch.cat([x, x]),
    "transposed": lambda x: x.transpose(0, -1),
    "a scalar": lambda x: x.new_zeros(()),
    "five dimensions": lambda x: x.new_zeros(1, 1, 1, 1, 1),
    "another shape": lambda x: x.new_zeros(7, 5),
    "another empty shape": lambda x: x.new_zeros(2, 0),
    "meta": lambda x: x.to("meta"),
    "sparse": Tensor.to_sparse,
    "sparse rows": Tensor.to_sparse_csr,
    "quantized": lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
    "nested": lambda x: torch.nested.nested_tensor([torch.randn(2), torch.randn(3)]),
    "an array": lambda x: x.float().numpy(),
    "a list": Tensor.tolist,
    "opposite": lambda x: -x if x.is_floating_point() else ~x,
    "not a number": lambda x: torch.full_like(x, SPECIAL[0]),
    "infinite": lambda x: torch.full_like(x, INF),
    "large": lambda x: x * torch.finfo(x.dtype).max,
    "tiny": lambda x: x * torch.finfo(x.dtype).tiny,
    "one value": lambda x: x.as_strided(x.shape, [0] * x.ndim),
    "with gradient": lambda x: x.clone().requires_grad_(),
}


@st.composite
def variants(draw: Draw, x: Tensor) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about prototype features
            return VARIANTS[draw(st.sampled_from(list(VARIANTS)))](x)
    except (RuntimeError, NotImplementedError, TypeError, IndexError):
        return None


@st.composite
def laid_out(draw: Draw, x: Tensor) -> Tensor:
    """Draw the same values with other strides, offset, bits or class, in a third of the cases."""
    if draw(st.integers(0, 2)) < 2:
        return x
    layout = draw(st.sampled_from([*EVERY_LAYOUT, "parameter"]))
    if layout == "parameter":
        return torch.nn.Parameter(x.clone(), requires_grad=False) if x.is_floating_point() else x
    return with_layout(x, layout)


@st.composite
def shapes(draw: Draw, dims: Sequence[int] = (1, 2, 3, 4), largest: int = 20) -> list[int]:
    size = [draw(st.integers(1, 3) | st.integers(1, largest)) for _ in range(draw(st.sampled_from(dims)))]
    if size and draw(rarely(20)):
        size[draw(st.integers(0, len(size) - 1))] = draw(st.sampled_from([64, 100, 1025, 3000]))
    return size


def rarely(n: int) -> st.SearchStrategy[bool]:
    """Draw True in one of ``n`` cases."""
    return st.integers(1, n).map(lambda i: i == n)


@st.composite
def floats(draw: Draw, size: Sequence[int], dtype: torch.dtype, wild: bool = True) -> Tensor:
    """Draw normal random numbers of a random scale; with ``wild``, also ties, zeros, NaN, ±∞ and extreme scales."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    x = torch.randn(size, generator=generator, dtype=torch.float64) * draw(st.sampled_from([1, 1, 1, 5, 30, 1e-3]))
    if wild and x.numel():
        if draw(rarely(10)):
            x = x.round()
        if draw(rarely(8)):
            places = st.lists(st.integers(0, x.numel() - 1), min_size=1, max_size=5)
            x.view(-1)[draw(places)] = draw(st.sampled_from(SPECIAL))
        if x.ndim and draw(rarely(30)):
            x[draw(st.integers(0, len(x) - 1))] = draw(st.sampled_from([-INF, 0.0, 7.0]))
        if draw(rarely(12)):
            x *= draw(st.sampled_from([1e4, 1e7, 1e8, 1e-8, 1e30, 1e-40]))
    return x.to(dtype)


@st.composite
def flags(draw: Draw, size: Sequence[int], shares: Sequence[float]) -> Tensor:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    return torch.rand(size, generator=generator) < draw(st.sampled_from(shares))


@st.composite
def indices(draw: Draw, size: Sequence[int], below: int) -> Tensor:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    return torch.randint(below, size, generator=generator)


def dim_of(draw: Draw, size: Sequence[int]) -> int:
    ndim = max(len(size), 1)
    return draw(st.integers(-ndim, ndim - 1))


def scores(draw: Draw) -> tuple[list[int], Tensor, int]:
    size = draw(shapes((0, 1, 2, 3, 4), 40))
    return size, draw(floats(size, draw(dtypes))), dim_of(draw, size)


def gumbel(draw: Draw) -> Arguments:
    _, logits, dim = scores(draw)
    tau, seed = draw(st.floats(0.05, 30)), draw(st.integers(-(2**63), 2**63 - 1))
    return {
        "logits": logits,
        "tau": torch.tensor(tau) if draw(rarely(5)) else tau,
        "hard": draw(halves),
        "dim": dim,
        "seed": torch.tensor(seed) if draw(rarely(5)) else seed,
        "return_index": draw(halves),
    }


def argmax(draw: Draw) -> Arguments:
    made = gumbel(draw)
    return {name: made[name] for name in ("logits", "dim", "seed")}


def exact(draw: Draw) -> Arguments:
    _, x, dim = scores(draw)
    return {"X": x, "dim": dim, "k": draw(st.sampled_from([None, 1, 5]))}


def row_parameter(draw: Draw, size: list[int], dim: int, number: st.SearchStrategy[float]) -> Any:
    """Draw a number, or a tensor with one number per row."""
    if not size or draw(halves):
        return draw(number)
    rows = [1 if i == dim % len(size) or draw(rarely(3)) else n for i, n in enumerate(size)]
    few = [draw(number) for _ in range(4)]
    return torch.tensor(few)[draw(indices(rows, len(few)))]


def bisect(low: float) -> Maker:
    def make(draw: Draw) -> Arguments:
        size, x, dim = scores(draw)
        alpha = row_parameter(draw, size, dim, st.sampled_from([low, 1.2, 1.5, 2.0, 20.0]) | st.floats(low, 4))
        return {"X": x, "alpha": alpha, "dim": dim, "n_iter": draw(st.sampled_from([50, 10**6]))}

    return make


def sparsemax_bisect(draw: Draw) -> Arguments:
    _, x, dim = scores(draw)
    return {"X": x, "dim": dim, "n_iter": draw(st.sampled_from([50, 1, 10**6])), "ensure_sum_one": draw(halves)}


def budget(draw: Draw) -> Arguments:
    size, x, dim = scores(draw)
    most = size[dim] if size else 1
    number = st.sampled_from([1.0, most / 2, most, 0.0]) | st.floats(0.01, most)
    return {"X": x, "budget": row_parameter(draw, size, dim, number), "dim": dim, "n_iter": 50}


def loss(low: float | None = None, module: bool = False) -> Maker:
    def make(draw: Draw) -> Arguments:
        size = draw(shapes((1, 2, 3), 30))
        made = {"X": draw(floats(size, draw(dtypes))), "target": draw(indices(size[:-1], size[-1]))}
        if low is not None:
            made["alpha"] = draw(st.sampled_from([1.5, 2.0, 1.2, 3.0, low]))
        if module:
            made["ignore_index"] = draw(st.sampled_from([-100, 0, 1]))
            made["reduction"] = draw(st.sampled_from(["elementwise_mean", "mean", "sum", "none"]))
        return made

    return make


def mixed(draw: Draw, edges: int = 0) -> Arguments:
    size, dtype, k = draw(shapes((0, 1, 2, 4), 12)), draw(dtypes), draw(st.integers(1, 8))

    def edge() -> list[Any]:
        given = [draw(laid_out(draw(floats(size, dtype)))) for _ in range(k)]
        return [None if i and draw(rarely(5)) else x for i, x in enumerate(given)]

    weights = draw(floats([edges, k] if edges else [k], dtype, wild=False))
    if draw(rarely(3)):
        weights[..., draw(st.integers(0, k - 1))] = 0
    return {"inputs": [edge() for _ in range(edges)] if edges else edge(), "weights": weights}


def cell(draw: Draw) -> Arguments:
    return mixed(draw, draw(st.integers(1, 4)))


unit = st.sampled_from([0, 1, 0.0, 1.0, 0.99]) | st.floats(0, 1)
clips = st.sampled_from([1.0, 0.5, 2, INF])


def steps(*names: str, **numbers: st.SearchStrategy[Any]) -> Maker:
    """Return a maker for an op of returns: float tensors by name, flags, and numbers."""

    def make(draw: Draw) -> Arguments:
        size, dtype = draw(shapes((1, 2, 3), 30)), draw(dtypes)
        # A discount that is infinite gives 0 · ∞, whose place depends on the order of the products.
        made: Arguments = {name: draw(floats(size, dtype, wild=name != "discounts")) for name in names}
        made |= {name: draw(flags(size, [0, 0.1, 0.5, 1])) for name in ("terminated", "truncated")}
        made |= {name: draw(number) for name, number in numbers.items()}
        made["valid"] = draw(flags(size, [0, 0.8, 1])) if draw(halves) else None
        return made | {"time_dim": dim_of(draw, size) if draw(rarely(4)) else 0}

    return make


def transitions(draw: Draw) -> tuple[list[int], torch.dtype, Arguments]:
    size, dtype = draw(shapes((0, 1, 2), 30)), draw(dtypes)
    discounts = draw(floats(size, dtype, wild=False)).sigmoid() if draw(halves) else draw(st.floats(0, 1))
    made = {"rewards": draw(floats(size, dtype)), "terminated": draw(flags(size, [0.3])), "discounts": discounts}
    return size, dtype, made


def td(draw: Draw) -> Arguments:
    size, dtype, made = transitions(draw)
    q = floats([*size, draw(st.integers(1, 18))], dtype)
    return made | {"next_q": draw(q), "next_q_online": draw(q) if draw(halves) else None}


def projection(draw: Draw) -> Arguments:
    size, dtype, made = transitions(draw)
    probs = draw(floats([*size, draw(st.sampled_from([2, 3, 51]))], dtype, wild=False)).softmax(-1)
    low = draw(st.floats(-10, 1))
    return made | {"next_probs": probs, "v_min": low, "v_max": low + draw(st.sampled_from([1e-3, 1, 20]))}


def categorical(draw: Draw) -> Arguments:
    size = draw(shapes((1, 2, 3), 30))
    return {"logits": draw(floats(size, draw(dtypes))), "actions": draw(indices(size[:-1], size[-1]))}


def policy_gradient(draw: Draw) -> Arguments:
    one = floats(draw(shapes((0, 1, 2), 30)), draw(dtypes), wild=False)
    made: Arguments = {name: draw(one) for name in ("log_probs", "entropy", "values", "advantages", "returns")}
    made |= {name: draw(one) if draw(halves) else None for name in ("old_log_probs", "old_values", "weights")}
    if made["old_log_probs"] is not None:  # a ratio of probabilities that is infinite gives 0 · ∞ in the reference
        made |= {name: made[name].clamp(-20, 20) for name in ("log_probs", "old_log_probs")}
    made |= {name: draw(clips) for name in ("clip", "value_clip")}
    return made | {name: draw(unit) for name in ("vf_coef", "ent_coef")}


def mlp(draw: Draw) -> Arguments:
    size, dtype = draw(shapes((1, 2, 3), 12)), draw(dtypes)
    sizes = [size[-1], *draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))]
    networks = draw(st.sampled_from([[], [1], [3]]))
    stacked = bool(networks) and draw(halves)

    def parameters(*tail: list[int]) -> list[Tensor]:
        return [draw(laid_out(draw(floats([*networks, *size], dtype, wild=False)))) for size in tail]

    return {
        # silu(−∞) is NaN in PyTorch, and 0 in the kernels.
        "x": draw(floats([*networks, *size] if stacked else size, dtype)).clamp(-1e4, 1e4),
        "weights": parameters(*([outputs, inputs] for inputs, outputs in pairwise(sizes))),
        "biases": parameters(*([outputs] for outputs in sizes[1:])) if draw(halves) else None,
        "activation": draw(st.sampled_from(list(ACTIVATIONS))),
        "activate_last": draw(halves),
        "stacked_x": stacked,
    }


def attention(draw: Draw) -> Arguments:
    dtype, group = draw(dtypes), draw(st.sampled_from([1, 2]))
    queries, keys, width, value_width = (draw(st.sampled_from([0, 1, 3, 17, 50, 70])) for _ in range(4))
    sizes = {"query": [2, 2 * group, queries, width], "key": [2, 2, keys, width], "value": [2, 2, keys, value_width]}
    # The compiled op leaves out values of weight 0, where the reference multiplies a NaN by 0. It pads queries and keys
    # with 0, which gives NaN with an infinite one.
    made: Arguments = {n: draw(floats(size, dtype, wild=n != "value")).clamp(-1e4, 1e4) for n, size in sizes.items()}
    mask_size = draw(st.sampled_from([[queries, keys], [2, 1, 1, keys], [1, keys]]))
    mask = draw(st.none() | flags(mask_size, [0.6]) | floats(mask_size, torch.float32))
    made |= {"attn_mask": mask, "is_causal": mask is None and draw(halves)}
    return made | {"scale": draw(st.sampled_from([None, 0.0, 1.0, -0.5])), "enable_gqa": group > 1}


def gru(draw: Draw) -> Arguments:
    size, dtype, n = draw(shapes((1, 2, 3), 12)), draw(dtypes), draw(st.integers(1, 12))
    sizes = {"x": size, "h": [*size[:-1], n], "w_ih": [3 * n, size[-1]], "w_hh": [3 * n, n]}
    sizes |= {"b_ih": [3 * n], "b_hh": [3 * n]} if draw(halves) else {}
    return {name: draw(floats(size, dtype, wild=name == "x")) for name, size in sizes.items()}


def fused_mlp(draw: Draw) -> Arguments:
    inputs, *hidden, outputs = draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    activation = draw(st.sampled_from(list(ACTIVATIONS)))
    return {"inputs": inputs, "hidden": hidden, "outputs": outputs, "activation": activation}


def given_tensor(draw: Draw) -> Tensor:
    return draw(floats(draw(shapes()), torch.float32))


MAPS = {
    "entmax15": exact,
    "sparsemax": exact,
    "entmax_bisect": bisect(1.0),
    "normmax_bisect": bisect(1.0001),
    "sparsemax_bisect": sparsemax_bisect,
    "budget_bisect": budget,
}
LOSSES = {  # the smallest alpha
    "sparsemax_loss": None,
    "entmax15_loss": None,
    "sparsemax_bisect_loss": None,
    "entmax_bisect_loss": 1.0,
    "normmax_bisect_loss": 1.0001,
}


def title(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


# The only list of ops here: a test compares it with the public names.
ARGUMENTS: dict[str, Maker] = {
    **MAPS,
    **{title(name): maker for name, maker in MAPS.items()},
    **{name: loss(low) for name, low in LOSSES.items()},
    **{title(name): loss(low, module=True) for name, low in LOSSES.items()},
    "gumbel_softmax": gumbel,
    "gumbel_entmax15": gumbel,
    "gumbel_argmax": argmax,
    "mixed_op": mixed,
    "cell_aggregate": cell,
    "mlp": mlp,
    "gru_cell": gru,
    "entmax15_attention": attention,
    "categorical_log_probs": categorical,
    "policy_gradient_loss": policy_gradient,
    "td_targets": td,
    "categorical_projection": projection,
    "discounted_returns": steps("rewards", "next_values", gamma=unit),
    "n_step_returns": steps("rewards", "next_values", gamma=unit, n=st.integers(1, 40)),
    "gae": steps("rewards", "values", "next_values", gamma=unit, lam=unit),
    "lambda_returns": steps("rewards", "next_values", "discounts", gamma=unit, lam=unit),
    "vtrace": steps("log_rhos", "rewards", "values", "next_values", gamma=unit, lam=unit, rho_clip=clips, c_clip=clips),
    "retrace": steps("log_rhos", "q_values", "rewards", "next_values", gamma=unit, lam=unit),
    "MixedOp": lambda draw: {
        "given": given_tensor(draw),
        "weights": draw(floats([3], torch.float32, wild=False)),
    },
    "GumbelMixedOp": lambda draw: {
        "given": given_tensor(draw),
        "tau": draw(st.sampled_from([0.1, 1])),
        "sparse": draw(halves),
    },
    "FusedMLP": fused_mlp,
    "EntmaxMultiheadAttention": lambda draw: {"given": draw(floats([2, 3, 4], torch.float32, wild=False))},
}


def entmax_module(name: str) -> Callable[..., Tensor]:
    """Return a module of the entmax family as a function of its constructor's arguments, ``X`` and ``target``."""

    def function(**arguments: Any) -> Tensor:
        tensors = [arguments.pop(key) for key in ("X", "target") if key in arguments]
        arguments.pop("ensure_sum_one", None)  # no module has it
        module: Tensor = getattr(entmax, name)(**arguments)(*tensors)
        return module

    return function


def branches() -> list[torch.nn.Module]:
    return [torch.nn.Identity(), torch.nn.Tanh(), torch.nn.ReLU()]


def fused(**sizes: Any) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ops.FusedMLP(**sizes)
        return network(torch.randn(3, sizes["inputs"]))


def multihead(given: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ops.EntmaxMultiheadAttention(4, 2, batch_first=True)(given, given, given, need_weights=False)[0]


def gumbel_mixed(given: Tensor, tau: Any, sparse: Any) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ops.GumbelMixedOp(branches(), tau=tau, sparse=sparse)(given)


# Modules, as functions of the arguments above.
WRAPPED: dict[str, Callable[..., Any]] = {
    **{title(name): entmax_module(title(name)) for name in (*MAPS, *LOSSES)},
    "MixedOp": lambda given, weights: ops.MixedOp(branches())(given, weights),
    "GumbelMixedOp": gumbel_mixed,
    "FusedMLP": fused,
    "EntmaxMultiheadAttention": multihead,
}


def parameters(call: Call) -> set[str]:
    """Return the names that an error may name."""
    target = getattr(ops, call.name, None) or getattr(entmax, call.name, call.function)
    return {*inspect.signature(target).parameters, *call.arguments}
