"""The configuration of DQN and its extensions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from automl_ext.rl.augmentation.batches import Augment
from automl_ext.rl.exploration.bonus import BonusName
from automl_ext.rl.loop.agent import TrainConfig
from automl_ext.rl.loop.checks import check_hidden, check_max_grad_norm
from automl_ext.rl.loop.ranges import GAMMAS
from automl_ext.rl.networks.encoders import Kind
from automl_ext.rl.representation.prediction import Auxiliary
from automl_ext.training.checks import check_range
from automl_ext.training.search_space import Categories, Range


@dataclass
class DQNConfig(TrainConfig):
    """Configuration of DQN. All step counts are summed over the environments.

    The defaults are those of Stable-Baselines3's zoo for CartPole-v1, except for n_step and lr_decay. With one-step
    targets and a constant learning rate, good policies are lost again (docs/rl-dqn.md).

    Raises:
        ValueError: a number out of range.
    """

    total_steps: int = 50_000  # Environment steps to train for.
    eval_every: int = 2_500  # Steps between evaluations.
    double: bool = False  # Double Q-learning: select the next action with the online network.
    dueling: bool = False  # Separate streams for the state value and the advantages.
    prioritized: bool = False  # Sample transitions with probability proportional to |TD error|^alpha.
    n_step: Annotated[int, Range(1, 10)] = 5  # Number of rewards in a target, before the value of a later state.
    distributional: bool = False  # Learn the distribution of returns (C51).
    noisy: bool = False  # Explore with noisy layers instead of epsilon-greedy.
    hidden: tuple[int, ...] = (256, 256)  # Units of each hidden layer.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 2.3e-3  # Learning rate of Adam.
    lr_decay: Annotated[bool, Categories(False, True)] = field(default=True, metadata={"before": False})
    """Decrease the learning rate linearly to 0 at total_steps."""
    adam_eps: float = 1e-8  # Epsilon of Adam.
    max_grad_norm: float = 10.0  # Gradient norm to clip at; inf: no clipping.
    gamma: Annotated[float, GAMMAS] = 0.99  # Discount factor.
    batch_size: Annotated[int, Range(16, 512, log=True)] = 64  # Transitions per gradient step.
    buffer_size: int = 100_000  # Capacity of the replay, in transitions.
    learning_starts: int = 1_000  # Steps of random actions before training starts.
    train_freq: int = 256  # Steps between updates.
    gradient_steps: int = 128  # Gradient steps every train_freq environment steps; -1: train_freq gradient steps.
    target_update_interval: Annotated[int, Range(1, 10_000, log=True)] = 10
    """Steps between updates of the target network."""
    exploration_fraction: Annotated[float, Range(0.0, 0.5)] = 0.16
    """Fraction of total_steps over which epsilon falls from 1 to final_epsilon."""
    final_epsilon: Annotated[float, Range(0.0, 0.2)] = 0.04
    """Probability of a random action after exploration_fraction."""
    alpha: float = 0.5  # Exponent of the priorities in prioritized replay.
    beta: float = 0.4  # Initial exponent of the importance weights; it rises to 1 during training.
    atoms: int = 51  # Number of atoms of the return distribution (C51).
    v_min: float = 0.0  # Lowest discounted return that C51 can represent; in CartPole-v1 they are within 0 and 100.
    v_max: float = 100.0  # Highest discounted return that C51 can represent.
    sigma: float = 0.5  # Initial noise scale σ₀ of noisy layers.
    normalize: bool = False  # Normalize observations by their running mean and standard deviation.
    body: Kind = "auto"  # Convolutions for images: of Nature DQN, one small one, or IMPALA's residual network.
    layer_norm: bool = False  # Normalize the outputs of every hidden layer, before its activation.
    bonus: BonusName = "none"  # Reward for novelty: counts of observations, RND or ICM. Reported returns exclude it.
    bonus_weight: float = 0.1  # Weight of the bonus.
    augment: Augment = "none"
    """Learn from randomly shifted images. rad: one shift of each image. drq: the mean over two shifts, for targets
    too."""
    augment_shift: int = 4  # Largest shift of an image by augment, in pixels.
    auxiliary: Auxiliary = "none"
    """Also train the encoder to predict the next latent state: by its cosine (spr), or among those of the batch
    (contrastive)."""
    auxiliary_weight: float = 1.0  # Weight of the auxiliary loss.
    potential: str | None = None  # Shape rewards: a potential, mountain-car, frozen-lake or MODULE:FUNCTION.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_step", "batch_size", "buffer_size", "train_freq", "target_update_interval", low=1)
        check_range(self, "augment_shift", low=1)
        if self.gradient_steps < 1 and self.gradient_steps != -1:
            raise ValueError(f"gradient_steps: expected at least 1, or -1, got {self.gradient_steps}")
        check_range(self, "learning_starts", "sigma", "bonus_weight", "auxiliary_weight", low=0)
        check_range(self, "gamma", "exploration_fraction", "final_epsilon", "alpha", "beta", low=0, high=1)
        check_range(self, "lr", "adam_eps", above=0)
        check_range(self, "atoms", low=2)
        check_range(self, "v_min")
        check_range(self, "v_max", above=self.v_min)
        check_max_grad_norm(self)
        check_hidden(self, units=2, layers=1)
        if self.bonus != "none" and self.n_step > 1:
            raise ValueError(f"n_step: expected 1 with a bonus, got {self.n_step} with bonus {self.bonus}")
        if self.auxiliary == "contrastive" and self.augment == "drq":  # the copies of a state would be told apart
            raise ValueError("auxiliary: expected none or spr with augment drq, got contrastive")
        if self.buffer_size < self.n_envs:
            raise ValueError(f"buffer_size: expected at least n_envs ({self.n_envs}), got {self.buffer_size}")

    @property
    def updates_each(self) -> int:
        """The number of gradient steps every ``train_freq`` steps."""
        return self.train_freq if self.gradient_steps == -1 else self.gradient_steps
