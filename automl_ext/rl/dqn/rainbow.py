"""Rainbow (Hessel et al. 2018): DQN with all extensions and the paper's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.rl.dqn.agent import DQN
from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.loop import loop


@dataclass
class RainbowConfig(DQNConfig):
    """Configuration of Rainbow, with the schedule of the paper's table 1. The table counts Atari frames, four per step.

    The range of the atoms suits CartPole-v1, as in :class:`DQNConfig`. ``--preset atari`` selects the paper's ±10 and
    clipped rewards; ``--preset minatar`` shortens the schedule.
    """

    total_steps: int = 2_500_000  # environment steps to train for
    eval_every: int = 50_000  # steps between evaluations
    checkpoint_every: int = 250_000  # steps between checkpoints
    double: bool = True  # double Q-learning: select the next action with the online network
    duelling: bool = True  # separate streams for the state value and the advantages
    prioritized: bool = True  # sample transitions in proportion to their error
    n_step: int = 3  # number of rewards in a target before it bootstraps
    distributional: bool = True  # learn the distribution of returns (C51)
    noisy: bool = True  # explore with noisy layers instead of epsilon-greedy
    hidden: tuple[int, ...] = (1024,)  # units of each hidden layer; 1024 are 512 in each dueling stream
    lr: float = 6.25e-5  # learning rate of Adam
    adam_eps: float = 1.5e-4  # epsilon of Adam
    batch_size: int = 32  # transitions per gradient step
    buffer_size: int = 1_000_000  # capacity of the replay, in transitions
    learning_starts: int = 20_000  # steps of random actions before training starts (80k frames)
    train_freq: int = 4  # steps between updates
    gradient_steps: int = 1  # gradient steps per update; -1: as many as train_freq
    target_update_interval: int = 8_000  # steps between updates of the target network (32k frames)
    final_epsilon: float = 0.01  # probability of a random action after exploration_fraction, without noisy layers
    exploration_fraction: float = 0.1  # fraction of total_steps over which epsilon falls from 1 to final_epsilon


class Rainbow(DQN):
    """The Rainbow agent: :class:`DQN` with a :class:`RainbowConfig`."""


def train(
    config: RainbowConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train Rainbow in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("rainbow", Rainbow, config, out, resume, stop_after)
