"""The result of the training of a network: accuracies on the test images, costs, and how to build it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits
from automl_ext.nas.costs import count_macs, count_parameters
from automl_ext.nas.data import network_shape
from automl_ext.nas.training.batches import logits, to_device
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.training_options import TrainingConfig

KEYS = ("majority_accuracy", "class_accuracy", "confusion")


def measure(training: NetworkTraining, genotype: Any, splits: Splits) -> dict[str, Any]:
    """Measure a trained network, and return the entries of ``result.json``.

    :func:`class_report` describes the accuracies. ``times`` holds everything that is not reproducible.
    """
    labels = training.split.labels
    counts = confusion_matrix(training.network, to_device(splits.test, labels.device), splits.num_classes)
    return {
        "genotype": str(genotype),
        **class_report(counts, labels.cpu(), splits.classes),
        "parameters": count_parameters(training.network),
        "macs": count_macs(training.network, (splits.in_channels, *splits.image_size)),
        "network": network_facts(training.config, splits),
        "times": {"retrain_seconds": training.clock.wall, "retrain_cpu_seconds": training.clock.cpu},
    }


def network_facts(config: TrainingConfig, splits: Splits) -> dict[str, Any]:
    """Return the facts from which a trained network can be built again: the entry ``network`` of a result."""
    return {
        "space": config.space,
        "shape": network_shape(splits, config.channels, config.cells),
        "image_size": list(splits.image_size),
        "mean": list(splits.mean),
        "std": list(splits.std),
        "classes": list(splits.classes),
    }


def confusion_matrix(network: nn.Module, split: Split, num_classes: int) -> Tensor:
    """Count the images by true class (row) and predicted class (column): int64 [K, K] on the CPU."""
    return count_pairs(split.labels, logits(network, split).argmax(-1), num_classes)


def count_pairs(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count the images by true class (row) and predicted class (column): int64 [K, K] on the CPU.

    ``labels`` and ``predicted`` are int64 [N].
    """
    pairs = (labels * num_classes + predicted).cpu()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def class_report(counts: Tensor, train_labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the entries of ``result.json`` that follow from a confusion matrix.

    Returns:
        test_accuracy; majority_accuracy, the test accuracy of always predicting the most frequent class of the training
        images; class_accuracy, by class name, the accuracy on the test images of the class, None if there are none;
        confusion, which is ``counts`` as lists.
    """
    total = int(counts.sum())
    sizes, right = counts.sum(1).tolist(), counts.diag().tolist()
    majority = int(torch.bincount(train_labels, minlength=len(classes)).argmax())
    return {
        "test_accuracy": sum(right) / total,
        "majority_accuracy": sizes[majority] / total,
        "class_accuracy": {name: k / n if n else None for name, k, n in zip(classes, right, sizes, strict=True)},
        "confusion": counts.tolist(),
    }
