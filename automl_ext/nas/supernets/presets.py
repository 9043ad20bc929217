"""Named option values of the searches over a supernet, for ``--preset``.

"paper" has the values of the publication for NAS-Bench-201 and CIFAR-10. entmax-GDAS is of this package and has none.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from automl_ext.nas.supernets.darts import DARTSConfig
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.perturbation import PerturbationConfig
from automl_ext.nas.supernets.supernet_options import SupernetConfig
from automl_ext.training.errors import UserError

Config = TypeVar("Config", bound=SupernetConfig)

# Dong & Yang 2020, table 2 and section 4: network, augmentation, and the final training of the benchmark.
NB201 = {"channels": 16, "cells": 5, "none": True, "shift": 4, "flip": True, "lr": 0.025, "lr_min": 0.001}
NB201 |= {"retrain_channels": 16, "retrain_cells": 5, "retrain_epochs": 200}
PAPER: dict[type[SupernetConfig], dict[str, Any]] = {
    GDASConfig: NB201
    | {"epochs": 250, "warmup": 0.0, "alpha_lr": 3e-4, "alpha_weight_decay": 1e-3, "tau_min": 0.1, "form": "nb201"},
    DARTSConfig: NB201 | {"epochs": 50},
    PerturbationConfig: NB201 | {"epochs": 50, "orders": 1, "tune_epochs": 5},
}


def preset(name: str, config: Config) -> Config:
    """Return the configuration with the values of a preset.

    Raises:
        UserError: the search has no preset of this name.
    """
    values = PAPER.get(type(config))
    if values is None or name != "paper":
        raise UserError(f"--preset: expected {'none' if values is None else 'paper'}, got {name!r}")
    return dataclasses.replace(config, **values)
