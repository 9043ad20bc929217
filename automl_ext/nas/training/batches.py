"""Batches of images, their augmentation, loss and accuracy."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits
from automl_ext.training import ranks
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import send


def to_device(split: Split, device: torch.device) -> Split:
    """Copy images and labels to ``device``."""
    return Split(split.images.to(device), split.labels.to(device))


def epoch_batches(size: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffle the indices of one epoch and split them into batches.

    A smaller last batch is dropped, unless it is the only one.
    """
    batches = list(torch.randperm(size, generator=generator).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def check_batches(batch_size: int, images: int) -> None:
    """Check that several processes get equal parts of every batch.

    Raises:
        UserError: the batches cannot be divided, or batch norm would get single images.
    """
    count, size = ranks.count(), min(batch_size, images)
    if count > 1 and (batch_size % count or size < 2 * count):
        got = batch_size if batch_size % count else size
        raise UserError(f"batch_size: expected a multiple of {count} processes, at least {2 * count}, got {got}")


def take(split: Split, index: Tensor) -> Split:
    """Return the images at ``index`` and their labels."""
    (index,) = send([index], split.labels.device)
    return Split(split.images[index], split.labels[index])


def augment(images: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift and mirror images at random.

    Args:
        images: [N, C, H, W].
        shift: the largest shift in each direction, in pixels; border pixels are repeated.
        flip: whether to mirror each image with probability 1/2.
        generator: a generator on the CPU, so that a seed gives the same augmentation on every device.
    """
    if not shift and not flip:
        return images
    n, c, h, w = images.shape
    offset = torch.randint(-shift, shift + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(h) + offset[0]).clamp(0, h - 1)
    columns = (torch.arange(w) + offset[1]).clamp(0, w - 1)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(-1), columns)
    rows, columns = send([rows, columns], images.device)
    image = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(c, device=images.device)[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def cutout(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Set a ``size`` × ``size`` square of each image to zero (DeVries & Taylor 2017).

    Centers are uniform over the pixels; the part of a square outside of the image has no effect.

    Args:
        images: [N, C, H, W], normalized, so that 0 is the mean.
        size: the side of the square in pixels.
        generator: a generator on the CPU.
    """
    if not size:
        return images
    n, _, h, w = images.shape
    inside = []
    for length in (h, w):
        start = torch.randint(length, (n, 1), generator=generator) - size // 2
        place = torch.arange(length)
        inside.append((place >= start) & (place < start + size))
    rows, columns = send(inside, images.device)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def cutmix(
    images: Tensor, labels: Tensor, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Replace a rectangle of each image by that of another image (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    The rectangle is the same for all images of a batch. Its area is uniform, before the image's borders cut it. For the
    loss see :func:`mixed_cross_entropy`.

    Args:
        images: [N, C, H, W].
        labels: [N].
        probability: probability that a batch is changed.
        generator: a generator on the CPU.

    Returns:
        The images; ``others``: the labels of the rectangles, [N]; ``share``: the fraction of an image outside of its
        rectangle.
    """
    if not probability or torch.rand((), generator=generator) >= probability:
        return images, labels, 1.0
    n, _, h, w = images.shape
    side = torch.rand((), generator=generator).sqrt()  # of the rectangle, as a part of the image's
    inside = []
    for length in (h, w):
        start = torch.randint(length, (), generator=generator) - side * length / 2
        place = torch.arange(length)
        inside.append((place >= start) & (place < start + side * length))
    rectangle = inside[0][:, None] & inside[1]
    share = 1 - rectangle.double().mean().item()
    rectangle, other = send([rectangle, torch.randperm(n, generator=generator)], images.device)
    return torch.where(rectangle, images[other], images), labels[other], share


def mixed_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    others: Tensor,
    share: float,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return ``share`` · loss(labels) + (1 − ``share``) · loss(others), for images of :func:`cutmix`.

    Args:
        logits: [N, classes].
        labels, others: [N].
        weight: weights of the classes, [classes].
    """
    loss = F.cross_entropy(logits, labels, weight, label_smoothing=label_smoothing)
    if share == 1:
        return loss
    return share * loss + (1 - share) * F.cross_entropy(logits, others, weight, label_smoothing=label_smoothing)


def without_validation(splits: Splits) -> Splits:
    """Return the splits without their validation images.

    A :class:`~automl_ext.nas.training.network_training.NetworkTraining` also trains on the validation images.
    """
    return replace(splits, valid=take(splits.valid, torch.arange(0)))


def train_and_valid(splits: Splits) -> Split:
    """Concatenate the training and validation images, which a final training uses together."""
    parts = (splits.train, splits.valid)
    return Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))


@torch.no_grad()
def logits(network: nn.Module, split: Split, *arguments: object) -> Tensor:
    """Compute ``network(images, *arguments)`` in evaluation mode: [N, classes].

    The mode of the network is restored.
    """
    was_training = network.training
    network.eval()
    found = torch.cat([network(images, *arguments) for images in split.images.split(500)])
    network.train(was_training)
    return found


def accuracy(network: nn.Module, split: Split, *arguments: object) -> float:
    """Compute the accuracy, 0 to 1, of ``network(images, *arguments)`` in evaluation mode."""
    return int((logits(network, split, *arguments).argmax(-1) == split.labels).sum()) / len(split.labels)
