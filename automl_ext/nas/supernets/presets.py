"""Named option values of the searches over a supernet, for ``--preset``.

"paper" has the values of the authors' code for NAS-Bench-201 and CIFAR-10, as far as options can set them;
docs/how-to/search-supernets.md lists the rest. entmax-GDAS is a variant of this package and has no such preset.
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

# Dong & Yang 2020 and their code (configs/nas-benchmark of D-X-Y/AutoDL-Projects): network, augmentation, learning rate
# of the search, network and length of the final training. No option sets the rate and the batch size of the final
# training, which are the defaults of the command retrain here.
NB201 = {"channels": 16, "cells": 5, "none": True, "shift": 4, "flip": True, "lr": 0.025, "lr_min": 0.001}
NB201 |= {"retrain_channels": 16, "retrain_cells": 5, "retrain_epochs": 200}
PAPER: dict[type[SupernetConfig], dict[str, Any]] = {
    GDASConfig: NB201
    | {"epochs": 250, "warmup": 0.0, "alpha_lr": 3e-4, "alpha_weight_decay": 1e-3, "tau_min": 0.1, "form": "nb201"},
    DARTSConfig: NB201 | {"epochs": 50, "weight_decay": 5e-4},  # of the benchmark's DARTS.config; DARTS: 3e-4
    # ruocwang/darts-pt: nasbench201/train_search.py and exp_scripts/blank-proj-201.sh
    PerturbationConfig: NB201 | {"epochs": 100, "orders": 1, "tune_epochs": 5},
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
