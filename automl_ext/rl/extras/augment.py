"""Random shifts of images in Q-learning: DrQ (Kostrikov, Yarats and Fergus 2021, https://arxiv.org/abs/2004.13649).

Each transition of a batch is copied twice. f_m and f_m' are the random shifts of the images of copy m:

    y = ½ Σ_m target(f_m'(s′))
    minimize ½ Σ_m loss(Q(f_m(s), a) − y)          equations 1 to 3 with K = M = 2

The agent acts on the original images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from tyro.conf import arg

from automl_ext.rl.extras.requirements import image_shape
from automl_ext.rl.loop.seams import Seam
from automl_ext.rl.networks.encoders import channels_last
from automl_ext.rl.replay.uniform import Batch
from automl_ext.training.files.reading import short
from automl_ext.training.seeding import derived_seed, generator

COPIES = 2  # of each transition, K = M


@dataclass
class Augment:
    """Q-learning from two randomly shifted copies of each image.

    Attaching it raises UserError for observations that are not images.
    """

    name: ClassVar[str] = "augment"
    seams: ClassVar[frozenset[Seam]] = frozenset({"batch"})

    kind: Annotated[Literal["shift"] | None, arg(name="augment")] = "shift"
    """shift: Q-learning learns from two randomly shifted copies of each image (DrQ). None: from the image itself."""

    def __post_init__(self) -> None:
        if self.kind not in (None, "shift"):
            raise ValueError(f"augment: expected 'shift' or None, got {short(self.kind)}")

    def attach(self, agent: Any) -> ShiftedCopies:
        shifts = RandomShift(image_shape(agent, self.name), generator(derived_seed(agent.config.seed, 9), agent.device))
        part = ShiftedCopies(shifts)
        agent.seams.batch.append(part)
        agent.seams.merge.append(mean_of_copies)
        return part


class ShiftedCopies:
    """A transform of batches: all transitions, then all of them again, where each image is shifted independently."""

    def __init__(self, shifts: RandomShift) -> None:
        self.shifts = shifts

    def __call__(self, batch: Batch) -> Batch:
        return Batch(
            self.shifts(repeated(batch.observations)),
            repeated(batch.actions),
            repeated(batch.returns),
            self.shifts(repeated(batch.next_observations)),
            repeated(batch.discounts),
            repeated(batch.terminated),
            repeated(batch.weights),
            repeated(batch.indices),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.shifts.rng.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shifts.rng.set_state(state["rng"])


def repeated(x: Tensor) -> Tensor:
    """Return the copies of x [N, ...] one after another, [COPIES · N, ...]."""
    return torch.cat([x] * COPIES)


def mean_of_copies(values: Tensor) -> Tensor:
    """Replace each row of targets, target distributions or errors, [COPIES · N, ...], by the mean over its copies."""
    return repeated(values.unflatten(0, (COPIES, -1)).mean(0))


class RandomShift:
    """Shifts images of 84 × 84 pixels by up to 4, as in the paper, and images of other sizes in proportion.

    Args:
        shape: shape of an observation: [H, W, C], [C, H, W], a stack of gray images [n, H, W] or of color images
            [n, H, W, C]. All images of a stack are shifted by the same number of pixels.
        rng: random generator on the device of the images.
    """

    def __init__(self, shape: Sequence[int], rng: torch.Generator) -> None:
        self.axes = (-3, -2) if channels_last(shape) else (-2, -1)
        self.most = max(round(min(shape[axis] for axis in self.axes) * 4 / 84), 1)
        self.rng = rng

    def __call__(self, observations: Tensor) -> Tensor:
        """Return observations [N, ...], each shifted in both directions by its own random numbers of pixels."""
        offsets = torch.randint(
            -self.most, self.most + 1, (2, len(observations)), generator=self.rng, device=self.rng.device
        )
        return shifted(observations, offsets, self.axes)


def shifted(images: Tensor, offsets: Tensor, axes: tuple[int, int]) -> Tensor:
    """Crop images that are padded with the pixels of their border, to their own size.

    Args:
        images: [N, ...] of any dtype.
        offsets: int64 [2, N]: rows and columns by which the crop of each image is moved.
        axes: the axes of height and width.
    """
    x = images.movedim(axes, (1, 2))
    n, height, width = x.shape[:3]
    # The pixel of a position beyond the border is that of the border.
    rows = (torch.arange(height, device=x.device) + offsets[0, :, None]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=x.device) + offsets[1, :, None]).clamp_(0, width - 1)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    return x[image, rows[:, :, None], columns[:, None, :]].movedim((1, 2), axes)
