"""Several transforms of steps in the same environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automl_ext.rl.envs.reward_scale import RewardScale
from automl_ext.rl.envs.vector import Step, StepTransform


class Transforms:
    """A :class:`~automl_ext.rl.envs.vector.StepTransform` that applies several, one after the other."""

    def __init__(self, parts: Sequence[StepTransform]) -> None:
        self.parts = list(parts)

    def __call__(self, step: Step) -> Step:
        for part in self.parts:
            step = part(step)
        return step

    def cut(self) -> None:
        """Forget the running episodes."""
        for part in self.parts:
            if hasattr(part, "cut"):
                part.cut()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def add_transform(envs: Any, transform: StepTransform) -> None:
    """Apply ``transform`` after the transforms that the environments have, but before one that divides rewards.

    So the rewards of bonuses and costs are divided, too.
    """
    present = envs.transform
    parts = present.parts if isinstance(present, Transforms) else [] if present is None else [present]
    parts = sorted([*parts, transform], key=lambda part: isinstance(part, RewardScale))
    envs.transform = parts[0] if len(parts) == 1 else Transforms(parts)
