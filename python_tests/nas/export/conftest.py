"""Finished runs to export."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from automl_ext.nas.spaces.registry import SPACES, space
from automl_ext.nas.training.retrain import RetrainConfig, retrain


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished retrain of every space, by name; that of darts has an auxiliary head."""
    folder = tmp_path_factory.mktemp("runs")
    for name in SPACES:
        seed = 3 if name == "nb201" else 176  # small, with each kind of operation; a cell that reads its input
        genotype = str(space(name).random(Random(seed)))
        config = RetrainConfig(space=name, genotype=genotype, subset=60, epochs=1, channels=2)
        config.drop_path = 0.1 * (name != "convnet")  # this network is plain
        config.auxiliary = 0.4 * (name == "darts")
        retrain(config, folder / name)
    return folder
