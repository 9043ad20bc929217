"""Reinforcement learning."""

from automl_ext.rl.dqn import DQN, DQNConfig
from automl_ext.rl.prioritized_replay import PrioritizedReplay
from automl_ext.rl.replay import Batch, UniformReplay

__all__ = ["DQN", "Batch", "DQNConfig", "PrioritizedReplay", "UniformReplay"]
