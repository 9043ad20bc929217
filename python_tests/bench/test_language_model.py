"""``benchmarks/steps/language_model*.py``: models that differ only in their attention, and what is measured of them."""

from __future__ import annotations

import json
from typing import Any

import language_model as script
import language_model_training as training
import pytest
import torch


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 2, "LENGTH": 12, "WIDTH": 8, "HEADS": 2, "LAYERS": 1}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(training, "LENGTH", 12)


def test_models_of_one_function_have_equal_losses() -> None:
    result: dict[str, Any] = script.measure(rounds=4, warm_up=1)
    assert json.dumps(result)
    losses = result["loss"]
    assert losses["fused softmax"] == pytest.approx(losses["softmax"], abs=2e-3)
    assert losses["fused entmax15"] == pytest.approx(losses["entmax15"], abs=2e-3)
    if "entmax package" in losses:
        assert losses["entmax package"] == pytest.approx(losses["entmax15"], abs=2e-3)
    assert result["over_softmax"]["softmax"] == 1
    assert min(result["ms_per_step"].values()) > 0


def test_no_model_reads_the_future() -> None:
    tokens = torch.randint(256, (1, 12), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 6:] = 0
    for attend in script.contenders().values():
        model = script.LanguageModel(attend)
        torch.testing.assert_close(model(tokens)[:, :6], model(other)[:, :6])


def test_training_measures_the_loss_and_the_weights_that_are_not_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in training.WEIGHTS:
        model, row = training.train(name, script.contenders()[name], 0, 0.1)
        first, *others = row["marks"]
        assert first["steps"] == 0
        assert [mark["steps"] for mark in others] == sorted({mark["steps"] for mark in others} - {0})
        assert len(others) == len(training.MARKS) - 1
        assert first["loss"] == pytest.approx(5.5, abs=0.6)  # that of 256 equally probable bytes is 5.55
        tokens = torch.randint(256, (3, 12), generator=torch.Generator().manual_seed(0))
        (weights,) = training.attention_weights(model, tokens, name)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 12))
        assert not weights[..., script.future(12)].any()
    monkeypatch.setattr(training, "attention_weights", lambda *_: [torch.eye(12).expand(8, 2, 12, 12)])
    assert training.measure(model, tokens.flatten().repeat(9), name)["nonzero"] == [round(12 / 78, 4)]
