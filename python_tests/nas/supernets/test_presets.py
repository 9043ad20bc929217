"""The preset of the papers, and options that were removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from paths import ROOT

from automl_ext.cli import main
from automl_ext.nas.supernets.darts import DARTSConfig
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.perturbation import PerturbationConfig
from automl_ext.nas.supernets.presets import preset
from automl_ext.nas.supernets.supernet_options import SupernetConfig

TINY = ["--subset=100", "--channels=2", "--cells=1", "--epochs=2", "--batch-size=20"]
TINY += ["--retrain-epochs=1", "--retrain-channels=2", "--retrain-cells=1"]


def test_paper_has_the_values_of_the_publication_and_flags_override_it(tmp_path: Path) -> None:
    assert main(["search", "gdas", "--preset=paper", *TINY, "--out", str(tmp_path / "run")]) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = {"none": True, "warmup": 0.0, "lr": 0.025, "alpha_lr": 3e-4, "tau_max": 10.0, "tau_min": 0.1}
    expected |= {"form": "nb201", "weight_decay": 5e-4, "alpha_beta1": 0.5, "channels": 2}
    assert {key: stored[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("kind", "epochs", "weight_decay"),
    [
        (GDASConfig, 250, 5e-4),  # GDAS.config and DARTS.config of D-X-Y/AutoDL-Projects
        (DARTSConfig, 50, 5e-4),
        (PerturbationConfig, 100, 3e-4),  # nasbench201/train_search.py of ruocwang/darts-pt
    ],
)
def test_paper_has_the_length_and_the_weight_decay_of_the_authors_code(
    kind: type[SupernetConfig], epochs: int, weight_decay: float
) -> None:
    config = preset("paper", kind())
    assert (config.epochs, config.weight_decay) == (epochs, weight_decay)
    assert (config.lr, config.lr_min, config.batch_size, config.momentum) == (0.025, 0.001, 64, 0.9)


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        ("gdas", ["--preset", "robust"], "--preset: expected paper, got 'robust'"),
        ("entmax-gdas", ["--preset=paper"], "--preset: expected none, got 'paper'"),
    ],
)
def test_other_presets_are_refused(
    search: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", search, *options, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_table_of_the_docs_has_the_defaults_and_the_papers_values() -> None:
    page = ROOT / "docs/how-to/search-supernets.md"
    if not page.exists():
        pytest.skip("the package is tested without its sources")
    configs = []
    for kind in (GDASConfig, EntmaxGDASConfig, DARTSConfig, PerturbationConfig):
        configs += [kind()] if kind is EntmaxGDASConfig else [kind(), preset("paper", kind())]
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| `--")]
    assert len(rows) == 13
    for options, *cells in rows:
        names = [option.strip("` -").replace("-", "_") for option in options.split(", ")]
        for config, cell in zip(configs, cells, strict=True):
            values = [getattr(config, name, "–") for name in names]
            words = {"True": "yes", "False": "no", "None": "lr"}
            shown = [words.get(str(v), str(v)) for v in values]
            expected = "–" if set(shown) == {"–"} else ", ".join(v.removesuffix(".0") for v in shown)
            assert cell == expected, (options, type(config).__name__)
