"""Selects the members of an ensemble greedily and with replacement (Caruana et al., ICML 2004)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def log_loss(probabilities: Tensor, labels: Tensor) -> float:
    """Compute the mean −log p(label) in nats, from ``probabilities`` [N, classes] and ``labels`` [N]."""
    return mean_negative_log(likelihoods(probabilities, labels)).item()


def likelihoods(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of the label: [..., N, classes] → [..., N]."""
    index = labels.expand(probabilities.shape[:-1]).unsqueeze(-1)
    return probabilities.gather(-1, index).squeeze(-1)


def mean_negative_log(likelihood: Tensor) -> Tensor:
    """Compute the mean of −log(likelihood) over the last dimension; zeros count as the smallest positive number."""
    return -likelihood.clamp_min(torch.finfo(likelihood.dtype).tiny).log().mean(-1)


def greedy_selection(likelihood: Tensor, rounds: int) -> list[int]:
    """Select networks by the log-loss of their average, and return the number of votes of each.

    The result is never worse than the best single network on the images of the selection.

    Args:
        likelihood: [networks, images], the probabilities of the true labels, for images that no network was trained on.
        rounds: the number of rounds, at least 1.

    Raises:
        ValueError: there is no network or no image, ``rounds`` is below 1, or a likelihood is not in [0, 1].
    """
    if likelihood.ndim != 2 or 0 in likelihood.shape:
        raise ValueError(f"likelihood: expected [networks, images], got shape {list(likelihood.shape)}")
    if not ((likelihood >= 0) & (likelihood <= 1 + 1e-6)).all():
        raise ValueError("likelihood: expected numbers in [0, 1]")
    return select_members(likelihood, mean_negative_log, rounds)


def select_members(predictions: Tensor, losses: Callable[[Tensor], Tensor], rounds: int) -> list[int]:
    """Select the members of an average, and return the number of votes of each.

    Each round adds the member with which the average has the lowest loss; a member may be added again. The best
    average of all rounds is returned; of equally good ones, the one with the fewest votes.

    Args:
        predictions: [members, rows], computed in float64.
        losses: computes the loss of each of several averages: [members, rows] → [members].
        rounds: the number of rounds, at least 1.

    Raises:
        ValueError: ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    predictions = predictions.double()
    total = torch.zeros(predictions.shape[1:], dtype=torch.float64, device=predictions.device)
    chosen: list[int] = []
    best_loss, best_size = float("inf"), 0
    for size in range(1, rounds + 1):
        found = losses((total + predictions) / size)
        member = int(found.argmin())
        total = total + predictions[member]
        chosen.append(member)
        if found[member] < best_loss * (1 - 1e-9):  # losses of equal averages may differ by rounding
            best_loss, best_size = float(found[member]), size
    return [chosen[:best_size].count(member) for member in range(len(predictions))]
