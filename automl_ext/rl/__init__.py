"""Reinforcement learning."""

from automl_ext.rl.replay import Batch, PrioritizedReplay, UniformReplay

__all__ = ["Batch", "PrioritizedReplay", "UniformReplay"]
