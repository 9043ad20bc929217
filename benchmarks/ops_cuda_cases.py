"""The rows of benchmarks/ops_cuda.py: each op, its inputs, what it is compared with, and the bytes it cannot avoid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from eager import by_reference, mixed_op
from torch import Tensor

import automl_ext as a
from automl_ext.ops._entmax_reference import _entmax15_reference, _sparsemax_reference

SEED = 7
# Rows of few, some and many categories; elements of an operation's output; steps and columns. What takes 64 MB or
# more in bfloat16 tells the bandwidth, what is small the cost of a call.
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "rows": [(14, 8), (4_194_304, 8), (65_536, 512), (1024, 32_768)],
    "mixed": [(8, 16, 8, 8, 8), (8, 64, 64, 32, 32)],
    "returns": [(128, 8), (128, 262_144), (1024, 32_768)],
    "atoms": [(256, 51), (655_360, 51)],
}


@dataclass(frozen=True)
class Case:
    """One op at one shape.

    make(): its tensors, on the device.
    sample(tensors, at): the problem of the rows (columns, elements) `at` alone.
    pick(output, at): the same rows of an output or of a gradient.
    saved(inputs, outputs): what the backward pass cannot do without, besides the gradients of the outputs.
    """

    op: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], list[Tensor]]
    ours: Callable[..., Tensor | tuple[Tensor, ...]]
    eager: Callable[..., Tensor | tuple[Tensor, ...]]
    sample: Callable[[Sequence[Tensor], Tensor], list[Tensor]]
    pick: Callable[[Tensor, Tensor], Tensor]
    count: int  # of rows that can be sampled
    trained: int = 1  # so many of the tensors get a gradient,
    compared: int | None = None  # and of so many the sampled rows have it for themselves (None: of all)
    saved: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]] = lambda inputs, outputs: outputs
    from_the_front: bool = False  # a row depends on its place: only the first ones make a problem of their own


def row_case(
    op: str, shape: tuple[int, ...], dtype: torch.dtype, device: str, ours: Callable, eager: Callable, **others: object
) -> Case:
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
        **others,  # type: ignore[arg-type]
    )


def row_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Case]:
    def row(op: str, ours: Callable, eager: Callable, **others: object) -> Case:
        return row_case(op, shape, dtype, device, ours, eager, **others)

    def gumbel_entmax15_eager(x: Tensor) -> Tensor:
        return _entmax15_reference(x - torch.empty_like(x).exponential_().log(), -1)

    gumbel = {"from_the_front": True}
    return [
        row("entmax15", a.entmax15, lambda x: _entmax15_reference(x, -1)),
        row(
            "sparsemax",
            a.sparsemax,
            lambda x: _sparsemax_reference(x, -1),
            compared=None if dtype == torch.float32 else 0,  # half types often put an entry on the threshold, a kink
        ),
        row("gumbel_softmax", lambda x: a.gumbel_softmax(x, seed=SEED), F.gumbel_softmax, **gumbel),
        row(
            "gumbel_softmax hard",
            lambda x: a.gumbel_softmax(x, hard=True, seed=SEED),
            lambda x: F.gumbel_softmax(x, hard=True),
            saved=lambda inputs, outputs: [*outputs, *outputs],  # the soft sample: written, and read
            **gumbel,
        ),
        row("gumbel_entmax15", lambda x: a.gumbel_entmax15(x, seed=SEED), gumbel_entmax15_eager, **gumbel),
        row(
            "gumbel_argmax",
            lambda x: a.gumbel_argmax(x, seed=SEED),
            lambda x: (x - torch.empty_like(x).exponential_().log()).argmax(-1),
            trained=0,
            **gumbel,
        ),
    ]


def mixed_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Case]:
    count, *each = shape

    def make() -> list[Tensor]:
        weights = torch.linspace(-1, 2, count, device=device)  # in float32, as a supernet's are
        return [*(torch.randn(each, device=device).to(dtype) for _ in range(count)), weights]

    def cell(xs: Sequence[Tensor], w: Tensor) -> Tensor:
        return a.cell_aggregate([xs[: count // 2], xs[count // 2 :]], w.view(2, count // 2))

    return [
        Case(
            op,
            shape,
            dtype,
            make,
            lambda *xs, function=function: function(xs[:-1], xs[-1]),  # type: ignore[misc]
            lambda *xs: mixed_op(xs[:-1], xs[-1]),
            lambda tensors, at: [*(x.flatten()[at] for x in tensors[:-1]), tensors[-1]],
            lambda y, at: y.flatten()[at],
            torch.Size(each).numel(),
            trained=count + 1,
            compared=count,  # the weights' gradient is a sum over all elements
            saved=lambda inputs, outputs: inputs,
        )
        for op, function in (("mixed_op", a.mixed_op), ("cell_aggregate", cell))
    ]


def returns_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Case]:
    def make(floats: int) -> list[Tensor]:
        flags = [torch.rand(shape, device=device) < 0.01 for _ in range(2)]
        return [*(torch.randn(shape, device=device).to(dtype) for _ in range(floats)), *flags]

    # (op, float tensors, of these with a gradient, call)
    ops: list[tuple[str, int, int, Callable]] = [
        ("gae", 3, 3, lambda r, v, w, e, u: a.gae(r, v, w, e, u, 0.99, 0.95)),
        ("lambda_returns", 2, 2, lambda r, w, e, u: a.lambda_returns(r, w, e, u, 0.99, 0.95)),
        ("discounted_returns", 2, 2, lambda r, w, e, u: a.discounted_returns(r, w, e, u, 0.99)),
        ("n_step_returns", 2, 2, lambda r, w, e, u: a.n_step_returns(r, w, e, u, 0.99, 3)),
        ("vtrace", 4, 0, lambda rho, r, v, w, e, u: a.vtrace(rho, r, v, w, e, u, 0.99)),
        ("retrace", 4, 0, lambda rho, q, r, w, e, u: a.retrace(rho, q, r, w, e, u, 0.99)),
    ]
    return [
        Case(
            op,
            shape,
            dtype,
            lambda floats=floats: make(floats),  # type: ignore[misc]
            call,
            by_reference(call),
            lambda tensors, at: [x[:, at] for x in tensors],
            lambda y, at: y[:, at],
            shape[1],
            trained=trained,
            saved=lambda inputs, outputs: inputs[-2:],
        )
        for op, floats, trained, call in ops
    ]


def projection_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Case]:
    def make() -> list[Tensor]:
        probs = torch.rand(shape, device=device)
        rewards = torch.randn(shape[0], device=device).to(dtype)
        return [(probs / probs.sum(-1, keepdim=True)).to(dtype), rewards, torch.rand(shape[0], device=device) < 0.1]

    def call(p: Tensor, r: Tensor, terminated: Tensor) -> Tensor:
        return a.categorical_projection(p, r, terminated, 0.99, -10.0, 10.0)

    return [
        Case(
            "categorical_projection",
            shape,
            dtype,
            make,
            call,
            by_reference(call),
            lambda tensors, at: [x[at] for x in tensors],
            lambda y, at: y[at],
            shape[0],
            trained=0,
        )
    ]


def cases(
    device: str,
    shapes: dict[str, list[tuple[int, ...]]],
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
) -> list[Case]:
    builders = {"rows": row_cases, "mixed": mixed_cases, "returns": returns_cases, "atoms": projection_cases}
    return [
        case
        for family, build in builders.items()
        for shape in shapes[family]
        for dtype in dtypes
        for case in build(shape, dtype, device)
    ]
