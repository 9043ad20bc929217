"""Reinforcement learning."""

from automl_ext.rl.a2c import A2C, A2CConfig
from automl_ext.rl.a3c import A3C, A3CConfig
from automl_ext.rl.prioritized_replay import PrioritizedReplay
from automl_ext.rl.reinforce import Reinforce, ReinforceConfig
from automl_ext.rl.replay import Batch, UniformReplay

__all__ = [
    "A2C",
    "A3C",
    "A2CConfig",
    "A3CConfig",
    "Batch",
    "PrioritizedReplay",
    "Reinforce",
    "ReinforceConfig",
    "UniformReplay",
]
