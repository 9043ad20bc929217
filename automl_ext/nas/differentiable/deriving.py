"""Derives the architecture from α: decoding by the space, edge strengths, ties, the choice among derived cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import ScoreJob
from automl_ext.nas.spaces.partial_channels import edge_weights
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice, Supernet

SKIP, NONE = "skip_connect", "none"
Score = Callable[[Any], float]  # genotype → number to maximize, for example a training-free score


@contextmanager
def replaced_alphas(supernet: Supernet, alphas: Sequence[Tensor]) -> Iterator[None]:
    """Replace the values of the supernet's α inside the block."""
    kept = [alpha.detach().clone() for alpha in supernet.alphas]
    try:
        _set(supernet, alphas)
        yield
    finally:
        _set(supernet, kept)


@torch.no_grad()
def _set(supernet: Supernet, alphas: Sequence[Tensor]) -> None:
    for alpha, value in zip(supernet.alphas, alphas, strict=True):
        alpha.copy_(value)


def decode(supernet: Supernet, alphas: Sequence[Tensor]) -> Any:
    """Return the genotype that the space derives from ``alphas``; −inf masks an operation."""
    with replaced_alphas(supernet, alphas):
        return supernet.derive()


def derived_choices(supernet: Supernet, alphas: Sequence[Tensor]) -> list[Choice]:
    """Return the choices that run the architecture derived from ``alphas``."""
    with replaced_alphas(supernet, alphas):
        return supernet.argmax()


@torch.no_grad()
def with_edge_strengths(supernet: Supernet, alphas: Sequence[Tensor]) -> list[Tensor]:
    """Include edge normalization in α, for spaces whose nodes keep only their strongest edges (PC-DARTS, section 3.3).

    The strength of an edge is softmax(α)·softmax(β). The result is an α whose softmax is this product, with the rest
    of the probability on "none". Without β, or if the space keeps all edges, the result is α itself.
    """
    if not supernet.betas or supernet.inputs is None:
        return list(alphas)
    none = supernet.operations.index(NONE)
    combined = []
    for alpha, beta in zip(alphas, supernet.betas, strict=True):
        p = torch.softmax(alpha, dim=-1) * edge_weights(beta, supernet.nodes).unsqueeze(-1)
        p[:, none] = 0
        p[:, none] = (1 - p.sum(-1)).clamp(min=0)
        combined.append(p.log())
    return combined


def by_rank(genotypes: Sequence[Any], space: Space[Any], splits: Splits, device: torch.device, seed: int) -> list[int]:
    """Return the indices of architectures, the one with the highest rank by the training-free scores first.

    The scores are those of a screening, and the ranks those among ``genotypes``. Equal ones keep their order.

    Raises:
        UserError: fewer than four training images.
    """
    scoring = ScoreJob(space, genotypes, splits, device, RANK, seed=seed)
    while scoring.epoch < scoring.epochs:
        scoring.run_epoch()
    return (-scoring.table().rank()).argsort(kind="stable").tolist()


def skip_share(choices: Sequence[Choice], operations: Sequence[str]) -> float:
    """Return the share of skip connections among the operations, except "none", of a derived architecture."""
    names = [operations[k] for choice in choices for active in choice.active for k in active]
    chosen = [name for name in names if name != NONE]
    return chosen.count(SKIP) / max(len(chosen), 1)


def never_derived(supernet: Supernet) -> int | None:
    """Return the index of "none" if its nodes keep only their strongest edges, so that no edge can have it."""
    keeps_strongest = supernet.inputs is not None and NONE in supernet.operations
    return supernet.operations.index(NONE) if keeps_strongest else None


@torch.no_grad()
def break_ties(
    alphas: Sequence[Tensor],
    tie: float,
    decode: Callable[[Sequence[Tensor]], Any],
    score: Score,
    never: int | None = None,
) -> list[Tensor]:
    """Choose by ``score`` among operations whose probabilities are nearly equal.

    Edges are visited in order. On each, the operations whose softmax(α) is at most ``tie`` below the largest are tried
    with the present choices of the other edges. The genotype with the best score is kept, at equal scores the one
    with the largest α.

    Args:
        alphas: α of each kind of cell, [edges, operations]; −inf masks an operation.
        tie: largest difference of probabilities.
        decode: maps such α to a genotype.
        score: scores a genotype.
        never: index of an operation that is not compared; see :func:`never_derived`.

    Returns:
        α, in which the chosen operation has exchanged its value with the largest one of its edge.
    """
    best = [alpha.detach().clone() for alpha in alphas]
    for kind, alpha in enumerate(alphas):
        for edge, p in enumerate(torch.softmax(alpha, dim=-1)):
            if never is not None:
                p[never] = 0
            order = p.argsort(descending=True, stable=True).tolist()
            tied = [k for k in order if p[k] > 0 and p[k] >= p[order[0]] - tie]
            if len(tied) > 1:
                trials = [_exchanged(best, kind, edge, tied[0], k) for k in tied]
                scores = [score(decode(trial)) for trial in trials]
                best = trials[scores.index(max(scores))]
    return best


def _exchanged(alphas: Sequence[Tensor], kind: int, edge: int, first: int, second: int) -> list[Tensor]:
    changed = [alpha.clone() for alpha in alphas]
    changed[kind][edge, [first, second]] = alphas[kind][edge, [second, first]]
    return changed
