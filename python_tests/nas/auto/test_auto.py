"""``search auto`` on a few digits: the result, its files, and resuming."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")
from automl_ext.nas.auto import plan
from automl_ext.nas.auto.auto import auto, largest
from automl_ext.nas.auto.plan import AutoConfig
from automl_ext.nas.data import load_splits
from automl_ext.nas.export.export import export, load_network
from automl_ext.nas.plot import plot_run
from automl_ext.nas.spaces.registry import space

CONV = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def small_plan() -> Iterator[None]:
    """The same plan at any speed."""
    fixed = plan.Plan(screening=0.0, derive=0.0, rungs=(1, 2), rung_seconds=0.0, finalists=2, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "make_plan", lambda *_: fixed)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_plan: None) -> dict[str, Any]:
    """The result of a search without baselines that was not interrupted."""
    result = auto(config(baselines=False), tmp_path_factory.mktemp("auto") / "whole")
    assert result is not None
    return result


def config(**options: Any) -> AutoConfig:
    """A small search. Two finalists, because further ones depend on the time that is left."""
    return AutoConfig(subset=150, channels=2, epochs=2, candidates=6, minutes=0.01, finalists=2, **options)


def test_largest_architecture_of_the_spaces() -> None:
    assert str(largest(space("nb201"))) == CONV
    sizes = []
    darts = space("darts-frc")
    for genotype in (largest(darts), darts.random(random.Random(1))):
        network = darts.build(genotype, in_channels=3, num_classes=10, channels=4, cells=1)
        sizes.append(sum(p.numel() for p in network.parameters()))
    assert sizes[0] > sizes[1]


def test_result_and_files(tmp_path: Path, small_plan: None) -> None:
    result = auto(config(), tmp_path / "run")
    assert result is not None
    assert json.loads((tmp_path / "run/result.json").read_text())["genotype"] == result["genotype"]
    rows = {row["name"]: row for row in result["rows"]}
    networks = [row for row in result["rows"] if "member" in row]
    assert result["source"] == min(networks, key=lambda row: row["valid_log_loss"])["name"]
    assert rows["largest"]["genotype"] == CONV
    assert rows["found"]["genotype"] != CONV
    best = min(rows["found"]["valid_log_loss"], rows["largest"]["valid_log_loss"])
    assert rows["ensemble"]["valid_log_loss"] <= best + 1e-9
    confusion = torch.tensor(result["confusion"])
    splits = load_splits(config())
    sizes, right = torch.bincount(splits.test.labels, minlength=10), confusion.diag()
    assert confusion.sum(1).tolist() == sizes.tolist()
    assert float(right.sum() / sizes.sum()) == pytest.approx(result["test_accuracy"])
    assert result["class_accuracy"] == {str(k): pytest.approx(float(right[k] / sizes[k])) for k in range(10)}
    majority = torch.bincount(splits.train.labels).argmax()
    assert result["majority_accuracy"] == pytest.approx(float(sizes[majority] / sizes.sum()))
    stages = result["stages"]
    assert [stages[s]["tasks"] for s in ("probe", "screen", "short", "full")] == [1, 1, 4, 3]
    search = sum(stages[s]["seconds"] for s in ("probe", "screen", "short", "full"))
    assert rows["found"]["seconds"] == pytest.approx(search)
    assert stages["random"]["seconds"] >= search
    network, genotype, _, facts = load_network(tmp_path / "run")
    assert str(genotype) == result["genotype"]
    assert network(torch.zeros(2, 1, *facts["image_size"])).shape == (2, 10)
    assert [path.suffix for path in export(tmp_path / "run", tmp_path / "net.py")] == [".py", ".pt"]
    pytest.importorskip("matplotlib")
    assert {"accuracy.png", "cell.png", "confusion.png"} <= {path.name for path in plot_run(tmp_path / "run")}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("steps", [2, 4, 6])  # in the screening, in a short training, in a full one
def test_an_interrupted_search_ends_alike(tmp_path: Path, whole: dict[str, Any], steps: int) -> None:
    options = config(baselines=False)
    assert auto(options, tmp_path / "parts", stop_after=steps) is None
    parts = auto(options, tmp_path / "parts", resume="auto")
    assert without_times(parts) == without_times(whole)


def test_options_that_do_not_fit_are_refused_before_there_is_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="minutes"):
        AutoConfig(minutes=0)
    with pytest.raises(ValueError, match="finalists"):
        AutoConfig(finalists=1)
    assert not (tmp_path / "run").exists()
