"""All training-free scores by name. A new score is a new file and a line in ``SCORES``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.az_nas import entropies, trainability
from automl_ext.nas.estimators.training_free.jacobian import jacobian_covariance_of
from automl_ext.nas.estimators.training_free.meco import meco_of
from automl_ext.nas.estimators.training_free.naswot import naswot_of
from automl_ext.nas.estimators.training_free.passes import NotScorableError, Observation, observe
from automl_ext.nas.estimators.training_free.size import multiply_adds, parameters
from automl_ext.nas.estimators.training_free.synflow import synflow
from automl_ext.nas.estimators.training_free.zico import zico


class Subject:
    """A network and the images to score it with. Scores that need the same forward pass share its result."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.network, self.images, self.labels = network, images, labels

    @cached_property
    def seen(self) -> Observation:
        return observe(self.network, self.images)

    @cached_property
    def entropies(self) -> Tensor:
        return entropies(self.network, self.images)


# Higher is better. An entry computes the function of the same name, which takes (network, images[, labels]).
SCORES: dict[str, Callable[[Subject], float]] = {
    "parameters": lambda s: parameters(s.network, s.images),
    "multiply_adds": lambda s: multiply_adds(s.network, s.images),
    "naswot": lambda s: naswot_of(s.seen),
    "synflow": lambda s: synflow(s.network, s.images),
    "jacobian_covariance": lambda s: jacobian_covariance_of(s.seen),
    "meco": lambda s: meco_of(s.seen),
    "expressivity": lambda s: s.entropies.sum().item(),
    "progressivity": lambda s: s.entropies.diff().min().item(),
    "trainability": lambda s: trainability(s.network, s.images),
    "zico": lambda s: zico(s.network, s.images, s.labels),
}
RANK = ("synflow", "progressivity")  # the scores whose log-ranks are summed


def score_network(network: nn.Module, images: Tensor, labels: Tensor, names: Sequence[str] = RANK) -> dict[str, float]:
    """Compute training-free scores of an untrained network.

    Args:
        network: the network; it is not changed.
        images: float32 [N, C, H, W], one batch, at least 4 images.
        labels: int64 [N].
        names: the scores to compute, from ``SCORES``.

    Returns:
        The scores by name. A score that is not defined for the network (see
        :class:`~automl_ext.nas.estimators.training_free.passes.NotScorableError`) is −inf, which ranks last.

    Raises:
        ValueError: a name is unknown.
    """
    for name in names:
        if name not in SCORES:
            raise ValueError(f"names: expected some of {', '.join(SCORES)}, got {name!r}")
    subject = Subject(network, images, labels)
    return {name: _value(SCORES[name], subject) for name in names}


def _value(score: Callable[[Subject], float], subject: Subject) -> float:
    try:
        value = score(subject)
    except NotScorableError:
        return -math.inf
    return value if math.isfinite(value) else -math.inf
