"""Reinforcement learning."""

from automl_ext.rl.prioritized_replay import PrioritizedReplay
from automl_ext.rl.replay import Batch, UniformReplay

__all__ = ["Batch", "PrioritizedReplay", "UniformReplay"]
