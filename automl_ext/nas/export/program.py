"""A network as a ``torch.export`` program that takes images as they are stored, of any number and size."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.training.files.atomic import write_atomic


class Normalization(nn.Module):
    """Maps uint8 images [N, C, H, W] to the network's input: scaled to [0, 1], then normalized as in training."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # The conversion makes the exported program refuse other dtypes, such as floats in [0, 1].
        return (images.to(torch.float32) / 255 - self.mean) / self.std


class RawImages(nn.Module):
    """A network preceded by its normalization: uint8 images [N, C, H, W] → logits [N, classes]."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalization, self.network = Normalization(mean, std), network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalization(images))
        return logits


def sample_images(program: nn.Module, facts: dict[str, Any]) -> list[Tensor]:
    """Return random images of the training's size and, if the network takes any size, of a larger one."""
    height, width = facts["image_size"]
    generator = torch.Generator().manual_seed(0)

    def sample(n: int, *size: int) -> Tensor:
        shape = (n, facts["shape"]["in_channels"], *size)
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator)

    trained, larger = (
        sample(3, height, width),
        sample(2, height + 3, width + 6),
    )  # odd if both are even
    try:
        with torch.no_grad():
            program(larger)
    except RuntimeError:  # a layer that depends on the size, such as a linear one after flattening
        return [trained]
    return [trained, larger]


def write_program(program: nn.Module, samples: list[Tensor], path: Path) -> list[Tensor]:
    """Write a ``torch.export`` program that takes any number of images and, if possible, any size.

    Returns:
        The samples that the program takes: the second one too if it takes any size.
    """
    program = copy.deepcopy(program).requires_grad_(False)  # so that its outputs need no detach()
    exported = None
    if len(samples) > 1:
        any_size = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
        try:
            exported = torch.export.export(program, (samples[1],), dynamic_shapes={"images": any_size})
            exported.module()(samples[0])
        except (RuntimeError, AssertionError):  # the layers depend on the size, or it is below a bound that export adds
            exported, samples = None, samples[:1]
    if exported is None:
        any_number = {0: torch.export.Dim("batch", min=1)}
        exported = torch.export.export(program, (samples[0],), dynamic_shapes={"images": any_number})
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    write_atomic(path, buffer.getvalue())
    return samples


def check(loaded: Any, program: nn.Module, samples: list[Tensor], path: Path) -> None:
    """Check that a loaded network gives the logits of ``program``, for all images of a sample and for the first one.

    Raises:
        RuntimeError: the logits differ.
    """
    with torch.no_grad():
        for images in (part for sample in samples for part in (sample, sample[:1])):
            if not torch.allclose(loaded(images), program(images), rtol=1e-4, atol=1e-4):
                raise RuntimeError(f"export: {path}: the logits differ from those of the run's network")
