"""Reinforcement learning: algorithms, environments, replay buffers and solvers of finite MDPs."""

from automl_ext.rl.actor_critic.a2c import A2C, A2CConfig
from automl_ext.rl.actor_critic.a3c import A3C
from automl_ext.rl.actor_critic.a3c_config import A3CConfig
from automl_ext.rl.actor_critic.ppo import PPO, PPOConfig
from automl_ext.rl.actor_critic.reinforce import Reinforce, ReinforceConfig
from automl_ext.rl.agents import load, load_run, make
from automl_ext.rl.dqn.agent import DQN
from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.dqn.offline import replay_of_episodes, saved_replay, train_offline
from automl_ext.rl.dqn.rainbow import Rainbow, RainbowConfig
from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import Envs, Step, make_envs
from automl_ext.rl.export.export import export_policy
from automl_ext.rl.imitation.bc import BC, BCConfig
from automl_ext.rl.loop.agent import Agent, TrainConfig
from automl_ext.rl.loop.evaluate import evaluate
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.loop.loop import Report
from automl_ext.rl.multi_agent.qmix import QMIX, QMIXConfig
from automl_ext.rl.multi_agent.vdn import VDN, VDNConfig
from automl_ext.rl.offline.cql import CQL, CQLConfig
from automl_ext.rl.offline.iql import IQL, IQLConfig
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.rl.replay.uniform import Batch, UniformReplay
from automl_ext.rl.shaping.shaping import Shaping
from automl_ext.rl.tabular.mdp import MDP
from automl_ext.rl.tabular.solvers import policy_evaluation, policy_iteration, q_learning, value_iteration

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
    "LearningAgent",
    "PPOConfig",
    "PrioritizedReplay",
    "QMIXConfig",
    "Rainbow",
    "RainbowConfig",
    "Reinforce",
    "ReinforceConfig",
    "Report",
    "Shaping",
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
    "replay_of_episodes",
    "saved_replay",
    "train_offline",
    "value_iteration",
]
