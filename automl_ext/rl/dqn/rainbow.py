"""Rainbow (Hessel et al. 2018): DQN with all its switches on, and the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.rl.dqn.agent import DQN
from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.loop import loop


@dataclass
class RainbowConfig(DQNConfig):
    """The schedule of the paper's table 1, which counts frames of Atari, four to a step.

    The range of the atoms is that of CartPole-v1, as in :class:`DQNConfig`. ``--preset atari`` has the paper's ±10 with
    its clipped rewards, ``--preset minatar`` scales the schedule.
    """

    total_steps: int = 2_500_000
    eval_every: int = 50_000
    checkpoint_every: int = 250_000
    double: bool = True
    duelling: bool = True
    prioritized: bool = True
    n_step: int = 3
    distributional: bool = True
    noisy: bool = True
    hidden: tuple[int, ...] = (1024,)  # 512 in each stream
    lr: float = 6.25e-5
    adam_eps: float = 1.5e-4
    batch_size: int = 32
    buffer_size: int = 1_000_000
    learning_starts: int = 20_000  # 80k frames
    train_freq: int = 4
    gradient_steps: int = 1
    target_update_interval: int = 8_000  # 32k frames
    final_epsilon: float = 0.01  # of an ablation without noise
    exploration_fraction: float = 0.1


class Rainbow(DQN):
    """DQN under the name of its :class:`RainbowConfig`."""


def train(
    config: RainbowConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train inside a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("rainbow", Rainbow, config, out, resume, stop_after)
