"""Rainbow (Hessel et al. 2018): DQN with all extensions and the paper's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from automl_ext.rl.algorithms.dqn import DQN, DQNConfig
from automl_ext.training.search_space import Range


@dataclass
class RainbowConfig(DQNConfig):
    """Configuration of Rainbow: the settings of table 1 of Hessel et al. 2018.

    The table counts Atari frames. Four frames are one step here. Two settings differ from the paper: total_steps, and
    the range of the atoms, which is 0 to 100 and fits CartPole-v1. With --preset atari, the range is −10 to 10 as in
    the paper, and rewards are clipped. With --preset minatar, the schedule is shorter.
    """

    total_steps: int = 2_500_000  # Environment steps to train for.
    eval_every: int = 50_000  # Steps between evaluations.
    checkpoint_every: int = 250_000  # Steps between checkpoints.
    double: bool = True  # Double Q-learning: select the next action with the online network.
    dueling: bool = True  # Separate streams for the state value and the advantages.
    prioritized: bool = True  # Sample transitions with probability proportional to |TD error|^alpha.
    distributional: bool = True  # Learn the distribution of returns (C51).
    noisy: bool = True  # Explore with noisy layers instead of epsilon-greedy.
    layer_norm: bool = False  # Normalize the outputs of every hidden layer, before its activation.
    hidden: tuple[int, ...] = (1024,)  # Units of each hidden layer. The dueling streams share the last one, 512 each.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 6.25e-5  # Learning rate of Adam.
    lr_decay: bool = False  # Decrease the learning rate linearly to 0 at total_steps.
    adam_eps: float = 1.5e-4  # Epsilon of Adam.
    batch_size: Annotated[int, Range(16, 512, log=True)] = 32  # Transitions per gradient step.
    buffer_size: int = 1_000_000  # Capacity of the replay, in transitions.
    learning_starts: int = 20_000  # Steps of random actions before training starts (80k frames).
    train_freq: int = 4  # Steps between updates.
    gradient_steps: int = 1  # Gradient steps every train_freq environment steps; -1: train_freq gradient steps.
    target_update_interval: Annotated[int, Range(100, 20_000, log=True)] = 8_000
    """Steps between updates of the target network (32k frames)."""
    # Probability of a random action after exploration_fraction without noisy layers, and in sampled predictions.
    final_epsilon: float = 0.01
    exploration_fraction: float = 0.1  # Fraction of total_steps over which epsilon falls from 1 to final_epsilon.


class Rainbow(DQN):
    """The Rainbow agent: :class:`DQN` with a :class:`RainbowConfig`."""

    algorithm = "rainbow"
