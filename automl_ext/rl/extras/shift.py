"""Random shifts of images in Q-learning: RAD (Laskin et al. 2020) and DrQ (Yarats, Kostrikov and Fergus 2021).

RAD:    learn from f(s) and f(s′) instead of s and s′, where f is a random shift
DrQ:    y = 1/K Σ_k target(f_k(s′));  minimize 1/M Σ_m loss(Q(f_m(s), a) − y),  K = M = 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import gymnasium
import torch
from torch import Tensor
from tyro.conf import arg

from automl_ext.rl.extras.checks import check_options
from automl_ext.rl.loop.seams import Seam
from automl_ext.rl.networks.packed import check_not_packed
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.seeding import derived_seed, generator


@dataclass
class Shift:
    """Q-learning from shifted images. The agent acts, and is evaluated, on the original ones.

    Attaching it raises UserError for observations that are not images, or images not larger than the shift.
    """

    name: ClassVar[str] = "shift"
    seams: ClassVar[frozenset[Seam]] = frozenset({"batch"})

    copies: Annotated[int, arg(name="shift.copies")] = 2
    """Number of shifts of each image of a batch. 0: none; 1: RAD; 2: DrQ, which averages the targets of the copies."""
    pixels: Annotated[int, arg(name="shift.pixels")] = 4
    """Largest shift, in pixels."""

    def __post_init__(self) -> None:
        check_options(self, "copies", low=0)
        check_options(self, "pixels", low=1)

    @property
    def active(self) -> bool:
        return self.copies > 0

    def attach(self, agent: Any) -> ShiftedBatch:
        check_not_packed(agent.spaces[0], self.name)
        config, space = agent.config, agent.envs.observation_space
        rng = generator(derived_seed(derived_seed(config.seed, 1), 1), choose_device(config.device))
        part = ShiftedBatch(image_axes(space), checked_pixels(space, self.pixels), self.copies, rng)
        agent.seams.batch.append(part)
        return part


class ShiftedBatch:
    """A transform that shifts observations and next observations.

    Args:
        axes: the axes of height and width in a batch of images.
        pixels: largest shift.
        copies: number of copies of each transition, with different shifts, K = M: the result has all transitions once,
            then all of them again, and so on.
        rng: random generator on the device of the observations.
    """

    def __init__(self, axes: tuple[int, int], pixels: int, copies: int, rng: torch.Generator) -> None:
        self.axes, self.pixels, self.copies, self.rng = axes, pixels, copies, rng

    def __call__(self, batch: Batch) -> Batch:
        return Batch(
            self.shifted(self.repeated(batch.observations)),
            self.repeated(batch.actions),
            self.repeated(batch.returns),
            self.shifted(self.repeated(batch.next_observations)),
            self.repeated(batch.discounts),
            self.repeated(batch.terminated),
            self.repeated(batch.weights),
            self.repeated(batch.indices),
        )

    def targets(self, targets: Tensor) -> Tensor:
        """Replace every target by the mean over the copies of its transition (Yarats et al. 2021, eq. 2 and 3).

        Args:
            targets: [copies · N], or distributions [copies · N, atoms].
        """
        return self.repeated(targets.unflatten(0, (self.copies, -1)).mean(0))

    def shifted(self, images: Tensor) -> Tensor:
        return random_shift(images, self.pixels, self.rng, self.axes)

    def repeated(self, x: Tensor) -> Tensor:
        """Return the copies of x [N, ...] after one another, [copies · N, ...]."""
        return torch.cat([x] * self.copies)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["rng"])


def random_shift(images: Tensor, largest: int, rng: torch.Generator, axes: tuple[int, int] = (2, 3)) -> Tensor:
    """Shift every image by its own random number of pixels in −largest … largest, in both directions.

    The result equals that of Yarats et al. 2021, section 3.1: pad with copies of the border's pixels, and crop to the
    old size at a random position. The other axes of an image, such as channels and the frames of a stack, are shifted
    together.

    Args:
        images: [N, ...] of any dtype.
        largest: largest shift in pixels.
        rng: random generator on the device of the images.
        axes: the axes of height and width.

    Returns:
        The shifted images, of the same shape and dtype.
    """
    x = images.movedim(axes, (1, 2))
    n, height, width = x.shape[:3]
    shifts = torch.randint(-largest, largest + 1, (2, n, 1), generator=rng, device=x.device)
    # A position beyond the border is moved to the border, which pads with its pixels.
    rows = (torch.arange(height, device=x.device) + shifts[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=x.device) + shifts[1]).clamp_(0, width - 1)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    return x[image, rows[:, :, None], columns[:, None, :]].movedim((1, 2), axes)


def image_axes(space: gymnasium.Space) -> tuple[int, int]:
    """Return the axes of height and width in a batch of images: [C, H, W], [H, W, C] or stacked [n, H, W, C] each.

    The channels are on the shorter of the first and the last axis; if both are equally long, on the last one. Atari's
    [n, 84, 84] has them first for every n.

    Raises:
        UserError: not an image.
    """
    shape: Sequence[int] = space.shape or ()
    if len(shape) == 4 or (len(shape) == 3 and shape[2] <= shape[0] and tuple(shape[1:]) != (84, 84)):
        return len(shape) - 2, len(shape) - 1
    if len(shape) == 3:
        return 2, 3
    raise UserError(f"shift: expected images, [n, n, channels] or [channels, n, n], got observations {list(shape)}")


def checked_pixels(space: gymnasium.Space, pixels: int) -> int:
    """Return the largest shift. Raises UserError: it is not below the side of the images."""
    side = min((space.shape or ())[axis - 1] for axis in image_axes(space))
    if pixels >= side:
        raise UserError(f"shift.pixels: expected below the side of the images, {side} pixels, got {pixels}")
    return pixels
