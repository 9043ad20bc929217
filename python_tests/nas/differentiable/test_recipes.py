"""Recipes and switches of whole searches: what is stored, what is refused, and exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from automl_ext.nas.differentiable import darts as darts_search
from automl_ext.nas.differentiable import entmax_gdas, gdas, perturbation
from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.differentiable.darts import DARTSConfig
from automl_ext.nas.differentiable.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.differentiable.gdas import GDASConfig
from automl_ext.nas.differentiable.perturbation import Perturbation
from automl_ext.nas.differentiable.recipes import RECIPES, with_recipe
from automl_ext.nas.spaces.nasbench201 import NASBench201, NASBench201Supernet
from automl_ext.training.errors import UserError
from automl_ext.training.files.checkpoint import list_steps

pytest.importorskip("tyro", reason="the command line needs tyro")
from automl_ext.cli import main

pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")

Search = Callable[..., dict[str, Any] | None]
TINY = {"subset": 100, "channels": 2, "epochs": 2, "batch_size": 20, "retrain_epochs": 1, "retrain_channels": 2}
SEARCHES: dict[str, tuple[Search, SupernetConfig]] = {
    "gdas": (gdas.search, GDASConfig(**TINY)),
    "entmax-gdas": (entmax_gdas.search, EntmaxGDASConfig(**TINY)),
    "darts": (darts_search.search, DARTSConfig(**TINY)),
}
every_search = pytest.mark.parametrize("name", SEARCHES)
SWITCHES: dict[str, dict[str, Any]] = {
    "robust": {},
    "before the derivation": {"none": False, "warmup": 0.5, "fair_warmup": True, "beta_decay": 50.0, "stop_skip": 0.9},
    "partial channels": {"partial_channels": 2, "derive": "perturbation"},
}


def without_times(result: dict[str, Any] | None) -> dict[str, Any]:
    assert result is not None
    return {key: value for key, value in result.items() if key != "times"}


@every_search
@pytest.mark.parametrize("switches", SWITCHES)
def test_resume_equals_uninterrupted_search(name: str, switches: str, tmp_path: Path) -> None:
    search, config = SEARCHES[name]
    robust = replace(with_recipe("robust", config), orders=2)
    config = robust if switches == "robust" else replace(config, **SWITCHES[switches])
    found = search(config, tmp_path / "whole")
    stops = 0
    while (again := search(config, tmp_path / "parts", resume="auto", stop_after=2)) is None:
        torch.rand(7)  # the run must not depend on the global generator
        stops += 1
    assert stops >= (4 if config.derive == "perturbation" else 1), "the derivation is interrupted too"
    assert without_times(again) == without_times(found)
    metrics = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "parts")]
    assert metrics[0] == metrics[1]
    if not config.none:
        assert "none" not in NASBench201().parse(again["genotype"]).operations
    if config.fair_warmup:
        first = json.loads(metrics[0].splitlines()[0])
        assert first["search_support"] == 1.0, "DARTS would run all operations"
    if config.beta_decay and config.alpha_lr > 0.01:
        assert max(max(row[1:]) for row in again["alpha"][0]) < 0, "λ outweighs the loss and lowers every α"


def test_darts_space_with_perturbation_and_partial_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies are drawn, because measuring them takes a hundred passes of a large supernet."""
    values = iter(torch.rand(1000, generator=torch.Generator().manual_seed(0)).tolist())

    def drawn(derivation: Perturbation, draw: Any, seed: int) -> tuple[float, float]:
        (choice,) = draw(torch.Generator())
        assert all(choice.active)
        return next(values), 0.0

    monkeypatch.setattr(Perturbation, "measure", drawn)
    config = replace(
        with_recipe("robust", SEARCHES["darts"][1]), space="darts-frc", epochs=1, partial_channels=2, tune_epochs=0
    )
    found = darts_search.search(replace(config, subset=60, batch_size=18, orders=2), tmp_path / "run")
    assert found is not None
    assert found["genotype"].endswith("reduction=fixed")


@every_search
def test_recipe_paper_is_the_default_and_switches_are_off(name: str) -> None:
    config = SEARCHES[name][1]
    assert with_recipe("paper", config) == config
    off = {"beta_decay": 0.0, "none": True, "fair_warmup": False, "partial_channels": 1, "stop_skip": None}
    off |= {"derive": "alpha", "tie": 0.0}
    assert {key: getattr(config, key) for key in off} == off
    assert with_recipe("robust", config) != config
    for recipe in RECIPES.values():
        for kind, values in recipe.items():
            assert set(values) <= {field.name for field in fields(kind)}


def test_unknown_recipes_are_refused() -> None:
    with pytest.raises(UserError, match="--recipe: expected one of paper, robust, got 'best'"):
        with_recipe("best", GDASConfig())
    with pytest.raises(UserError, match="--recipe robust: expected the configuration of gdas"):
        with_recipe("robust", SupernetConfig())


def test_command_line_overrides_the_recipe_and_stores_the_switches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items()]
    out = ["--out", str(tmp_path / "run")]
    assert main(["search", "gdas", "--recipe=robust", "--tune-epochs=0", "--none", *options, *out]) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = RECIPES["robust"][GDASConfig] | {"tune_epochs": 0, "none": True}
    assert {key: stored[key] for key in expected} == expected
    capsys.readouterr()
    assert main(["search", "darts", "--recipe", "other", "--out", str(tmp_path / "other")]) == 2
    assert "--recipe: expected one of paper, robust, got 'other'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


FIXED = {"derive": "perturbation", "warmup": 1.0}  # α is not trained


def test_training_between_decisions_weighs_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, step, given = (2.0, *[1.0] * 9), perturbation.weight_step, []

    def recorded(*args: Any) -> Any:
        given.append(args[-1].tolist())
        return step(*args)

    monkeypatch.setattr(perturbation, "weight_step", recorded)
    search, config = SEARCHES["darts"]
    search(replace(config, **FIXED, class_weights=weights), tmp_path / "run")
    assert given
    assert all(w == list(weights) for w in given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fair_warmup": True, "warmup": 0.0}, "fair_warmup: expected warmup above 0, got 0"),
        ({"partial_channels": 3}, r"partial_channels: expected a divisor of channels \(2\), got 3"),
        (
            {"derive": "alpha", "warmup": 1.0},
            "warmup: expected below 1 with derive = 'alpha', got 1, as in the recipe robust",
        ),
        ({"derive": "other"}, "derive: expected"),
        ({"derive": "perturbation", "tie": 0.1}, "tie: expected 0 with derive perturbation"),
        ({"stop_skip": 0.0}, "stop_skip: expected above 0 and at most 1"),
        ({**FIXED, "beta_decay": 5.0}, "beta_decay: expected warmup below 1, got 1: α is fixed during the warm-up"),
        ({**FIXED, "stop_skip": 0.25}, "stop_skip: expected warmup below 1, got 1"),
    ],
)
@every_search
def test_switches_that_do_not_fit_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SEARCHES[name][1], **changes)


class Plain(NASBench201):
    """A space whose supernet neither names its operations nor has partial channels."""

    def build_supernet(self, **shape: Any) -> NASBench201Supernet:  # type: ignore[override]
        net = super().build_supernet(**shape)
        net.operations = ()
        return net


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"none": False}, "--no-none: NASBench201Supernet.operations: expected the names of 5 operations, got 0"),
        ({"stop_skip": 0.5}, "--stop-skip: NASBench201Supernet.operations: expected the names of 5"),
        ({"partial_channels": 2}, "--partial-channels: Plain.build_supernet does not have the argument"),
    ],
)
def test_spaces_that_lack_something_are_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    search, config = SEARCHES["darts"]
    with pytest.raises(UserError, match=message):
        search(replace(config, **changes), tmp_path / "run", space=Plain())
    assert not (tmp_path / "run").exists()


def test_score_decides_ties_in_a_search(tmp_path: Path) -> None:
    """With ``tie`` 1 all operations compete, so the score alone decides."""
    search, config = SEARCHES["gdas"]

    def pools(genotype: Any) -> float:
        return float(genotype.operations.count("avg_pool_3x3"))

    found = search(replace(config, tie=1.0), tmp_path / "run", score=pools)
    assert found is not None
    assert NASBench201().parse(found["genotype"]).operations == ("avg_pool_3x3",) * 6
    with pytest.raises(UserError, match="score: expected None if tie is 0"):
        search(config, tmp_path / "other", score=pools)


def test_checkpoints_without_switches_are_resumed(tmp_path: Path) -> None:
    """A checkpoint written before the switches existed lacks their options and the entry ``stopped``."""
    from automl_ext.training.files import checkpoint

    search, config = SEARCHES["gdas"]
    found = search(config, tmp_path / "whole")
    assert search(config, tmp_path / "old", stop_after=1) is None
    folder = tmp_path / "old" / "checkpoints"
    (path,) = list_steps(folder)
    manifest = checkpoint.read_manifest(path)
    state = checkpoint.read_state(path, manifest)
    del state["job"]["stopped"]
    facts = {key: manifest[key] for key in ("algorithm", "config", "environment", "metrics_bytes")}
    new = ("beta_decay", "none", "fair_warmup", "partial_channels", "stop_skip", "derive", "tune_epochs", "tie")
    facts["config"] = {key: value for key, value in facts["config"].items() if key not in new}
    checkpoint.remove(path)
    checkpoint.write(folder, 1, state, facts)
    assert without_times(search(config, tmp_path / "old", resume="auto")) == without_times(found)


def test_checkpoint_of_the_recipe_paper_is_refused_by_robust(tmp_path: Path) -> None:
    search, config = SEARCHES["darts"]
    assert search(config, tmp_path / "run", stop_after=1) is None
    with pytest.raises(UserError, match="derive"):
        search(with_recipe("robust", config), tmp_path / "run", resume="auto")
