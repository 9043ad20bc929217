"""Checks of contenders that draw their own noise: tests of the distribution, and of gradients given the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from automl_ext.bench.cases.case import Law

# Kolmogorov's statistic exceeds this for 7 of a million samples that follow the distribution (2·exp(−2·2.5²)).
LARGEST_DISTANCE = 2.5
LAW_ELEMENTS = 200_000


def follows_uniform(u: Tensor) -> bool:
    """Test whether ``u`` [n], in [0, 1], is uniform, with Kolmogorov's test; False for NaN."""
    n = u.numel()
    ranks = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return bool((u.double().sort().values - ranks).abs().max() * n**0.5 <= LARGEST_DISTANCE)


def noise_is_gumbel(logits: Tensor, y: Tensor) -> bool:
    """Test whether the noise is Gumbel: the difference of two Gumbel variables is logistic.

    log y − logits equals the noise up to a constant per row.
    """
    noise = y.log() - logits
    even = noise.shape[-1] // 2 * 2
    return follows_uniform(torch.sigmoid(noise[:, :even:2] - noise[:, 1:even:2]).flatten())


def choices_follow_softmax(logits: Tensor, index: Tensor) -> bool:
    """Test whether categories are chosen with the probabilities softmax(logits).

    A choice is mapped to a random point in its category's interval of the cumulative distribution; the points must be
    uniform. Categories are sorted by probability: otherwise choices that ignore the logits would pass.
    """
    return choices_follow(logits.softmax(-1), index.unsqueeze(-1))


def choices_follow(p: Tensor, index: Tensor) -> bool:
    """Test choices [..., choices] from the rows of probabilities ``p`` [..., n], as ``choices_follow_softmax`` does."""
    p, order = p.sort(-1, descending=True)
    chosen = order.argsort(-1).gather(-1, index)
    spread = torch.rand(chosen.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(0))
    return follows_uniform((p.cumsum(-1).gather(-1, chosen) - spread * p.gather(-1, chosen)).flatten())


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def soft(logits: Tensor, y: Tensor, dx: Tensor | None, grad: Tensor | None) -> float:
    if not noise_is_gumbel(logits, y):
        return float("inf")
    error = float((y.sum(-1) - 1).abs().max())
    if dx is None or grad is None:
        return error
    return max(error, relative(dx, y * (grad - (grad * y).sum(-1, keepdim=True))))


def sparse(logits: Tensor, y: Tensor, dx: Tensor | None, grad: Tensor | None) -> float:
    if not choices_follow_softmax(logits, y.argmax(-1)):
        return float("inf")
    error = float((y.sum(-1) - 1).abs().max())
    if dx is None or grad is None:
        return error
    s = y.sqrt()
    mean = (s * grad).sum(-1, keepdim=True) / s.sum(-1, keepdim=True)
    return max(error, relative(dx, s * (grad - mean)))


def hard(logits: Tensor, y: Tensor, dx: Tensor | None, grad: Tensor | None) -> float:
    """Test hard samples. The soft sample is unknown, so only its gradient is tested: nonzero, with sum 0."""
    one_hot = bool(((y == 0) | ((y - 1).abs() < 1e-2)).all() and (y.sum(-1).round() == 1).all())
    if not one_hot or not choices_follow_softmax(logits, y.argmax(-1)):
        return float("inf")
    if dx is None:
        return 0.0
    largest = float(dx.abs().max())
    return float(dx.sum(-1).abs().max()) / largest / dx.shape[-1] ** 0.5 if largest > 0 else float("inf")


def choice(logits: Tensor, index: Tensor, dx: Tensor | None, grad: Tensor | None) -> float:
    return 0.0 if choices_follow_softmax(logits, index) else float("inf")


def law(of_rows: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], float]) -> Law:
    """Make a law from a test of rows. The test is given the first rows, in float64 on the CPU."""

    def error(logits: Tensor, results: Sequence[Tensor], grad: Tensor | None) -> float:
        rows = max(4, LAW_ELEMENTS // logits.shape[-1])

        def first(x: Tensor) -> Tensor:
            x = x[:rows].detach().cpu()
            return x.double() if x.is_floating_point() else x

        dx = None if grad is None else first(results[1])
        return of_rows(first(logits), first(results[0]), dx, None if grad is None else first(grad))

    return error
