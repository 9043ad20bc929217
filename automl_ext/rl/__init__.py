"""Reinforcement learning."""

from automl_ext.rl.a2c import A2C, A2CConfig
from automl_ext.rl.dqn import DQN, DQNConfig
from automl_ext.rl.mdp import MDP
from automl_ext.rl.prioritized_replay import PrioritizedReplay
from automl_ext.rl.replay import Batch, UniformReplay
from automl_ext.rl.tabular import policy_evaluation, policy_iteration, q_learning, value_iteration

__all__ = [
    "A2C",
    "DQN",
    "MDP",
    "A2CConfig",
    "Batch",
    "DQNConfig",
    "PrioritizedReplay",
    "UniformReplay",
    "policy_evaluation",
    "policy_iteration",
    "q_learning",
    "value_iteration",
]
