"""Recipes: named values for the options of a differentiable search, for ``--recipe``.

"paper" is the algorithm as published, with this package's defaults for the number of epochs and the learning rates: all
switches against collapse are off. "robust" turns on the switches that prevent a collapse to operations without weights.
Options given on the command line or in a file override a recipe. The configuration that a run stores has the resulting
values, not the name of the recipe.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from automl_ext.nas.differentiable.config import SupernetConfig
from automl_ext.nas.differentiable.darts import DARTSConfig
from automl_ext.nas.differentiable.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.differentiable.gdas import GDASConfig
from automl_ext.training.errors import UserError

Config = TypeVar("Config", bound=SupernetConfig)

# No "none", α fixed, and perturbation in place of argmax α ("DARTS-PT (fix α)" in Wang et al. 2021), in several orders.
ROBUST: dict[str, Any] = {"none": False, "warmup": 1.0, "derive": "perturbation", "tune_epochs": 0, "orders": 8}
RECIPES: dict[str, dict[type[SupernetConfig], dict[str, Any]]] = {
    "paper": {GDASConfig: {}, EntmaxGDASConfig: {}, DARTSConfig: {}},
    "robust": {GDASConfig: ROBUST, EntmaxGDASConfig: ROBUST, DARTSConfig: ROBUST},
}


def with_recipe(name: str, config: Config) -> Config:
    """Return the configuration with the values of a recipe.

    Raises:
        UserError: no recipe has this name, or it has no values for this search.
    """
    if name not in RECIPES:
        raise UserError(f"--recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    values = RECIPES[name].get(type(config))
    if values is None:
        raise UserError(f"--recipe {name}: expected the configuration of gdas, entmax-gdas or darts, got {config!r}")
    return dataclasses.replace(config, **values)
