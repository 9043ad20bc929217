"""Make random calls of the public ops: valid calls, and calls with one or two arguments replaced."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from automl_ext import ops
from automl_ext.ops import entmax as sparse_maps
from fuzzing.ops import values
from fuzzing.ops.arguments import FUNCTIONS, MODULES, Arguments

MAKERS = FUNCTIONS | MODULES


@dataclass
class Call:
    """One call. ``mutated`` has the names of the replaced arguments."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[str, ...]
    arguments: Arguments
    mutated: tuple[str, ...]


def call(rng: random.Random) -> Call:
    """Make a random call. 45 % of the calls are valid."""
    name = rng.choice(list(MAKERS))
    arguments = {k: values.laid_out(rng, v) if isinstance(v, Tensor) else v for k, v in MAKERS[name](rng).items()}
    target = WRAPPED.get(name) or getattr(ops, name, None) or getattr(sparse_maps, name)
    parameters = (*inspect.signature(target).parameters, *arguments)
    mutated: list[str] = []
    for _ in range(rng.choice((0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2))):
        mutated.append(_mutate(rng, arguments))
    return Call(name, target, parameters, arguments, tuple(mutated))


def _mutate(rng: random.Random, arguments: Arguments) -> str:
    name = rng.choice([name for name in arguments if name != "given"])  # the input of the caller's own modules
    value = arguments[name]
    if isinstance(value, list) and value and rng.random() < 0.7:  # the inputs of mixed_op and cell_aggregate
        i = rng.randrange(len(value))
        if isinstance(value[i], list):
            inner = {"edge": value[i]}
            _mutate(rng, inner)
            new = inner["edge"]
        else:
            new = _replaced(rng, value[i])
        arguments[name] = [*value[:i], new, *value[i + 1 :]]
    else:
        arguments[name] = _replaced(rng, value)
    return name


def _replaced(rng: random.Random, value: Any) -> Any:
    if isinstance(value, Tensor) and rng.random() < 0.65:
        return values.odd_tensor(rng, value)
    if isinstance(value, (int, float)) and rng.random() < 0.5:
        return rng.choice((rng.randint(-10, 10), rng.choice(values.NUMBERS), rng.choice(values.HUGE)))
    return values.not_a_tensor(rng)


def _module(name: str) -> Callable[..., Tensor]:
    """Return a module of the entmax family as a function of its constructor's arguments and ``X`` (and ``target``)."""

    def function(**arguments: Any) -> Tensor:
        tensors = [arguments.pop(key) for key in ("X", "target") if key in arguments]
        arguments.pop("ensure_sum_one", None)  # no module has it
        return getattr(sparse_maps, name)(**arguments)(*tensors)

    return function


def _mixed_module(weights: Any, given: Any) -> Tensor:
    return ops.MixedOp([torch.nn.Identity(), torch.nn.Tanh(), torch.nn.ReLU()])(given, weights)


def _gumbel_module(given: Any, tau: Any, sparse: Any) -> Tensor:
    torch.manual_seed(0)
    return ops.GumbelMixedOp([torch.nn.Identity(), torch.nn.Tanh(), torch.nn.ReLU()], tau=tau, sparse=sparse)(given)


def _fused_mlp(**sizes: Any) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ops.FusedMLP(**sizes)
        return network(torch.randn(3, sizes["inputs"]))


def _attention_module(given: Any) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ops.EntmaxMultiheadAttention(4, 2, batch_first=True)(given, given, given, need_weights=False)[0]


# Callables that are not attributes of the package under their own names.
WRAPPED: dict[str, Callable[..., Any]] = {
    **{name: _module(name) for name in MODULES},
    "MixedOp": _mixed_module,
    "GumbelMixedOp": _gumbel_module,
    "FusedMLP": _fused_mlp,
    "EntmaxMultiheadAttention": _attention_module,
}
