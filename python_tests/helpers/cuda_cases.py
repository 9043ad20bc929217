"""Every op as a function of tensors only, so that tests can move, overwrite and capture its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import automl_ext as a
from automl_ext.ops import entmax

ROWS, CATEGORIES, STEPS, COLUMNS, ATOMS = 37, 100, 21, 45, 51
Draw = Callable[[torch.Generator], list[Tensor]]


@dataclass(frozen=True)
class Case:
    """One op. draw(generator) returns its tensors on the CPU; the first `trained` get gradients."""

    name: str
    draw: Draw
    call: Callable[..., Tensor | tuple[Tensor, ...]]
    trained: int  # number of tensors with a gradient
    launches: int = 1  # number of kernels in a forward call
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        return self.name

    def tensors(self, device: str, seed: int = 0, dtype: torch.dtype | None = None) -> list[Tensor]:
        dtype = dtype or self.dtype
        drawn = self.draw(torch.Generator().manual_seed(seed))
        moved = [x.to(device, dtype if x.is_floating_point() else x.dtype) for x in drawn]
        return [x.requires_grad_(i < self.trained) for i, x in enumerate(moved)]

    def outputs(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        out = self.call(*tensors)
        return out if isinstance(out, tuple) else (out,)

    def outputs_and_gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs and the gradients of Σ output·c, without a GPU synchronization.

        c is fixed and oscillates within each row: gradients have the mean of their row subtracted, so a nearly constant
        c would leave only rounding errors.
        """
        out = self.outputs(tensors)
        on = [y for y in out if y.requires_grad]
        results = [y.detach() for y in out]
        if on:
            counts = [torch.arange(y.numel(), dtype=torch.float64, device=y.device) for y in on]
            grads = [count.cos().view(y.shape).to(y) for count, y in zip(counts, on, strict=True)]
            results += torch.autograd.grad(on, tensors[: self.trained], grads)
        return results


def _randn(*shapes: tuple[int, ...]) -> Draw:
    return lambda g: [torch.randn(shape, generator=g) for shape in shapes]


def _logits(g: torch.Generator) -> list[Tensor]:
    return [2 * torch.randn(ROWS, CATEGORIES, generator=g)]


def _columns(g: torch.Generator) -> list[Tensor]:
    return [2 * torch.randn(2, CATEGORIES, 33, generator=g)]


def _seed(g: torch.Generator) -> Tensor:
    return torch.randint(2**62, (), generator=g)


def _flags(g: torch.Generator, steps: int, *probabilities: float) -> list[Tensor]:
    return [torch.rand(steps, COLUMNS, generator=g) < p for p in probabilities]


def _episode(floats: int, steps: int = STEPS) -> Draw:
    return lambda g: [*_randn(*[(steps, COLUMNS)] * floats)(g), *_flags(g, steps, 0.1, 0.1, 0.9)]


def _gumbel(function: Callable, hard: bool) -> Case:
    return Case(
        function.__name__ + ("_hard" if hard else ""),
        lambda g: [*_logits(g), 0.5 + torch.rand((), generator=g), _seed(g)],
        lambda x, tau, seed: function(x, tau, hard, seed=seed, return_index=True),
        trained=2,
    )


def _mixed(count: int, launches: int) -> Case:
    return Case(
        f"mixed_op_{count}",
        _randn(*[(5, 7, 9)] * count, (count + 1,)),
        lambda *xs: a.mixed_op([None, *xs[:-1]], xs[-1]),
        trained=count + 1,
        launches=launches,
    )


def _choices(rows: int, n: int) -> Draw:
    """Return logits and an action for each row."""
    return lambda g: [2 * torch.randn(rows, n, generator=g), torch.randint(n, (rows,), generator=g)]


def _transitions(g: torch.Generator) -> list[Tensor]:
    probs = torch.randn(ROWS, ATOMS, generator=g).softmax(-1)
    rewards, discounts = torch.randn(ROWS, generator=g), torch.rand(ROWS, generator=g)
    return [probs, rewards, discounts, torch.rand(ROWS, generator=g) < 0.2]


CASES = [
    Case("entmax15", _logits, a.entmax15, trained=1),
    Case("sparsemax", _logits, a.sparsemax, trained=1),
    Case("entmax_bisect", _logits, lambda x: entmax.entmax_bisect(x, 1.3), trained=1),
    Case("normmax_bisect", _logits, lambda x: entmax.normmax_bisect(x, 2.5), trained=1),
    Case("budget_bisect", _logits, lambda x: entmax.budget_bisect(x, 2.5), trained=1),
    _gumbel(a.gumbel_softmax, hard=False),
    _gumbel(a.gumbel_softmax, hard=True),
    _gumbel(a.gumbel_entmax15, hard=False),
    _gumbel(a.gumbel_entmax15, hard=True),
    Case("gumbel_argmax", lambda g: [*_logits(g), _seed(g)], lambda x, seed: a.gumbel_argmax(x, seed=seed), trained=0),
    _mixed(3, launches=1),
    _mixed(64, launches=1),
    _mixed(130, launches=3),
    Case(
        "cell_aggregate",
        _randn(*[(4, 6, 8)] * 5, (3, 2)),
        lambda *xs: a.cell_aggregate([xs[0:2], [None, xs[2]], xs[3:5]], xs[5]),
        trained=6,
    ),
    Case("gae", _episode(3), lambda r, v, w, e, u, on: a.gae(r, v, w, e, u, 0.97, 0.9, valid=on), trained=3),
    Case(
        "lambda_returns",
        _episode(2),
        lambda r, w, e, u, on: a.lambda_returns(r, w, e, u, 0.97, 0.9, valid=on),
        trained=2,
    ),
    Case(
        "lambda_returns_discounts",
        lambda g: [*_episode(2)(g)[:2], torch.rand(STEPS, COLUMNS, generator=g)],
        lambda r, w, d: a.lambda_returns(r, w, None, None, 0.97, 0.9, discounts=d),
        trained=3,
    ),
    Case(
        "discounted_returns",
        _episode(2),
        lambda r, w, e, u, on: a.discounted_returns(r, w, e, u, 0.97, valid=on),
        trained=2,
    ),
    Case(
        "n_step_returns",
        _episode(2),
        lambda r, w, e, u, on: a.n_step_returns(r, w, e, u, 0.97, 3, valid=on),
        trained=2,
    ),
    Case(
        "gae_carry",
        _episode(3),
        lambda r, v, w, e, u, on: a.gae(r, v, w, e, u, 0.97, 0.9, valid=on, invalid="carry"),
        trained=3,
    ),
    Case(
        "lambda_returns_carry",
        _episode(2),
        lambda r, w, e, u, on: a.lambda_returns(r, w, e, u, 0.97, 0.9, valid=on, invalid="carry"),
        trained=2,
    ),
    Case(
        "n_step_returns_carry",
        _episode(2),
        lambda r, w, e, u, on: a.n_step_returns(r, w, e, u, 0.97, 3, valid=on, invalid="carry"),
        trained=2,
    ),
    Case(
        "vtrace",
        _episode(4),
        lambda rho, r, v, w, e, u, on: a.vtrace(rho, r, v, w, e, u, 0.97, 0.9, valid=on),
        trained=0,
    ),
    Case(
        "retrace",
        _episode(4),
        lambda rho, q, r, w, e, u, on: a.retrace(rho, q, r, w, e, u, 0.97, 0.9, valid=on),
        trained=0,
    ),
    Case(
        "categorical_projection",
        _transitions,
        lambda p, r, d, e: a.categorical_projection(p, r, e, d, -3.0, 4.0),
        trained=0,
    ),
    Case("td_targets", _transitions, lambda q, r, d, e: a.td_targets(r, q, e, d), trained=0),
    Case("categorical_log_probs", _choices(ROWS, CATEGORIES), a.categorical_log_probs, trained=1),
    Case("categorical_log_probs_70001", _choices(3, 70_001), a.categorical_log_probs, trained=1),
    Case(
        "policy_gradient_loss",
        lambda g: [*_randn(*[(3000,)] * 7)(g), torch.rand(3000, generator=g) / 3000],
        lambda *xs: a.policy_gradient_loss(*xs[:5], old_log_probs=xs[5], old_values=xs[6], weights=xs[7], ent_coef=0.1),
        trained=3,
        launches=2,
    ),
]


def case(name: str) -> Case:
    return next(c for c in CASES if c.name == name)


# Sizes that reach every kernel: one thread, a warp and a block per row, a row in shared memory and one that does not
# fit; scans of several tiles.
SIZES, LONG_EPISODE = (5, 100, 600, 5000, 70_000), 1100
FLOATS = {"gae": 3, "lambda_returns": 2, "discounted_returns": 2, "n_step_returns": 2, "vtrace": 4, "retrace": 4}


def _sized(c: Case, n: int, dtype: torch.dtype) -> Case:
    """Return the case for rows of n logits: 3 of more than 1000, else ROWS."""

    def draw(g: torch.Generator) -> list[Tensor]:
        return [2 * torch.randn(3 if n > 1000 else ROWS, n, generator=g), *c.draw(g)[1:]]

    return replace(c, name=f"{c.name}_{n}_{str(dtype)[6:]}", draw=draw, dtype=dtype)


def _in_tiles(c: Case, dtype: torch.dtype) -> Case:
    name = f"{c.name}_{LONG_EPISODE}_{str(dtype)[6:]}"
    return replace(c, name=name, draw=_episode(FLOATS[c.name], LONG_EPISODE), dtype=dtype)


_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_ROWWISE = (
    "entmax15",
    "sparsemax",
    "entmax_bisect",
    "budget_bisect",
    "gumbel_softmax",
    "gumbel_entmax15_hard",
    "gumbel_argmax",
)
SIZED = [_sized(case(name), n, dtype) for name in _ROWWISE for n in SIZES for dtype in _DTYPES]
# Rows along dim 1 of [2, 100, 33]: no kernel but the op's may run.
SIZED += [
    Case("entmax15_columns", _columns, lambda x: a.entmax15(x, 1), trained=1),
    Case("sparsemax_columns", _columns, lambda x: a.sparsemax(x, 1), trained=1),
    Case(
        "gumbel_entmax15_hard_columns",
        lambda g: [*_columns(g), 0.5 + torch.rand((), generator=g), _seed(g)],
        lambda x, tau, seed: a.gumbel_entmax15(x, tau, True, 1, seed=seed, return_index=True),
        trained=2,
    ),
    Case(
        "gumbel_argmax_columns",
        lambda g: [*_columns(g), _seed(g)],
        lambda x, seed: a.gumbel_argmax(x, 1, seed=seed),
        trained=0,
    ),
]
EPISODES_IN_TILES = [_in_tiles(case(name), dtype) for name in FLOATS for dtype in _DTYPES]
