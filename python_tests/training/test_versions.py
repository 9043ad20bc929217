"""Run directories of another version of automl_ext are resumed, or refused with a message that names the version."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import make, train

from automl_ext import __version__
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.run import read_config


@dataclass
class NewOptimizer:
    lr: float = 0.025
    clip: float = float("inf")
    warmup: int = 3  # new


@dataclass
class NewConfig:
    """The configuration of ``training_helpers`` in a later version, with two new options."""

    epochs: int = 4
    where: Path = Path("data")
    betas: tuple[float, float] = (0.5, 0.999)
    optimizer: NewOptimizer = field(default_factory=NewOptimizer)
    dueling: bool = False  # new


@dataclass
class RenamedConfig:
    """The configuration of ``training_helpers`` in a later version: ``epochs`` is renamed to ``passes``."""

    where: Path = Path("data")
    betas: tuple[float, float] = (0.5, 0.999)
    optimizer: NewOptimizer = field(default_factory=NewOptimizer)
    passes: int = 4


def written_by(path: Path, version: str, **changes: Any) -> None:
    """Change the manifest of a checkpoint, with the right SHA-256."""
    manifest = checkpoint.read_manifest(path)
    manifest["environment"]["automl_ext"] = version
    manifest["config"] |= changes
    (path / checkpoint.MANIFEST).write_bytes(checkpoint._render(manifest))


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """The newest checkpoint of a run made by version 0.0.9."""
    paths = train(tmp_path)
    for path in paths:
        written_by(path, "0.0.9")
    return paths[-1]


@pytest.mark.filterwarnings("ignore:.*was made with automl_ext version 0.0.9")
def test_new_options_are_taken_at_their_defaults(tmp_path: Path, newest: Path) -> None:
    for resume in ("auto", str(newest)):
        with make(tmp_path, NewConfig(), resume=resume) as run:
            assert run.step == 3
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["dueling"], stored["optimizer"]["warmup"]) == (False, 3)


def test_a_new_option_with_another_value_is_named(tmp_path: Path, newest: Path) -> None:
    changed = NewConfig(dueling=True, optimizer=NewOptimizer(warmup=0))
    with pytest.raises(UserError, match=r"optimizer\.warmup was 3 and is now 0, dueling was False and is now True"):
        make(tmp_path, changed, resume="auto")


@pytest.mark.parametrize("resume", ["auto", "path"])
def test_a_renamed_option_names_the_version(tmp_path: Path, newest: Path, resume: str) -> None:
    with pytest.raises(UserError) as caught:
        make(tmp_path, RenamedConfig(), resume="auto" if resume == "auto" else str(newest))
    assert str(caught.value) == (
        f"{newest} was written by automl_ext 0.0.9, this is {__version__}: "
        "options removed or renamed: epochs; added: optimizer.warmup, passes"
    )


@pytest.mark.filterwarnings("ignore:.*was made with automl_ext version 0.0.9")
def test_a_state_that_does_not_fit_names_the_version(tmp_path: Path, newest: Path) -> None:
    def load(state: dict[str, Any]) -> None:
        torch.zeros(7).copy_(state["w"])

    with pytest.raises(UserError, match=rf"does not fit.*\(written by automl_ext '0\.0\.9', this is {__version__}\)"):
        make(tmp_path, resume=str(newest), load=load)


def test_a_configuration_is_read_from_a_run_directory(tmp_path: Path, newest: Path) -> None:
    assert read_config(tmp_path, NewConfig()) == NewConfig()
    environment = json.loads((tmp_path / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps(environment | {"automl_ext": "0.0.9"}))
    with pytest.raises(UserError, match=r"config\.json was written by automl_ext 0\.0\.9, .*renamed: epochs; added"):
        read_config(tmp_path, RenamedConfig())
