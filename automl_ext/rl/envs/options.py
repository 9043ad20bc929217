"""The options of environments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import gymnasium
from tyro.conf import UseAppendAction

from automl_ext.rl.envs.groups import GroupedBox
from automl_ext.rl.envs.packed import PackedBox
from automl_ext.training.checks import check_range
from automl_ext.training.config import check_types
from automl_ext.training.files.reading import short

ATARI_FRAMES = 4  # that an observation of Atari stacks by default


@dataclass
class EnvOptions:
    """Options of environments, the same in training and in evaluation.

    Raises:
        ValueError: a number out of range, or a value of another type.
    """

    vectorization: Literal["auto", "sync", "async", "vector_entry_point"] = "auto"
    """auto: the environment's own vector version if it has one (CartPole, Atari), else sync. sync: one after another
    in this process. async: each in a process of its own, for slow simulators."""
    frame_stack: int | None = None
    """Stack the last n observations: [n, ...]. None: no stacking, except for Atari, which stacks 4."""
    reward_clip: float | None = None
    """Largest absolute value of a reward in training; larger rewards are clipped. Reported returns are not clipped."""
    terminal_on_life_loss: bool = False
    """Atari only: the loss of a life terminates the episode in training. The game goes on, and reported returns and
    evaluations are those of whole games."""
    action_repeat: int = 1  # Repeat every action this number of times; the repeats count as one step.
    pixels: bool = False  # Observe the rendered image, uint8 [64, 64, 3], instead of the environment's own observation.
    step_timeout: float = field(default=300.0, metadata={"without_effect": True})
    """Time limit of a reset or a step, in seconds; exceeding it is an error. It applies to worker processes only:
    vectorization async and A3C."""
    central_critic: bool = False
    """PettingZoo only: the value function sees the observations of all agents, the policy of an agent only its own
    (Yu et al. 2022). For a2c, ppo and reinforce."""
    wrapper: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Your own wrapper, MODULE:FUNCTION, which maps an environment to an environment; the module may be in the current
    directory. Repeat the option for several: the first one is the innermost, and all are inside the wrappers of the
    options above."""
    env_kwarg: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Argument of the environment, NAME=VALUE, for example size=20 for automl_ext/DeepSea-v0. The value is read as JSON
    if it is JSON, else as text. May be repeated."""

    def __post_init__(self) -> None:
        check_types(self)
        for argument in self.env_kwarg:
            if not argument.partition("=")[0].isidentifier() or "=" not in argument:
                raise ValueError(f"env_kwarg: expected NAME=VALUE, got {short(argument)}")
        check_range(self, "frame_stack", low=1, high=1000)
        check_range(self, "action_repeat", low=1)
        check_range(self, "reward_clip", "step_timeout", above=0)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the environment by name."""
        named = {}
        for argument in self.env_kwarg:
            name, _, value = argument.partition("=")
            try:
                named[name] = json.loads(value)
            except ValueError:
                named[name] = value
        return named


def frames_of(env_id: str, options: EnvOptions, space: gymnasium.Space) -> int:
    """Return the number of frames that observations of ``space`` stack along their first axis; 1: no stacks."""
    if isinstance(space, (PackedBox, GroupedBox)):  # vectors of all parts, or with the task
        return 1
    return options.frame_stack or (ATARI_FRAMES if env_id.startswith("ALE/") else 1)
