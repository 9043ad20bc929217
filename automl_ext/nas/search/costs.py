"""The costs of the candidates of a search, and the choice of a candidate within limits on them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

from automl_ext.nas.costs import count_macs, count_parameters, latency_ms
from automl_ext.nas.estimators.lower_fidelity import global_rng_kept
from automl_ext.nas.evaluation import Evaluation, Evaluator
from automl_ext.nas.spaces.space import Space

Score = TypeVar("Score", float, tuple[int, float])
COSTS = {"parameters": "parameters", "macs": "multiply-adds", "latency_ms": "ms per image"}


class WithCosts:
    """An evaluator that calls another one and adds the costs of the candidate's network to its measurements.

    It adds ``parameters``, ``macs`` (multiply-adds per image) and, if ``latency``, ``latency_ms``: the time of one
    image on the CPU with one thread, in milliseconds.

    Args:
        evaluator: the other evaluator.
        space: the search space of the candidates.
        shape: the keyword arguments of ``Space.build``.
        image: the shape (C, H, W) of an image.
        latency: whether to measure the latency.
    """

    def __init__(
        self, evaluator: Evaluator, space: Space[Any], shape: dict[str, Any], image: Sequence[int], latency: bool
    ) -> None:
        self.evaluator, self.space, self.shape, self.image, self.latency = evaluator, space, shape, image, latency

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Evaluate ``genotype`` with the other evaluator, and add the costs."""
        evaluation = self.evaluator.evaluate(genotype, budget, state)
        with global_rng_kept():
            network = self.space.build(genotype, **self.shape)
        evaluation.measured["parameters"] = count_parameters(network)
        evaluation.measured["macs"] = count_macs(network, self.image)
        if self.latency:
            evaluation.measured["latency_ms"] = latency_ms(network, self.image)
        return evaluation


def best_within(limits: dict[str, float], scores: Sequence[Score], costs: Sequence[dict[str, float]]) -> list[int]:
    """Return the indices of the candidates within all limits, the highest score first; of equal ones the earlier first.

    If there is none, warn and return the one candidate that exceeds its limits by the smallest factor.

    Args:
        limits: name of a cost → its largest value.
        scores: of each candidate; or its budget and score, if a larger budget takes precedence.
        costs: per candidate, name → value.
    """
    excess = [max((cost[name] / limit for name, limit in limits.items()), default=0.0) for cost in costs]
    inside = [i for i in range(len(scores)) if excess[i] <= 1]
    if inside:
        return sorted(inside, key=lambda i: scores[i], reverse=True)
    nearest = min(range(len(scores)), key=lambda i: excess[i])
    facts = ", ".join(f"{costs[nearest][name]:g} {COSTS[name]} (at most {limit:g})" for name, limit in limits.items())
    warnings.warn(f"no evaluated architecture is within the limits; the nearest one has {facts}", stacklevel=2)
    return [nearest]
