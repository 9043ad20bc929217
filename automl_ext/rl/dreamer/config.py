"""The configuration of Dreamer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from automl_ext.rl.loop.agent import TrainConfig
from automl_ext.rl.loop.checks import check_max_grad_norm
from automl_ext.training.checks import check_range

WIDEST, DEEPEST = 2**14, 100  # largest sizes and numbers of layers; a typing error then causes an error message


@dataclass
class DreamerConfig(TrainConfig):
    """Configuration of Dreamer. All step counts are summed over the environments.

    The defaults suit small tasks with vector observations, such as CartPole-v1. --preset paper selects the settings
    of Hafner et al. 2020.

    Raises:
        ValueError: a number out of range.
    """

    total_steps: int = 20_000  # Environment steps to train for.
    eval_every: int = 1_000  # Steps between evaluations.
    checkpoint_every: int = 5_000  # Steps between checkpoints.
    prefill: int = 1_000  # Steps of random actions before training starts.
    pretrain: int = 100  # Additional updates at the start of training.
    train_every: int = 5  # Steps between updates.
    updates_each: int = 1  # Updates every train_every steps.
    batch_size: int = 16  # Sequences per update.
    sequence_length: int = 32  # Steps per sequence.
    replay_size: int = 1_000_000  # Replay capacity in steps. Only whole episodes are removed, the oldest first.
    deter: int = 64  # Size of the RSSM's deterministic state.
    stoch: int = 16  # Size of the RSSM's stochastic state.
    hidden: int = 64  # Units of the RSSM's hidden layers.
    units: int = 64  # Units of all other dense layers.
    depth: int = 32  # Channels of the first convolution, for image observations.
    encoder_layers: int = 2  # Layers of the encoder and of the decoder, for vector observations.
    reward_layers: int = 2  # Hidden layers of the reward head.
    continue_layers: int = 2  # Hidden layers of the continue head.
    value_layers: int = 2  # Hidden layers of the value network.
    actor_layers: int = 2  # Hidden layers of the policy.
    horizon: int = 15  # Imagined steps per trajectory.
    gamma: float = 0.99  # Discount factor.
    lam: float = 0.95  # λ of the λ-returns. 0: trust the next value; 1: the imagined rewards up to the horizon.
    free_nats: float = 0.0  # Minimum of the KL loss in nats; a batch mean below it gives no gradient.
    kl_scale: float = 1.0  # Weight of the KL loss.
    continue_scale: float = 10.0  # Weight of the loss of the termination predictor; 0: imagined episodes never end.
    observation_std: float = 0.3  # Standard deviation of the decoder for normalized vectors; for images it is 1.
    reward_scale: float = 1.0  # Factor applied to rewards before they are learned.
    entropy_scale: float = 0.05  # Weight of the bonus for the policy's entropy.
    model_lr: float = 1e-3  # Learning rate of the world model.
    actor_lr: float = 3e-4  # Learning rate of the policy.
    value_lr: float = 1e-3  # Learning rate of the value network.
    max_grad_norm: float = 100.0  # Gradient norm to clip at, for each network; inf: no clipping.
    exploration: float = 0.1  # Std of noise on continuous actions; probability of a random discrete action.
    initialization: Literal["torch", "keras"] = "torch"  # Initial weights: as PyTorch or as Keras (the authors).
    mode_samples: int = 0  # Evaluation takes the likeliest of this number of continuous actions; 0: tanh of the mean.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, *["train_every", "updates_each", "batch_size", "replay_size", "horizon"], low=1)
        check_range(self, "deter", "stoch", "hidden", "units", "depth", low=1, high=WIDEST)
        layers = "encoder_layers reward_layers continue_layers value_layers actor_layers"
        check_range(self, *layers.split(), low=1, high=DEEPEST)
        check_range(self, "sequence_length", low=2)
        check_range(self, "prefill", "pretrain", "mode_samples", low=0)
        check_range(self, "gamma", "lam", "exploration", low=0, high=1)
        check_range(self, "free_nats", "kl_scale", "continue_scale", "entropy_scale", low=0)
        check_range(self, "observation_std", "reward_scale", "model_lr", "actor_lr", "value_lr", above=0)
        check_max_grad_norm(self)
