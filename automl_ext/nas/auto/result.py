"""The result of ``search auto``: the networks that it found, and the baselines of the same cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from automl_ext.data.images import Splits
from automl_ext.nas.auto.plan import Done, search_seconds
from automl_ext.nas.ensembles.ensemble import measure_votes
from automl_ext.nas.training.result import KEYS, class_report, count_pairs
from automl_ext.training.ensembles.selection import greedy_selection, likelihoods
from automl_ext.training.errors import UserError


def summarize(splits: Splits, rounds: int, done: Sequence[Done]) -> dict[str, Any]:
    """Select networks and ensembles on the validation images, and test them.

    Args:
        splits: the images.
        rounds: number of rounds of the ensemble's greedy selection.
        done: all finished tasks.

    Returns:
        ``rows`` has one entry for each of: the best finalist ("found"), the largest architecture of the space, the best
        random one, the ensemble of the finalists and the largest one, and the ensemble of the random ones. A row has
        valid_accuracy, test_accuracy (0 to 1), valid_log_loss, test_log_loss (nats), parameters and ``seconds``, its
        cost. A network also has ``genotype`` and ``member``: its weights are in ``members/MEMBER.pt``. ``source`` is
        the name of the network with the lowest validation log-loss; ``genotype``, ``member``, the measurements and the
        accuracies by class (:func:`~automl_ext.nas.training.result.class_report`) are of this network.
        ``trajectory`` has, for "search" and "random", the cost after each full training and the test accuracy of the
        best network so far. ``stages`` has the number of tasks and the cost of each stage.

    Raises:
        UserError: all full trainings diverged.
    """
    full, random = (
        [d for d in done if d.task.stage == stage and d.valid_accuracy >= 0] for stage in ("full", "random")
    )
    if not full:
        raise UserError("search auto: all full trainings diverged; try a lower --lr")
    cost = search_seconds(done)
    largest = done[0].task.genotype  # the probe trains it
    rows = network_rows([d for d in full if d.task.genotype != largest], splits, "found", cost)
    alone = [d for d in full if d.task.genotype == largest]
    rows += network_rows(alone, splits, "largest", sum(d.seconds for d in alone))
    random_cost = sum(d.seconds for d in random)
    rows += network_rows(random, splits, f"best of {len(random)} random", random_cost)
    best = max(rows, key=merit)
    rows += ensemble_rows(full, splits, rounds, "ensemble", cost)
    rows += ensemble_rows(random, splits, rounds, f"ensemble of {len(random)} random", random_cost)
    return {
        "source": best["name"],
        **{key: value for key, value in best.items() if key not in ("name", "seconds")},
        **classes_of(next(d for d in done if d.task.number == best["member"]), splits),
        "rows": rows,
        "trajectory": {
            "search": trajectory(full, splits, cost - sum(d.seconds for d in full)),
            "random": trajectory(random, splits, 0.0),
        },
        "stages": {
            stage: {"tasks": len(tasks), "seconds": sum(d.seconds for d in tasks)}
            for stage in ("probe", "screen", "derive", "short", "full", "random")
            if (tasks := [d for d in done if d.task.stage == stage])
        },
    }


def classes_of(done: Done, splits: Splits) -> dict[str, Any]:
    """Return the confusion matrix of a network on the test images, and what follows from it."""
    counts = count_pairs(splits.test.labels, done.measured["test"].argmax(-1), splits.num_classes)
    report = class_report(counts, splits.train.labels, splits.classes)
    return {key: report[key] for key in KEYS}


def merit(losses: dict[str, Any]) -> tuple[float, float]:
    """Return the criterion of selection: a low validation log-loss; of equal ones, the higher validation accuracy.

    Networks of one space often differ by less than the standard error of the accuracy on a few thousand images. Every
    image changes the log-loss, so it tells them apart with fewer images.
    """
    return -losses["valid_log_loss"], losses["valid_accuracy"]


def measure(votes: list[int], done: Sequence[Done], splits: Splits) -> dict[str, float]:
    """Return valid_accuracy, valid_log_loss, test_accuracy and test_log_loss of an average of networks."""
    valid, test = (torch.stack([d.measured[part] for d in done]).double().exp() for part in ("valid", "test"))
    losses = measure_votes(votes, valid, test, splits)
    return {key: value for key, value in losses.items() if key != "votes"}


def network_rows(done: Sequence[Done], splits: Splits, name: str, seconds: float) -> list[dict[str, Any]]:
    """Return the row of the network with the lowest validation log-loss; no row if there is no network."""
    if not done:
        return []
    losses = [measure([1], [d], splits) for d in done]
    i = max(range(len(done)), key=lambda k: merit(losses[k]))
    facts = {"genotype": str(done[i].task.genotype), "member": done[i].task.number}
    return [{"name": name, **facts, **losses[i], "parameters": done[i].measured["parameters"], "seconds": seconds}]


def ensemble_rows(done: Sequence[Done], splits: Splits, rounds: int, name: str, seconds: float) -> list[dict[str, Any]]:
    """Return the row of the greedily selected ensemble; no row if there is no network."""
    if not done:
        return []
    valid = torch.stack([d.measured["valid"] for d in done]).double().exp()
    votes = greedy_selection(likelihoods(valid, splits.valid.labels), rounds)
    chosen = [(d, v) for d, v in zip(done, votes, strict=True) if v]
    return [
        {
            "name": name,
            "members": [{"genotype": str(d.task.genotype), "member": d.task.number, "votes": v} for d, v in chosen],
            **measure(votes, done, splits),
            "parameters": sum(d.measured["parameters"] for d, _ in chosen),
            "seconds": seconds,
        }
    ]


def trajectory(done: Sequence[Done], splits: Splits, start: float) -> list[dict[str, float]]:
    """Return the cost and the test accuracy of the best network so far, after each full training.

    Args:
        start: the cost before the first of them.
    """
    points: list[dict[str, float]] = []
    best: dict[str, float] | None = None
    for d, seconds in zip(done, accumulate(d.seconds for d in done), strict=True):
        losses = measure([1], [d], splits)
        if best is None or merit(losses) > merit(best):
            best = losses
        points.append({"seconds": start + seconds, "test_accuracy": best["test_accuracy"]})
    return points
