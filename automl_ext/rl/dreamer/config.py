"""Dreamer's settings."""

from __future__ import annotations

from dataclasses import dataclass

from automl_ext.rl.loop.agent import TrainConfig
from automl_ext.rl.loop.checks import check_max_grad_norm
from automl_ext.training.checks import check_range


@dataclass
class DreamerConfig(TrainConfig):
    """The defaults are for vector observations, CartPole-v1 first; ``--preset paper`` has those of Hafner et al. 2020.

    Raises:
        ValueError: a number out of range.
    """

    total_steps: int = 20_000
    eval_every: int = 1_000
    checkpoint_every: int = 5_000
    prefill: int = 1_000  # steps of random actions before anything is learned
    pretrain: int = 100  # updates then
    train_every: int = 5  # steps between updates
    updates_each: int = 1
    batch_size: int = 16
    sequence_length: int = 32
    replay_size: int = 1_000_000  # steps kept, in whole episodes
    deter: int = 64  # the RSSM's recurrent state
    stoch: int = 16  # its stochastic state
    hidden: int = 64  # its layers between the two
    units: int = 64  # of every dense layer elsewhere
    depth: int = 32  # channels of the first convolution, for images
    encoder_layers: int = 2  # of vectors, as many for the decoder
    reward_layers: int = 2
    continue_layers: int = 2
    value_layers: int = 2
    actor_layers: int = 2
    horizon: int = 15  # steps imagined
    gamma: float = 0.99
    lam: float = 0.95
    free_nats: float = 0.0  # of KL, averaged over the batch; what is free the prior does not learn
    kl_scale: float = 1.0
    continue_scale: float = 10.0  # weight of the continue head's loss; 0: episodes never terminate
    observation_std: float = 0.3  # of the decoder for vectors, which are normalised to 1; images have 1
    reward_scale: float = 1.0  # rewards are learned multiplied by it
    entropy_scale: float = 0.05  # bonus for the entropy of imagined actions
    model_lr: float = 1e-3
    actor_lr: float = 3e-4
    value_lr: float = 1e-3
    max_grad_norm: float = 100.0  # each gradient is scaled down to this norm; inf: no clipping
    exploration: float = 0.1  # std of noise added to continuous actions; chance that a discrete one is random

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = (
            "train_every updates_each batch_size sequence_length replay_size deter stoch hidden units depth horizon"
        )
        layers = "encoder_layers reward_layers continue_layers value_layers actor_layers"
        check_range(self, *f"{counts} {layers}".split(), low=1)
        check_range(self, "sequence_length", low=2)
        check_range(self, "prefill", "pretrain", low=0)
        check_range(self, "gamma", "lam", "exploration", low=0, high=1)
        check_range(self, "free_nats", "kl_scale", "continue_scale", "entropy_scale", low=0)
        check_range(self, "observation_std", "reward_scale", "model_lr", "actor_lr", "value_lr", above=0)
        check_max_grad_norm(self)
