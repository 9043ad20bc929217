"""Reinforcement learning."""

from automl_ext.rl.a2c import A2C, A2CConfig
from automl_ext.rl.a3c import A3C, A3CConfig
from automl_ext.rl.dqn import DQN, DQNConfig
from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.envs import make_envs
from automl_ext.rl.evaluate import evaluate
from automl_ext.rl.mdp import MDP
from automl_ext.rl.prioritized_replay import PrioritizedReplay
from automl_ext.rl.rainbow import Rainbow, RainbowConfig
from automl_ext.rl.reinforce import Reinforce, ReinforceConfig
from automl_ext.rl.replay import Batch, UniformReplay
from automl_ext.rl.tabular import policy_evaluation, policy_iteration, q_learning, value_iteration

__all__ = [
    "A2C",
    "A3C",
    "DQN",
    "MDP",
    "A2CConfig",
    "A3CConfig",
    "Batch",
    "DQNConfig",
    "Dreamer",
    "DreamerConfig",
    "PrioritizedReplay",
    "Rainbow",
    "RainbowConfig",
    "Reinforce",
    "ReinforceConfig",
    "UniformReplay",
    "evaluate",
    "make_envs",
    "policy_evaluation",
    "policy_iteration",
    "q_learning",
    "value_iteration",
]
