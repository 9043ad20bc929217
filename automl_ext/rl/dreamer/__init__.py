"""Dreamer: policies learned in the imagination of a world model (Hafner et al. 2020)."""

from automl_ext.rl.dreamer.agent import Dreamer, train
from automl_ext.rl.dreamer.config import DreamerConfig

__all__ = ["Dreamer", "DreamerConfig", "train"]
