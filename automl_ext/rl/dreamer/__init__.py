"""Dreamer: policies learned in the imagination of a world model (Hafner et al. 2020)."""

from automl_ext.rl.dreamer.dreamer import Dreamer, DreamerConfig

__all__ = ["Dreamer", "DreamerConfig"]
