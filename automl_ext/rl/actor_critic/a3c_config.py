"""The configuration of A3C."""

from __future__ import annotations

from dataclasses import dataclass

from automl_ext.rl.actor_critic.a2c import A2CConfig
from automl_ext.training.checks import check_range


@dataclass
class A3CConfig(A2CConfig):
    """Configuration of A3C. Every worker uses the options of A2C."""

    n_envs: int = 8  # Number of environments of each worker.
    n_workers: int = 2  # Number of worker processes; use one core for each and set OMP_NUM_THREADS=1.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_workers", low=1)
        if self.optimizer != "rmsprop" or self.device != "cpu":
            raise ValueError(
                f"device, optimizer: expected cpu and rmsprop for A3C, got {self.device!r} and {self.optimizer!r}"
            )
        if self.normalize:
            raise ValueError(
                "normalize: expected False for A3C, whose workers share no observation statistics; use a2c"
            )
        if self.scale_rewards:
            raise ValueError("scale_rewards: expected False for A3C, whose workers share no statistics; use a2c")
        if self.bonus != "none":
            raise ValueError(f"bonus: expected none for A3C, whose workers share no bonus, got {self.bonus}; use a2c")
        if self.self_imitation:
            raise ValueError("self_imitation: expected False for A3C, whose workers share no replay; use a2c")
        if self.popart:
            raise ValueError("popart: expected False for A3C, whose workers share no statistics of values; use a2c")
        if self.env.vectorization == "async":
            raise ValueError(
                "vectorization: expected auto, sync or vector_entry_point for A3C, got async: its workers "
                "are processes already and cannot start processes"
            )
