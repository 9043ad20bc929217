"""Neural architecture search: search spaces, searches, estimators, retraining, ensembles and export.

A search takes its configuration and a run directory. It returns the contents of ``result.json``, or None if it was
interrupted::

    from automl_ext.nas import GDASConfig, search_supernet

    result = search_supernet(GDASConfig(epochs=20), "runs/gdas")
"""

from typing import TYPE_CHECKING

from automl_ext._lazy import lazy

if TYPE_CHECKING:  # loaded at first use
    from automl_ext.nas.auto.auto import auto as search_auto  # `auto` is the subpackage
    from automl_ext.nas.auto.plan import AutoConfig
    from automl_ext.nas.ensembles.ensemble import EnsembleConfig, ensemble
    from automl_ext.nas.ensembles.network import load_ensemble
    from automl_ext.nas.estimators.lower_fidelity import LowerFidelity
    from automl_ext.nas.estimators.morphisms import net2deeper, net2wider
    from automl_ext.nas.estimators.training_free.correlations import log_rank_sum
    from automl_ext.nas.estimators.training_free.scores import score_network
    from automl_ext.nas.estimators.weight_sharing import WeightSharing
    from automl_ext.nas.evaluation import Evaluation, Evaluator
    from automl_ext.nas.export.export import export as export_network  # `export` is the subpackage
    from automl_ext.nas.fitting import FittedNetwork, fit
    from automl_ext.nas.screening.score import ScoreConfig
    from automl_ext.nas.screening.score import score as score_architectures
    from automl_ext.nas.search.search import search as search_by_strategy
    from automl_ext.nas.spaces.darts_space import Darts
    from automl_ext.nas.spaces.nasbench201 import NASBench201
    from automl_ext.nas.spaces.registry import SPACES
    from automl_ext.nas.spaces.renas_space import ReNASSpace
    from automl_ext.nas.spaces.space import Space
    from automl_ext.nas.strategies.evolution import EvolutionConfig
    from automl_ext.nas.strategies.random_search import RandomConfig
    from automl_ext.nas.strategies.reinforce import ReinforceSearchConfig
    from automl_ext.nas.strategies.renas import ReNASConfig
    from automl_ext.nas.strategies.strategy import Candidate, Strategy
    from automl_ext.nas.strategies.successive_halving import SuccessiveHalvingConfig
    from automl_ext.nas.supernets.darts import DARTSConfig
    from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
    from automl_ext.nas.supernets.gdas import GDASConfig
    from automl_ext.nas.supernets.perturbation import PerturbationConfig
    from automl_ext.nas.supernets.search_supernet import search_supernet
    from automl_ext.nas.training.compare import CompareConfig, compare
    from automl_ext.nas.training.retrain import RetrainConfig, retrain

__all__ = [
    "SPACES",
    "AutoConfig",
    "Candidate",
    "CompareConfig",
    "DARTSConfig",
    "Darts",
    "EnsembleConfig",
    "EntmaxGDASConfig",
    "Evaluation",
    "Evaluator",
    "EvolutionConfig",
    "FittedNetwork",
    "GDASConfig",
    "LowerFidelity",
    "NASBench201",
    "PerturbationConfig",
    "RandomConfig",
    "ReNASConfig",
    "ReNASSpace",
    "ReinforceSearchConfig",
    "RetrainConfig",
    "ScoreConfig",
    "Space",
    "Strategy",
    "SuccessiveHalvingConfig",
    "WeightSharing",
    "compare",
    "ensemble",
    "export_network",
    "fit",
    "load_ensemble",
    "log_rank_sum",
    "net2deeper",
    "net2wider",
    "retrain",
    "score_architectures",
    "score_network",
    "search_auto",
    "search_by_strategy",
    "search_supernet",
]

__getattr__ = lazy(__name__)
