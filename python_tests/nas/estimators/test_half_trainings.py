"""The evaluators that replace a half of a training: by a learning curve, or by a narrower network."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from automl_ext.data.images import load_images, split_images
from automl_ext.nas.estimators import widening
from automl_ext.nas.estimators.extrapolation import Extrapolation
from automl_ext.nas.estimators.learning_curve import fit
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
from automl_ext.nas.estimators.widening import Widening
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.training.training_options import TrainingConfig

SPACE = NASBench201()
CELL = SPACE.decode([3, 2, 1, 3, 0, 4])
CURVE = [0.3, 0.4, 0.45, 0.48]


def extrapolated(curve: list[float]) -> tuple[Evaluation, list[int]]:
    """Extrapolate a curve to eight epochs. Also return the epochs of the trainings."""
    trained = []

    def evaluate(genotype: Any, budget: int, state: dict[str, Any] | None) -> Evaluation:
        assert state == ({"epoch": budget - 1} if budget > 1 else None)  # each epoch continues the one before
        trained.append(budget)
        score = curve[budget - 1]
        return Evaluation(score, 1.0, {"epoch": budget}, failed=math.isinf(score), measured={"epochs": 1})

    config = TrainingConfig(epochs=8)
    training = SimpleNamespace(config=config, device=torch.device("cpu"), evaluate=evaluate)
    return Extrapolation(cast(LowerFidelity, training)).evaluate(CELL), trained


def test_the_score_is_the_extrapolated_accuracy() -> None:
    evaluation, trained = extrapolated(CURVE)
    assert trained == [1, 2, 3, 4]
    assert evaluation.score == fit(CURVE).predict(8).mean > 0.49
    assert evaluation.measured == {"epochs": 4, "observed": 0.48}


def test_a_diverging_training_is_not_extrapolated() -> None:
    evaluation, trained = extrapolated([0.3, -math.inf])
    assert trained == [1, 2]
    assert evaluation.failed
    assert evaluation.measured["epochs"] == 2


def test_the_wide_network_starts_with_the_function_of_the_trained_narrow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widening, "NOISE", 0.0)
    splits = split_images(load_images("digits", subset=100))
    training = LowerFidelity(TrainingConfig(channels=4, epochs=3), splits, space=SPACE)
    evaluator = Widening(training)
    narrow = evaluator.narrow.evaluate(CELL, 1).state
    assert narrow is not None
    wide = evaluator.widened(CELL, narrow)
    networks = []
    for channels, state in ((2, narrow), (4, wide)):
        network = SPACE.build(CELL, in_channels=1, num_classes=10, channels=channels, cells=1).eval()
        network.load_state_dict(state["training"]["network"])
        networks.append(network)
    torch.testing.assert_close(networks[1](splits.valid.images), networks[0](splits.valid.images))
    evaluation = evaluator.evaluate(CELL)
    assert evaluation.measured["epochs"] == 2  # of the three
    assert evaluation.score == training.evaluate(CELL, None, wide).score
    assert training.config.channels == 4
