"""All training-free scores by name, and the sizes of a network, with which they are compared.

A new score is a function and a line in ``SCORES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from automl_ext.nas.costs import count_macs, count_parameters
from automl_ext.nas.estimators.training_free.formulas import entropies, meco, naswot, synflow
from automl_ext.nas.estimators.training_free.passes import NotScorableError, Observation, logits, observe


@torch.no_grad()
def multiply_adds(network: nn.Module, images: Tensor) -> float:
    """Count the multiply-adds of the operations that run, for one image; see :func:`automl_ext.nas.costs.count_macs`.

    Raises:
        NotScorableError: an output is not finite.
    """
    logits(network, images[:2])  # raises; some batch norms need two values per channel
    return float(count_macs(network, images.shape[1:]))


class Subject:
    """A network and the images to score it with. Scores that need the same forward pass share its result."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self.network, self.images = network, images

    @cached_property
    def seen(self) -> Observation:
        return observe(self.network, self.images)

    @cached_property
    def entropies(self) -> Tensor:
        return entropies(self.network, self.images)


# Higher is better.
SCORES: dict[str, Callable[[Subject], float]] = {
    "parameters": lambda s: float(count_parameters(s.network)),  # also those of operations that do not run
    "multiply_adds": lambda s: multiply_adds(s.network, s.images),
    "naswot": lambda s: naswot(s.seen),
    "synflow": lambda s: synflow(s.network, s.images),
    "meco": lambda s: meco(s.seen),
    "expressivity": lambda s: s.entropies.sum().item(),
    "progressivity": lambda s: s.entropies.diff().min().item(),
}
RANK = ("synflow", "progressivity")  # the scores whose log-ranks are summed


def check_scores(argument: str, names: Sequence[str]) -> None:
    """Raise ValueError unless all ``names`` are scores."""
    for name in names:
        if name not in SCORES:
            raise ValueError(f"{argument}: expected some of {', '.join(SCORES)}, got {name!r}")


def score_network(network: nn.Module, images: Tensor, names: Sequence[str] = RANK) -> dict[str, float]:
    """Compute training-free scores of an untrained network.

    Args:
        network: the network; it is not changed.
        images: float32 [N, C, H, W], one batch, at least 4 images.
        names: the scores to compute, from ``SCORES``.

    Returns:
        The scores by name. A score that is not defined for the network (see
        :class:`~automl_ext.nas.estimators.training_free.passes.NotScorableError`) is −inf, which ranks last.

    Raises:
        ValueError: a name is unknown.
    """
    check_scores("names", names)
    subject = Subject(network, images)
    return {name: _value(SCORES[name], subject) for name in names}


def _value(score: Callable[[Subject], float], subject: Subject) -> float:
    try:
        value = score(subject)
    except NotScorableError:
        return -math.inf
    return value if math.isfinite(value) else -math.inf
