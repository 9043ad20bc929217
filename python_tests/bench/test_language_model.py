"""``benchmarks/steps/language_model.py``: the models differ only in their attention weights."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType
from typing import Any

import pytest
import torch
from paths import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("language_model", ROOT / "benchmarks/steps/language_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"BATCH": 2, "LENGTH": 12, "WIDTH": 8, "HEADS": 2, "LAYERS": 1}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_models_of_one_function_have_equal_losses(script: ModuleType) -> None:
    result: dict[str, Any] = script.measure(rounds=4, warm_up=1)
    assert json.dumps(result)
    losses = result["loss"]
    assert losses["fused softmax"] == pytest.approx(losses["softmax"], abs=2e-3)
    assert losses["fused entmax15"] == pytest.approx(losses["entmax15"], abs=2e-3)
    if "entmax package" in losses:
        assert losses["entmax package"] == pytest.approx(losses["entmax15"], abs=2e-3)
    assert result["over_softmax"]["softmax"] == 1
    assert min(result["ms_per_step"].values()) > 0


def test_no_model_reads_the_future(script: ModuleType) -> None:
    tokens = torch.randint(256, (1, 12), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 6:] = 0
    for attend in script.contenders().values():
        model = script.LanguageModel(attend)
        torch.testing.assert_close(model(tokens)[:, :6], model(other)[:, :6])
