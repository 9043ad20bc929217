"""Search strategies by name. A new strategy is a new file in this folder and a line in ``STRATEGIES``."""

from __future__ import annotations

from automl_ext.nas.strategies.config import SearchConfig
from automl_ext.nas.strategies.evolution import EvolutionConfig
from automl_ext.nas.strategies.random_search import RandomConfig
from automl_ext.nas.strategies.reinforce import ReinforceSearchConfig
from automl_ext.nas.strategies.renas import ReNASConfig
from automl_ext.nas.strategies.successive_halving import SuccessiveHalvingConfig

STRATEGIES: dict[str, type[SearchConfig]] = {
    "random": RandomConfig,
    "reinforce": ReinforceSearchConfig,
    "rea": EvolutionConfig,
    "renas": ReNASConfig,
    "successive-halving": SuccessiveHalvingConfig,
}
ALIASES = {"reinas": "renas"}
