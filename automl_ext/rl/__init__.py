"""Reinforcement learning: algorithms, environments, replay buffers and solvers of finite MDPs.

Names are imported when they are used, so that one algorithm does not load the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_ext._lazy import lazy

if TYPE_CHECKING:  # loaded at first use
    from automl_ext.rl.agents import load, load_run, make
    from automl_ext.rl.algorithms.a2c import A2C, A2CConfig
    from automl_ext.rl.algorithms.a3c import A3C, A3CConfig
    from automl_ext.rl.algorithms.bc import BC, BCConfig
    from automl_ext.rl.algorithms.cql import CQL, CQLConfig
    from automl_ext.rl.algorithms.dqn import DQN, DQNConfig
    from automl_ext.rl.algorithms.iql import IQL, IQLConfig
    from automl_ext.rl.algorithms.ppo import PPO, PPOConfig
    from automl_ext.rl.algorithms.qmix import QMIX, QMIXConfig
    from automl_ext.rl.algorithms.rainbow import Rainbow, RainbowConfig
    from automl_ext.rl.algorithms.reinforce import Reinforce, ReinforceConfig
    from automl_ext.rl.algorithms.vdn import VDN, VDNConfig
    from automl_ext.rl.dreamer import Dreamer, DreamerConfig
    from automl_ext.rl.envs.making import EnvOptions
    from automl_ext.rl.envs.vector import Envs, Step, make_envs
    from automl_ext.rl.export import export_policy
    from automl_ext.rl.loop.agent import Agent
    from automl_ext.rl.loop.evaluate import evaluate
    from automl_ext.rl.loop.loop import Report, train
    from automl_ext.rl.loop.train_config import TrainConfig
    from automl_ext.rl.replay.prioritized import PrioritizedReplay
    from automl_ext.rl.replay.uniform import Batch, UniformReplay
    from automl_ext.rl.tabular.mdp import MDP
    from automl_ext.rl.tabular.solvers import policy_evaluation, policy_iteration, q_learning, value_iteration

__getattr__ = lazy(__name__)

__all__ = [
    "A2C",
    "A3C",
    "BC",
    "CQL",
    "DQN",
    "IQL",
    "MDP",
    "PPO",
    "QMIX",
    "VDN",
    "A2CConfig",
    "A3CConfig",
    "Agent",
    "BCConfig",
    "Batch",
    "CQLConfig",
    "DQNConfig",
    "Dreamer",
    "DreamerConfig",
    "EnvOptions",
    "Envs",
    "IQLConfig",
    "PPOConfig",
    "PrioritizedReplay",
    "QMIXConfig",
    "Rainbow",
    "RainbowConfig",
    "Reinforce",
    "ReinforceConfig",
    "Report",
    "Step",
    "TrainConfig",
    "UniformReplay",
    "VDNConfig",
    "evaluate",
    "export_policy",
    "load",
    "load_run",
    "make",
    "make_envs",
    "policy_evaluation",
    "policy_iteration",
    "q_learning",
    "train",
    "value_iteration",
]
