"""Make valid random arguments for each public op."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from automl_ext.ops import entmax
from automl_ext.ops.networks import ACTIVATIONS
from fuzzing.ops import values

Arguments = dict[str, Any]
Maker = Callable[[random.Random], Arguments]


def _dim(rng: random.Random, size: list[int]) -> int:
    ndim = max(len(size), 1)
    return rng.randint(-ndim, ndim - 1)


def _scores(rng: random.Random) -> tuple[list[int], Tensor, int]:
    size = values.shape(rng, (0, 1, 2, 2, 3, 4), 40)
    return size, values.floats(rng, size, rng.choice(values.FLOATS)), _dim(rng, size)


def _gumbel(rng: random.Random) -> Arguments:
    _, logits, dim = _scores(rng)
    tau: Any = 10 ** rng.uniform(-1.3, 1.5)
    seed: Any = rng.randint(-(2**63), 2**63 - 1)
    return {
        "logits": logits,
        "tau": torch.tensor(tau) if rng.random() < 0.2 else tau,
        "hard": rng.random() < 0.5,
        "dim": dim,
        "seed": torch.tensor(seed) if rng.random() < 0.2 else seed,
        "return_index": rng.random() < 0.5,
    }


def _argmax(rng: random.Random) -> Arguments:
    made = _gumbel(rng)
    return {name: made[name] for name in ("logits", "dim", "seed")}


def _exact(rng: random.Random) -> Arguments:
    _, x, dim = _scores(rng)
    return {"X": x, "dim": dim, "k": rng.choice((None, None, 1, 5))}


def _row_parameter(rng: random.Random, size: list[int], dim: int, value: Callable[[], float]) -> Any:
    """Return a number, or a tensor with one number per row."""
    if rng.random() < 0.6 or not size:
        return value()
    rows = [1 if i == dim % len(size) or rng.random() < 0.3 else n for i, n in enumerate(size)]
    flat = [value() for _ in range(max(1, torch.Size(rows).numel()))]
    return torch.tensor(flat).view(rows)


def _bisect(low: float) -> Maker:
    def make(rng: random.Random) -> Arguments:
        size, x, dim = _scores(rng)
        alpha = _row_parameter(rng, size, dim, lambda: rng.choice((low, 1.2, 1.5, 2.0, rng.uniform(low, 4), 20.0)))
        return {"X": x, "alpha": alpha, "dim": dim, "n_iter": rng.choice((50, 50, 10**6))}

    return make


def _sparsemax_bisect(rng: random.Random) -> Arguments:
    _, x, dim = _scores(rng)
    return {"X": x, "dim": dim, "n_iter": rng.choice((50, 1, 10**6)), "ensure_sum_one": rng.random() < 0.5}


def _budget(rng: random.Random) -> Arguments:
    size, x, dim = _scores(rng)
    most = size[dim] if size else 1
    budget = _row_parameter(rng, size, dim, lambda: rng.choice((1.0, most / 2, most, 0.0, rng.uniform(0, most))))
    return {"X": x, "budget": budget, "dim": dim, "n_iter": rng.choice((50, 50, 10**6))}


def _loss(low: float | None = None) -> Maker:
    def make(rng: random.Random) -> Arguments:
        size = values.shape(rng, (1, 2, 2, 3), 30)
        target = torch.tensor([rng.randrange(size[-1]) for _ in range(torch.Size(size[:-1]).numel())]).view(size[:-1])
        made: Arguments = {"X": values.floats(rng, size, rng.choice(values.FLOATS)), "target": target.long()}
        if low is not None:
            made["alpha"] = rng.choice((1.5, 2.0, 1.2, 3.0, low))
        return made

    return make


def _mixed(rng: random.Random, edges: int = 0) -> Arguments:
    size, dtype, k = values.shape(rng, (0, 1, 2, 4, 4), 12), rng.choice(values.FLOATS), rng.randint(1, 8)

    def edge() -> list[Any]:
        given = [values.laid_out(rng, values.floats(rng, size, dtype)) for _ in range(k)]
        return [x if rng.random() < 0.8 or i == 0 else None for i, x in enumerate(given)]

    weights = values.floats(rng, [edges, k] if edges else [k], dtype, wild=False)
    if rng.random() < 0.3:
        weights[..., rng.randrange(k)] = 0
    return {"inputs": [edge() for _ in range(edges)] if edges else edge(), "weights": weights}


def _cell(rng: random.Random) -> Arguments:
    return _mixed(rng, rng.randint(1, 4))


def _steps(*names: str, **numbers: Callable[[random.Random], Any]) -> Maker:
    """Return a maker for a function of the returns family: float tensors by name, flags, and numbers."""

    def make(rng: random.Random) -> Arguments:
        size, dtype = values.shape(rng, (1, 2, 2, 2, 3), 30), rng.choice(values.FLOATS)
        made: Arguments = {name: values.floats(rng, size, dtype) for name in names}
        made |= {name: values.flags(rng, size, rng.choice((0, 0.1, 0.5, 1))) for name in ("terminated", "truncated")}
        made |= {name: draw(rng) for name, draw in numbers.items()}
        made["valid"] = values.flags(rng, size, rng.choice((0, 0.8, 1))) if rng.random() < 0.5 else None
        return made | {"time_dim": rng.choice((0, 0, 0, _dim(rng, size)))}

    return make


def _transitions(rng: random.Random) -> tuple[list[int], torch.dtype, Arguments]:
    size, dtype = values.shape(rng, (0, 1, 1, 2), 30), rng.choice(values.FLOATS)
    discounts = values.floats(rng, size, dtype, wild=False).sigmoid() if rng.random() < 0.5 else rng.random()
    made = {"rewards": values.floats(rng, size, dtype), "terminated": values.flags(rng, size, 0.3)}
    return size, dtype, made | {"discounts": discounts}


def _td(rng: random.Random) -> Arguments:
    size, dtype, made = _transitions(rng)
    actions = rng.randint(1, 18)
    online = values.floats(rng, [*size, actions], dtype) if rng.random() < 0.5 else None
    return made | {"next_q": values.floats(rng, [*size, actions], dtype), "next_q_online": online}


def _projection(rng: random.Random) -> Arguments:
    size, dtype, made = _transitions(rng)
    probs = values.floats(rng, [*size, rng.choice((2, 3, 51))], dtype, wild=False).softmax(-1)
    low = rng.uniform(-10, 1)
    return made | {"next_probs": probs, "v_min": low, "v_max": low + rng.choice((1e-3, 1, 20))}


def _categorical(rng: random.Random) -> Arguments:
    size = values.shape(rng, (1, 2, 2, 3), 30)
    actions = [rng.randrange(size[-1]) for _ in range(torch.Size(size[:-1]).numel())]
    logits = values.floats(rng, size, rng.choice(values.FLOATS))
    return {"logits": logits, "actions": torch.tensor(actions).view(size[:-1])}


def _policy_gradient(rng: random.Random) -> Arguments:
    size, dtype = values.shape(rng, (0, 1, 1, 2), 30), rng.choice(values.FLOATS)

    def steps() -> Tensor:
        return values.floats(rng, size, dtype, wild=False)

    made: Arguments = {name: steps() for name in ("log_probs", "entropy", "values", "advantages", "returns")}
    made |= {name: rng.choice((None, steps())) for name in ("old_log_probs", "old_values", "weights")}
    return made | {"clip": _clip(rng), "value_clip": _clip(rng), "vf_coef": _unit(rng), "ent_coef": _unit(rng)}


def _mlp(rng: random.Random) -> Arguments:
    size, dtype = values.shape(rng, (1, 2, 2, 3), 12), rng.choice(values.FLOATS)
    sizes = [size[-1], *(rng.randint(1, 20) for _ in range(rng.randint(1, 3)))]
    networks = rng.choice(([], [], [1], [3]))
    stacked = bool(networks) and rng.random() < 0.5

    def parameters(*tail: list[int]) -> list[Tensor]:
        return [values.laid_out(rng, values.floats(rng, [*networks, *size], dtype, wild=False)) for size in tail]

    weights = parameters(*([outputs, inputs] for inputs, outputs in pairwise(sizes)))
    return {
        "x": values.floats(rng, [*networks, *size] if stacked else size, dtype),
        "weights": weights,
        "biases": rng.choice((None, parameters(*([outputs] for outputs in sizes[1:])))),
        "activation": rng.choice(list(ACTIVATIONS)),
        "activate_last": rng.random() < 0.5,
        "stacked_x": stacked,
    }


def _attention(rng: random.Random) -> Arguments:
    dtype, group = rng.choice(values.FLOATS), rng.choice((1, 1, 2))
    queries, keys, width, value_width = (rng.choice((0, 1, 3, 17, 50, 70)) for _ in range(4))
    shapes = {"query": [2, 2 * group, queries, width], "key": [2, 2, keys, width], "value": [2, 2, keys, value_width]}
    made: Arguments = {name: values.laid_out(rng, values.floats(rng, size, dtype)) for name, size in shapes.items()}
    mask_shape = rng.choice(([queries, keys], [2, 1, 1, keys], [1, keys]))
    flags = torch.tensor([rng.random() < 0.6 for _ in range(torch.Size(mask_shape).numel())]).view(mask_shape)
    mask = rng.choice((None, None, flags, values.floats(rng, mask_shape, torch.float32)))
    is_causal = mask is None and rng.random() < 0.5
    scale = rng.choice((None, 0.0, 1.0, -0.5))
    return made | {"attn_mask": mask, "is_causal": is_causal, "scale": scale, "enable_gqa": group > 1}


def _gru(rng: random.Random) -> Arguments:
    size, dtype, n = values.shape(rng, (1, 2, 2, 3), 12), rng.choice(values.FLOATS), rng.randint(1, 12)
    shapes = {"x": size, "h": [*size[:-1], n], "w_ih": [3 * n, size[-1]], "w_hh": [3 * n, n]}
    if rng.random() < 0.5:
        shapes |= {"b_ih": [3 * n], "b_hh": [3 * n]}
    return {name: values.floats(rng, size, dtype, wild=name == "x") for name, size in shapes.items()}


def _fused_mlp(rng: random.Random) -> Arguments:
    inputs, *hidden, outputs = (rng.randint(1, 12) for _ in range(rng.randint(2, 4)))
    return {"inputs": inputs, "hidden": hidden, "outputs": outputs, "activation": rng.choice(list(ACTIVATIONS))}


def _module_loss(loss: Maker) -> Maker:
    def make(rng: random.Random) -> Arguments:
        kinds = ("elementwise_mean", "mean", "sum", "none")
        return loss(rng) | {"ignore_index": rng.choice((-100, 0, 1)), "reduction": rng.choice(kinds)}

    return make


def _x(rng: random.Random) -> Tensor:
    return values.floats(rng, values.shape(rng), rng.choice(values.FLOATS))


def _unit(rng: random.Random) -> float:
    return rng.choice((0, 1, 0.0, 1.0, 0.99, rng.random()))


def _clip(rng: random.Random) -> float:
    return rng.choice((1.0, 0.5, 2, float("inf")))


_G, _GL = {"gamma": _unit}, {"gamma": _unit, "lam": _unit}
_STEPS = {
    "discounted_returns": _steps("rewards", "next_values", **_G),
    "n_step_returns": _steps("rewards", "next_values", **_G, n=lambda rng: rng.randint(1, 40)),
    "gae": _steps("rewards", "values", "next_values", **_GL),
    "lambda_returns": _steps("rewards", "next_values", "discounts", **_GL),
    "vtrace": _steps("log_rhos", "rewards", "values", "next_values", **_GL, rho_clip=_clip, c_clip=_clip),
    "retrace": _steps("log_rhos", "q_values", "rewards", "next_values", **_GL),
}
FUNCTIONS: dict[str, Maker] = {
    "gumbel_softmax": _gumbel,
    "gumbel_entmax15": _gumbel,
    "gumbel_argmax": _argmax,
    "entmax15": _exact,
    "sparsemax": _exact,
    "entmax_bisect": _bisect(1.0),
    "normmax_bisect": _bisect(1.0001),
    "sparsemax_bisect": _sparsemax_bisect,
    "budget_bisect": _budget,
    "sparsemax_loss": _loss(),
    "entmax15_loss": _loss(),
    "sparsemax_bisect_loss": _loss(),
    "entmax_bisect_loss": _loss(1.0),
    "normmax_bisect_loss": _loss(1.0001),
    "mixed_op": _mixed,
    "cell_aggregate": _cell,
    "mlp": _mlp,
    "gru_cell": _gru,
    "entmax15_attention": _attention,
    "categorical_log_probs": _categorical,
    "policy_gradient_loss": _policy_gradient,
    "td_targets": _td,
    "categorical_projection": _projection,
    **_STEPS,
}


def _modules() -> dict[str, Maker]:
    """Return makers for the modules of the entmax family, which are named as their functions."""
    found = {}
    for name, maker in FUNCTIONS.items():
        module = "".join(word.capitalize() for word in name.split("_"))
        if module in entmax.__all__:
            found[module] = _module_loss(maker) if "loss" in name else maker
    return found


MODULES: dict[str, Maker] = {
    **_modules(),
    "MixedOp": lambda rng: {"given": _x(rng).float(), "weights": values.floats(rng, [3], torch.float32, wild=False)},
    "GumbelMixedOp": lambda rng: {"given": _x(rng).float(), "tau": rng.choice((0.1, 1)), "sparse": rng.random() < 0.5},
    "FusedMLP": _fused_mlp,
    "EntmaxMultiheadAttention": lambda rng: {"given": values.floats(rng, [2, 3, 4], torch.float32, wild=False)},
}
