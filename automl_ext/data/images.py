"""Labeled images of one size, and their split into training, validation and test parts.

load_images("digits")                      scikit-learn's 1,797 digits, 8×8
load_images("fashion-mnist:PATH")          a folder with the four idx files, gzipped or not
load_images("cifar10:PATH")                 the official archive, as a tar.gz file or unpacked; also "cifar100:PATH"
load_images("folder:PATH")                 a folder or zip file with one folder of images per class
load_images("npz:PATH")                    NumPy arrays
load_images(dataset)                       own data in Python: see automl_ext.data.datasets
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_ext.data.pixels import Size, check_mode, convert, parse_size
from automl_ext.data.source import Part, Source, array_part
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import check_regular

SPECS = "digits, fashion-mnist:PATH, cifar10:PATH, cifar100:PATH, folder:PATH or npz:PATH"


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images as they were read: uint8 ``[N, C, H, W]``, int64 labels ``[N]`` that index ``classes``.

    ``test_images`` and ``test_labels`` are the official test part, or None if the data set has none.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    test_images: Tensor | None = None
    test_labels: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """One part of the split: normalized float32 images ``[n, C, H, W]`` and int64 labels ``[n]``."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Splits:
    """The three parts, and the properties of the data that a network depends on.

    ``image_size`` is (height, width). ``mean`` and ``std``, one per channel, normalize images in [0, 1].
    """

    train: Split
    valid: Split
    test: Split
    num_classes: int
    in_channels: int
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_images(
    spec: Any,
    *,
    subset: int | None = None,
    seed: int = 0,
    image_size: str | int | None = None,
    image_mode: str = "auto",
) -> ImageData:
    """Read the images that ``spec`` names.

    Args:
        spec: ``digits``, ``fashion-mnist:PATH``, ``cifar10:PATH``, ``cifar100:PATH``, ``folder:PATH`` or
            ``npz:PATH``; or own data in Python, as :mod:`automl_ext.data.datasets` takes them, whose name becomes
            ``own:`` and a checksum; or an ImageData, of which only the size, the mode and the number of images are
            changed.
        subset: select this number of images at random, stratified by class. With an official test part, 80 % of them
            come from the training part and 20 % from the test part. Only the selected files are read.
        seed: seed of the random selection.
        image_size: N or "HxW", the size to which images are stretched. None: all images must have the same size.
        image_mode: ``rgb``, ``gray``, or ``auto``: RGB if any image has color, else gray; images stored as arrays
            keep their channels.

    Raises:
        UserError: the spec is unknown, a file is missing, damaged or unsuitable, a class has too few images (below 5,
            or below 4 and 1 with a test part), or the subset is too large or too small. The message names the file.
        ValueError: ``image_size`` or ``image_mode`` is invalid.
    """
    from automl_ext.data.datasets import digest

    size = parse_size(image_size)
    check_mode(image_mode)
    source = _open(spec, size, image_mode)
    name = spec if isinstance(spec, str) else type(spec).__name__
    parts = [part for part in (source.train, source.test) if part is not None]
    labels = [part.labels for part in parts]
    _check_classes(name, source.classes, *labels)
    chosen = [torch.arange(len(of_part)) for of_part in labels]
    if subset is not None:
        for_test = round(subset * 0.2) if len(parts) > 1 else 0
        wanted = [subset - for_test, for_test][: len(parts)]
        sizes = [len(of_part) for of_part in labels]
        if subset < 1 or any(count > size for count, size in zip(wanted, sizes, strict=True)):
            each = f" ({sizes[0]} for training and {sizes[1]} for test)" if len(parts) > 1 else ""
            raise UserError(f"--subset {subset}: {name} has {sum(sizes)} images{each}")
        generator = torch.Generator().manual_seed(seed)
        chosen = [draw_stratified(of_part, n, generator) for of_part, n in zip(labels, wanted, strict=True)]
        labels = [of_part[index] for of_part, index in zip(labels, chosen, strict=True)]
        _check_classes(f"--subset {subset} of {name}", source.classes, *labels)
    images = [part.read(index) for part, index in zip(parts, chosen, strict=True)]
    if len({of_part.shape[1:] for of_part in images}) > 1:
        shapes = " and ".join("×".join(map(str, of_part.shape[1:])) for of_part in images)
        raise UserError(
            f"{name}: training and test images differ in shape (C×H×W): {shapes}; give --image-size or --image-mode"
        )
    tensors = [tensor for pair in zip(images, labels, strict=True) for tensor in pair]
    name = name if isinstance(spec, str) else f"own:{digest(*tensors)}"
    return ImageData(name, tensors[0], tensors[1], source.classes, *tensors[2:])


def split_images(data: ImageData, *, seed: int = 0) -> Splits:
    """Split images 60/20/20 into training, validation and test parts, stratified by class.

    If there is an official test part, it is used and the other images are split 75/25. Images are scaled to [0, 1] and
    normalized per channel by the mean and standard deviation of the training part. The split depends only on the data
    and ``seed`` (a ``torch.Generator`` on the CPU). The images of a part are in random order.

    Raises:
        UserError: there are fewer than two classes, or a class has fewer than 5 images (4 with an official test part).
    """
    _check_classes(data.name, data.classes, data.labels, data.test_labels)
    generator = torch.Generator().manual_seed(seed)
    official = data.test_images is not None and data.test_labels is not None
    shares = (0.25,) if official else (0.2, 0.2)
    parts: list[list[Tensor]] = [[] for _ in range(len(shares) + 1)]  # training, validation, (test)
    for label in range(len(data.classes)):
        members = torch.nonzero(data.labels == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        sizes = [round(len(members) * share) for share in shares]
        for part, piece in zip(parts, members.split([len(members) - sum(sizes), *sizes]), strict=True):
            part.append(piece)
    orders = [torch.cat(part) for part in parts]
    orders = [order[torch.randperm(len(order), generator=generator)] for order in orders]
    raw = [(data.images[order], data.labels[order]) for order in orders]
    if data.test_images is not None and data.test_labels is not None:
        raw.append((data.test_images, data.test_labels))
    mean, std = _statistics(raw[0][0])
    train, valid, test = (Split(_normalize(images, mean, std), labels) for images, labels in raw)
    channels, height, width = data.images.shape[1:]
    normalization = tuple(mean.tolist()), tuple(std.tolist())
    return Splits(train, valid, test, len(data.classes), channels, (height, width), data.classes, *normalization)


def draw_stratified(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Select ``count`` of the labels ``[N]`` at random, stratified by class. Return sorted indices.

    The numbers per class are rounded by the method of largest remainders.
    """
    sizes = torch.bincount(labels)
    exact = sizes * count  # exact number per class, in units of 1/N
    quota = exact // len(labels)
    order = torch.sort(exact % len(labels), descending=True, stable=True).indices
    quota[order[: count - int(quota.sum())]] += 1
    drawn = []
    for label, wanted in enumerate(quota.tolist()):
        members = torch.nonzero(labels == label).flatten()
        drawn.append(members[torch.randperm(len(members), generator=generator)[:wanted]])
    return torch.cat(drawn).sort().values


def _open(spec: Any, size: Size | None, mode: str) -> Source:
    # The readers of files are loaded here: most who import this module have their images.
    from automl_ext.data import array_files, image_files
    from automl_ext.data.cifar import cifar
    from automl_ext.data.datasets import dataset_source

    if isinstance(spec, ImageData):
        has_test = spec.test_images is not None and spec.test_labels is not None
        test = array_part(spec.test_images, spec.test_labels) if has_test else None  # type: ignore[arg-type]
        return _converted("images", Source(spec.classes, array_part(spec.images, spec.labels), test), size, mode)
    if not isinstance(spec, str):
        return dataset_source(spec, size, mode)
    kind, _, place = spec.partition(":")
    path = Path(place).expanduser()
    if spec == "digits":
        return _converted(spec, array_files.digits(), size, mode)
    readers: dict[str, Callable[[Path], Source]] = {
        "fashion-mnist": array_files.fashion_mnist,
        "cifar10": partial(cifar, kind="cifar10"),
        "cifar100": partial(cifar, kind="cifar100"),
        "folder": partial(image_files.folder_or_zip, size=size, mode=mode),
        "npz": array_files.npz,
    }
    if kind not in readers or not place:
        raise UserError(f"unknown data {spec!r}: expected {SPECS}{_suggestion(spec)}")
    if not path.exists():
        raise UserError(f"--data {spec}: {path} does not exist")
    if not path.is_dir():
        check_regular(path, f"--data {spec}")
    source = readers[kind](path)
    return source if kind == "folder" else _converted(spec, source, size, mode)


def _converted(name: str, source: Source, size: Size | None, mode: str) -> Source:
    """Return a source of arrays that converts the images when they are read."""

    def converted(part: Part) -> Part:
        return Part(part.labels, lambda indices: convert(name, part.read(indices), size, mode))

    return Source(source.classes, converted(source.train), None if source.test is None else converted(source.test))


def _suggestion(spec: str) -> str:
    """Return a hint if ``spec`` is an existing path without the prefix ``folder:`` or ``npz:``; else ""."""
    path = Path(spec).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".zip"):
        return f"; did you mean folder:{spec}?"
    return f"; did you mean npz:{spec}?" if path.is_file() and path.suffix == ".npz" else ""


def _check_classes(name: str, classes: tuple[str, ...], labels: Tensor, test_labels: Tensor | None = None) -> None:
    """Check that every class has enough images for each part: 3/1/1 of 5, or 3/1 of 4 with an official test part."""
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        raise UserError(f"{name}: at least two classes are needed, found {found}")
    needs = [("", labels, 5)] if test_labels is None else [("training", labels, 4), ("test", test_labels, 1)]
    for part, values, least in needs:
        sizes = torch.bincount(values, minlength=len(classes))
        scarce = int(sizes.argmin())
        if sizes[scarce] < least:
            word = f"{part} images" if part else "images"
            hint = "; labels count from 0" if not sizes[0] and classes[0] == "0" else ""
            raise UserError(
                f"{name}: class {classes[scarce]!r} has {int(sizes[scarce])} {word}, at least {least} are needed{hint}"
            )


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation per channel of uint8 images scaled to [0, 1], float64 ``[C]``.

    They are computed from exact counts, so they do not depend on the number of threads. A constant channel gets the
    standard deviation of one gray level instead of zero.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    weights = counts / counts.sum(1, keepdim=True)
    mean = (weights * levels).sum(1)
    variance = (weights * (levels - mean[:, None]) ** 2).sum(1)
    return mean, variance.sqrt().clamp(min=1 / 255)


def _normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    scale, shift = 1 / (255 * std), mean / std
    out = images.to(torch.float32, memory_format=torch.contiguous_format)
    return out.mul_(scale.float()[:, None, None]).sub_(shift.float()[:, None, None])
