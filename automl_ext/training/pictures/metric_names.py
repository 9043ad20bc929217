"""The axis titles of metrics. The order of this table is the order of the panels of a picture.

A metric that is missing here is drawn after the others, under its own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Metric(NamedTuple):
    """Axis title, label and scale of a metric. Metrics with the same axis title share a panel.

    Attributes:
        axis: title of the y axis, with the unit.
        label: name of the line in the legend.
        scale: factor from the logged value to the unit of the axis. None: an accuracy, logged as a fraction (of at
            most 1) or in percent.
    """

    axis: str
    label: str = ""
    scale: float | None = 1.0


RETURN, ACCURACY, VALID_ACCURACY = "return of an episode", "accuracy, %", "validation accuracy, %"
PARAMETERS, MACS = "parameters", "multiply-adds"
COUNTS = {PARAMETERS, MACS}  # axes whose numbers end with a unit that fits them: k, M
LEGEND_ALWAYS = {RETURN, ACCURACY}  # axes of several metrics, so that even a single line needs a legend
OF_GROUP = "eval_return/"  # prefix of the metrics for the evaluation returns of each agent or task
METRICS = {
    "eval_return": Metric(RETURN, "evaluation"),
    "episode_return": Metric(RETURN, "training"),
    "test_accuracy": Metric(ACCURACY, "test", None),
    "valid_accuracy": Metric(ACCURACY, "validation", None),
    "supernet_accuracy": Metric(ACCURACY, "validation, with the supernet's weights", None),
    "supernet_valid_accuracy": Metric(ACCURACY, "validation, with the supernet's weights", None),
    "accuracy": Metric(ACCURACY, "validation", None),
    "train_accuracy": Metric(ACCURACY, "training", None),
    "accuracy_without_best": Metric("accuracy without one operation, %", "the one that is kept", None),
    "accuracy_without_worst": Metric("accuracy without one operation, %", "the one needed least", None),
    "best_score": Metric(VALID_ACCURACY, "best so far", None),
    "score": Metric(VALID_ACCURACY, "candidate", None),
    "final_score": Metric(VALID_ACCURACY, "finalist, trained again", None),
    "loss": Metric("loss", "weights"),
    "alpha_loss": Metric("loss", "α"),
    "share_skip": Metric("edges where α is largest, %", "skip", 100.0),
    "share_none": Metric("edges where α is largest, %", "none", 100.0),
    "prob_skip": Metric("mean probability softmax(α), %", "skip", 100.0),
    "prob_none": Metric("mean probability softmax(α), %", "none", 100.0),
    "alpha_entropy": Metric("entropy of softmax(α), nats"),
    "support": Metric("operations run per edge"),
    "parameters": Metric(PARAMETERS),
    "macs": Metric(MACS),
    "latency_ms": Metric("latency in ms (one image, one thread)"),
    "cost": Metric("seconds per evaluation"),
    "inherited": Metric("inherited weights, %", scale=100.0),
    "generation": Metric("ancestors of the candidate"),
    "failed": Metric("failed candidates in total"),
    "budget": Metric("epochs per candidate", "budget"),
    "epochs": Metric("epochs per candidate", "trained"),
    "episode_length": Metric("steps per training episode"),
    "eval_episodes_cut": Metric("evaluation episodes cut"),
    "policy_loss": Metric("policy loss", "policy"),
    "actor_loss": Metric("policy loss", "policy"),
    "value_loss": Metric("value loss"),
    "entropy": Metric("entropy of the policy, nats"),
    "imagined_return": Metric("imagined return"),
    "observation_loss": Metric("observation loss, nats"),
    "reward_loss": Metric("reward loss, nats"),
    "continue_loss": Metric("continuation loss, nats"),
    "kl": Metric("KL divergence, nats"),
    "grad_norm": Metric("gradient norm", "all parameters"),
    "model_grad_norm": Metric("gradient norm", "model"),
    "actor_grad_norm": Metric("gradient norm", "policy"),
    "value_grad_norm": Metric("gradient norm", "value"),
}
# Functions of the epoch or step alone, which the configuration states; "seconds" is the total so far.
SCHEDULES = {"lr", "tau", "epsilon", "beta", "seconds", "architectures"}


def metric(name: str) -> Metric:
    """Return how a metric is drawn."""
    if name in METRICS:
        return METRICS[name]
    if name.startswith(OF_GROUP):
        return Metric("return of each agent or task", name.removeprefix(OF_GROUP))
    words = name.replace("_", " ")
    return Metric(f"{words}, %", scale=None) if name.endswith("accuracy") else Metric(words)


def order(axis: str) -> int:
    """Return the place of an axis title in the table; titles that are missing come last."""
    axes = [known.axis for known in METRICS.values()]
    return axes.index(axis) if axis in axes else len(axes)


def order_of_lines(name: str) -> int:
    """Return the place of a metric in the table; metrics that are missing come last."""
    return list(METRICS).index(name) if name in METRICS else len(METRICS)


def in_unit(values: Sequence[float], scale: float | None) -> list[float]:
    """Convert logged values to the unit of the axis; see :class:`Metric`."""
    if scale is None:
        scale = 100.0 if all(value <= 1 for value in values) else 1.0
    return [scale * value for value in values]
