"""The result of ``search auto``: the network that it returns, and the baselines of equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.auto.entrant import Entrant
from automl_ext.nas.auto.plan import Networks
from automl_ext.nas.auto.trainee import Recipe
from automl_ext.nas.auto.work import HELD_LEAST, right
from automl_ext.nas.ensembles.ensemble import measure_votes
from automl_ext.nas.training.result import KEYS, class_report, count_pairs, network_facts


def summarize(
    networks: Networks,
    images: Splits,
    winner: Entrant,
    entrants: Sequence[Entrant],
    recipe: Recipe,
    spent: dict[str, float],
    decided: bool = True,
) -> dict[str, Any]:
    """Return the contents of ``result.json``.

    Args:
        decided: whether a network beat chance in each rung of the race.

    Returns:
        ``rows`` has one entry for the network that is returned ("found"), and each baseline. A row has test_accuracy,
        valid_accuracy (0 to 1), test_log_loss, valid_log_loss (nats), valid_earlier (see :func:`row`),
        parameters, epochs, steps and ``seconds``, its whole cost. ``space``, ``genotype``, ``member`` (its weights are
        in ``members/MEMBER.pt``), the measurements and the accuracies by class
        (:func:`~automl_ext.nas.training.result.class_report`) are of the returned network. ``race`` has a row for each
        network of the race; ``race_decided`` is False if none beat chance in a rung, so that the budget decided, and
        not the losses. ``networks`` has the names of all networks, by the numbers in the names of metrics.
        ``trajectory`` has the cost and the test accuracy after each measurement of the returned network and of the
        baselines. ``stages`` has the costs, ``recipe`` the options of ``automl-ext retrain`` that train the returned
        network similarly: ``retrain`` has another schedule, no label smoothing, and no average of the weights.
    """
    search = sum(seconds for stage, seconds in spent.items() if stage != "baseline")
    baselines = [e for e in entrants if e.baseline]
    found = row(winner, networks, images, search)
    others = [row(e, networks, images, e.seconds) for e in baselines if not e.diverged]
    counts = count_pairs(images.test.labels, winner.snapshots[-1][1].argmax(-1), networks.splits.num_classes)
    report = class_report(counts, images.train.labels, networks.splits.classes)
    return {
        "source": "found",
        **{key: value for key, value in found.items() if key != "name"},
        **{key: report[key] for key in KEYS},
        "recipe": {
            "space": winner.entry.space,
            "channels": winner.entry.channels,
            "cells": winner.entry.cells,
            "epochs": max(round(winner.epochs), 1),
            **vars(recipe),
        },
        "network": network_facts(winner.entry, networks.splits),  # type: ignore[arg-type]
        "rows": [{**found, "name": "found"}, *others],
        "baselines": bool(baselines),
        "race": [race_row(e, images) for e in entrants if not e.baseline],
        "race_decided": decided,
        "networks": [e.entry.name for e in entrants],
        "trajectory": {
            e.entry.name if e.baseline else "search": trajectory(e, images, 0.0 if e.baseline else search - e.seconds)
            for e in (winner, *baselines)
            if e.snapshots
        },
        "stages": spent,
    }


def row(entrant: Entrant, networks: Networks, images: Splits, seconds: float) -> dict[str, Any]:
    """Return the row of a trained network.

    If the network was finally trained on the validation images too, ``valid_earlier`` is True, and the validation
    figures were measured before that. The test figures are always those of the finished network.
    """
    valid, test = entrant.snapshots[-1]
    if earlier := is_earlier(entrant, images):
        valid = entrant.snapshots[entrant.clean - 1][0]
    return {
        "name": entrant.entry.name,
        "network_name": entrant.entry.name,
        "space": entrant.entry.space,
        "genotype": str(networks.genotype(entrant.entry)),
        "member": entrant.number,
        **accuracies(valid, test, images),
        "valid_earlier": earlier,
        "parameters": entrant.parameters,
        "epochs": entrant.epochs,
        "steps": entrant.steps,
        "seconds": seconds,
    }


def is_earlier(entrant: Entrant, images: Splits) -> bool:
    """Return whether a finished network was trained on the validation images after its last validation."""
    return len(images.valid.labels) < HELD_LEAST and 0 < entrant.clean < len(entrant.snapshots)


def race_row(entrant: Entrant, images: Splits) -> dict[str, Any]:
    """Return the measurements of a network in the race, without losses on images that it was trained on."""
    trained = is_earlier(entrant, images)
    losses = entrant.losses[: entrant.clean] + [math.inf] * entrant.diverged if trained else entrant.losses
    facts = {key: getattr(entrant, key) for key in ("parameters", "epochs", "steps", "seconds")}
    return {"name": entrant.entry.name, "genotype": entrant.entry.genotype, **facts, "valid_log_loss": losses}


def accuracies(valid: Tensor, test: Tensor, images: Splits) -> dict[str, float]:
    """Return the accuracies and log-losses of log-probabilities of the validation and test images."""
    measured = measure_votes([1], valid[None].double().exp(), test[None].double().exp(), images)
    return {key: value for key, value in measured.items() if key != "votes"}


def trajectory(entrant: Entrant, images: Splits, start: float) -> list[dict[str, float]]:
    """Return the cost, ``start`` seconds included, and the test accuracy after each measurement of a network."""
    return [
        {"seconds": start + seconds, "test_accuracy": right(test, images.test.labels)}
        for seconds, (_, test) in zip(entrant.measured_at, entrant.snapshots, strict=True)
    ]


def best_so_far(entrant: Entrant, entrants: Sequence[Entrant], networks: Networks) -> dict[str, Any]:
    """Return the contents of ``best.json``, with the entries of ``result.json`` that an export and a plot need.

    There are no accuracies: the weights are newer than the last measurement.
    """
    return {
        "genotype": str(networks.genotype(entrant.entry)),
        "member": entrant.number,
        "network": network_facts(entrant.entry, networks.splits),  # type: ignore[arg-type]
        "networks": [e.entry.name for e in entrants],
        "epochs": entrant.epochs,
        "steps": entrant.steps,
    }
