"""Random shifts of images, the augmentation of DrQ (Yarats, Kostrikov and Fergus 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from torch import Tensor

from automl_ext.training.errors import UserError
from automl_ext.training.seeding import generator


def random_shift(images: Tensor, largest: int, rng: torch.Generator, axes: tuple[int, int] = (2, 3)) -> Tensor:
    """Shift every image by its own random number of pixels in −largest … largest, in both directions.

    The result equals that of the paper: pad with copies of the border's pixels, and crop to the old size at a random
    position. The other axes of an image, such as channels and the frames of a stack, are shifted together.

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


def image_axes(shape: Sequence[int]) -> tuple[int, int]:
    """Return the axes of height and width in a batch of images: [C, H, W], [H, W, C] or stacked [n, H, W, C] each.

    The channels are on the shorter of the first and the last axis; if both are equally long, on the last one. Atari's
    [n, 84, 84] has them first for every n.

    Raises:
        ValueError: not an image.
    """
    if len(shape) == 4 or (len(shape) == 3 and shape[2] <= shape[0] and tuple(shape[1:]) != (84, 84)):
        return len(shape) - 2, len(shape) - 1
    if len(shape) == 3:
        return 2, 3
    raise ValueError(f"expected images, [n, n, channels] or [channels, n, n], got observations {list(shape)}")


class RandomShift:
    """Random shifts of the observations of an image space, with its own random generator.

    Args:
        option: the option that asks for the augmentation, for messages.
        space: the observations; see :func:`image_axes`.
        largest: largest shift in pixels, the option ``augment_shift``.
        seed: seed of the generator.
        device: device of the observations.

    Raises:
        UserError: observations that are not images, or images not larger than the shift.
    """

    def __init__(
        self, option: str, space: gymnasium.Space, largest: int, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        shape = space.shape or ()
        try:
            self.axes = image_axes(shape)
        except ValueError as error:
            raise UserError(f"{option}: {error}") from None
        side = min(shape[axis - 1] for axis in self.axes)
        if largest >= side:
            raise UserError(f"augment_shift: expected below the side of the images, {side} pixels, got {largest}")
        self.largest, self._rng = largest, generator(seed, device)

    def __call__(self, images: Tensor) -> Tensor:
        """Shift every image of a batch [N, ...]."""
        return random_shift(images, self.largest, self._rng, self.axes)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rng.set_state(state["rng"])
