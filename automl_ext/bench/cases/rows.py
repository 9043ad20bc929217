"""Cases of rows (Gumbel, entmax), of mixed-op aggregation, and of distributional and plain Q-learning."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import automl_ext as a
from automl_ext.bench.cases import laws
from automl_ext.bench.cases.case import Case, Function, by_reference
from automl_ext.bench.cases.peers import entmax_peers
from automl_ext.ops.entmax import entmax_bisect
from automl_ext.ops.entmax._bisect import bisect_reference
from automl_ext.ops.entmax._reference import _entmax15_reference, _sparsemax_reference

Modules = dict[str, Any]
SEED = 7
ALPHA = 1.3  # of entmax_bisect: 1.5 and 2 are ops of their own


def perturb(x: Tensor) -> Tensor:
    return x - torch.empty_like(x).exponential_().log()


@functools.cache
def seed_on(device: torch.device) -> Tensor:
    """Return a fixed seed. Kept, since a CUDA graph cannot copy it from the host."""
    return torch.tensor(SEED, device=device)


def softmax(x: Tensor) -> Tensor:
    return x.softmax(-1)


def row_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: Modules) -> list[Case]:
    def row(op: str, ours: Function, eager: Function, **others: Any) -> Case:
        return Case(
            op,
            shape,
            dtype,
            lambda: [torch.randn(shape, device=device).to(dtype)],
            ours,
            eager,
            lambda tensors, at: [tensors[0][at]],
            lambda y, at: y[at],
            shape[0],
            **others,
        )

    def sampler(op: str, ours: Function, eager: Function, law: Any, **others: Any) -> Case:
        def seeded(x: Tensor) -> Any:
            return ours(x, seed=seed_on(x.device))

        return row(op, ours, eager, seeded=seeded, law=laws.law(law), from_the_front=True, softmax=softmax, **others)

    def hard(x: Tensor, seed: Tensor | None = None) -> Any:
        return a.gumbel_softmax(x, hard=True, seed=seed)

    return [
        row(
            "entmax15",
            a.entmax15,
            lambda x: _entmax15_reference(x, -1),
            peers=entmax_peers(modules, "entmax15"),
            softmax=softmax,
        ),
        row(
            "sparsemax",
            a.sparsemax,
            lambda x: _sparsemax_reference(x, -1),
            peers=entmax_peers(modules, "sparsemax"),
            softmax=softmax,
            # in half precision an entry is often rounded exactly onto the threshold, where the gradient is not unique
            compared=0 if dtype in (torch.bfloat16, torch.float16) else None,
        ),
        row(
            "entmax_bisect",
            lambda x: entmax_bisect(x, ALPHA),
            lambda x: bisect_reference("entmax", x, ALPHA, -1),
            peers=entmax_peers(modules, "entmax_bisect", alpha=ALPHA),
            softmax=softmax,
        ),
        sampler("gumbel_softmax", a.gumbel_softmax, F.gumbel_softmax, laws.soft),
        sampler(
            "gumbel_softmax_hard",
            hard,
            lambda x: F.gumbel_softmax(x, hard=True),
            laws.hard,
            saved=lambda inputs, outputs: [*outputs, *outputs],  # the soft sample: written, and read
        ),
        sampler("gumbel_entmax15", a.gumbel_entmax15, lambda x: _entmax15_reference(perturb(x), -1), laws.sparse),
        sampler("gumbel_argmax", a.gumbel_argmax, lambda x: perturb(x).argmax(-1), laws.choice, trained=0),
    ]


def attention_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: Modules) -> list[Case]:
    """Return entmax15 of attention scores, which ``torch.softmax`` usually normalizes."""
    return [case for case in row_cases(shape, dtype, device, modules) if case.op == "entmax15"]


def fused_attention_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: Modules) -> list[Case]:
    """Return attention of a shape batch × heads × length × width, with and without the causal mask."""

    def case(op: str, is_causal: bool) -> Case:
        def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return a.entmax15_attention(q, k, v, is_causal=is_causal)

        def composed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = q @ k.mT / shape[-1] ** 0.5
            if is_causal:
                scores = scores.masked_fill(~torch.ones_like(scores[0, 0], dtype=torch.bool).tril(), -torch.inf)
            return a.entmax15(scores) @ v

        return Case(
            op,
            shape,
            dtype,
            lambda: [torch.randn(shape, device=device).to(dtype) for _ in range(3)],
            ours,
            composed,
            lambda tensors, at: [x[at] for x in tensors],
            lambda y, at: y[at],
            shape[0],
            trained=3,
            saved=lambda inputs, outputs: inputs,
            softmax=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=is_causal),
            not_compiled="the composition calls our own op, which is not compiled",
        )

    return [case("entmax15_attention", False), case("entmax15_attention_causal", True)]


def weighted_sum(*tensors: Tensor) -> Tensor:
    *inputs, weights = tensors
    return sum(w * x for w, x in zip(weights, inputs, strict=True))


def mixed_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: Modules) -> list[Case]:
    count, *each = shape

    def make() -> list[Tensor]:
        weights = torch.linspace(-1, 2, count, device=device)  # in float32 for half inputs, as a supernet's are
        weights = weights.double() if dtype == torch.float64 else weights
        return [*(torch.randn(each, device=device).to(dtype) for _ in range(count)), weights]

    def mixed(*tensors: Tensor) -> Tensor:
        return a.mixed_op(tensors[:-1], tensors[-1])

    def cell(*tensors: Tensor) -> Tensor:
        half = count // 2
        return a.cell_aggregate([tensors[:half], tensors[half : 2 * half]], tensors[-1][: 2 * half].view(2, half))

    ops = [("mixed_op", mixed)] + ([("cell_aggregate", cell)] if count % 2 == 0 else [])
    return [
        Case(
            op,
            shape,
            dtype,
            make,
            function,
            weighted_sum,
            lambda tensors, at: [*(x.flatten()[at] for x in tensors[:-1]), tensors[-1]],
            lambda y, at: y.flatten()[at],
            torch.Size(each).numel(),
            trained=count + 1,
            compared=count,  # the weights' gradient is a sum over all elements
            saved=lambda inputs, outputs: inputs,
        )
        for op, function in ops
    ]


def by_rows(tensors: Sequence[Tensor], at: Tensor) -> list[Tensor]:
    return [x[at] for x in tensors]


def projection_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: Modules) -> list[Case]:
    def make() -> list[Tensor]:
        probs = torch.rand(shape, device=device)
        rewards = torch.randn(shape[0], device=device).to(dtype)
        return [(probs / probs.sum(-1, keepdim=True)).to(dtype), rewards, torch.rand(shape[0], device=device) < 0.1]

    def call(p: Tensor, r: Tensor, terminated: Tensor) -> Tensor:
        return a.categorical_projection(p, r, terminated, 0.99, -10.0, 10.0)

    eager, pick = by_reference(call), lambda y, at: y[at]
    return [
        Case("categorical_projection", shape, dtype, make, call, eager, by_rows, pick, shape[0], trained=0),
    ]


def q_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: Modules) -> list[Case]:
    def make() -> list[Tensor]:
        rewards, q = torch.randn(shape[0], device=device).to(dtype), torch.randn(shape, device=device).to(dtype)
        return [rewards, q, torch.rand(shape[0], device=device) < 0.1]

    def call(r: Tensor, q: Tensor, terminated: Tensor) -> Tensor:
        return a.td_targets(r, q, terminated, 0.99)

    def eager(r: Tensor, q: Tensor, terminated: Tensor) -> Tensor:
        return r + 0.99 * (1 - terminated.to(r.dtype)) * q.max(-1).values

    return [Case("td_targets", shape, dtype, make, call, eager, by_rows, lambda y, at: y[at], shape[0], trained=0)]
