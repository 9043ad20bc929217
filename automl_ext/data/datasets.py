"""Own data in Python: a ``Dataset``, a ``DataLoader``, or images and labels, converted once to uint8 arrays.

load_images(dataset)                       items (image, label)
load_images((train_dataset, test_dataset)) with a test part of its own
load_images((images, labels))              arrays, tensors, or a list of Pillow images and a list of ints
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from automl_ext.data.array_files import to_uint8
from automl_ext.data.pixels import (
    Size,
    channels_first,
    convert,
    import_pillow,
    is_gray,
    number_of_channels,
    one_size,
    to_pixels,
)
from automl_ext.data.source import Source, array_part
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import largest_data, short

EXPECTED = "a Dataset or DataLoader of (image, label), a pair of them (training, test), or a pair (images, labels)"


def dataset_source(data: Any, size: Size | None, mode: str) -> Source:
    """Convert own data. Labels are integers from 0 to K − 1. :func:`image_arrays` describes the images.

    The names of the classes are the dataset's attribute ``classes`` if it has one, as torchvision's ``ImageFolder``,
    else the labels. A DataLoader that shuffles is read in the order of its dataset, so that each run sees the same
    data; other samplers are used.

    Raises:
        UserError: an item, a label or an image is unsuitable, or sizes differ and ``size`` is None.
    """
    if isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(d, (Dataset, DataLoader)) for d in data):
        (images, labels), (test_images, test_labels) = (_read_all(part, size, mode) for part in data)
        classes = _class_names(data[0], torch.cat([labels, test_labels]))
        return Source(classes, array_part(images, labels), array_part(test_images, test_labels))
    images, labels = _read_all(data, size, mode)
    return Source(_class_names(data, labels), array_part(images, labels))


def digest(*data: Tensor) -> str:
    """Return a name for data. It contains a checksum of the data, by which a resumed run recognizes them."""
    found = hashlib.sha256()
    for tensor in data:
        found.update(str(list(tensor.shape)).encode())
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()[:16]


def image_arrays(name: str, images: Any, size: Size | None, mode: str) -> Tensor:
    """Convert images to uint8 [N, C, H, W], C = 1 or 3.

    Args:
        name: for messages.
        images: an array or tensor of all images, as :func:`automl_ext.data.array_files.npz` takes them, or a sequence
            of Pillow images, or of arrays or tensors [H, W], [C, H, W] or [H, W, C], uint8 or floats in [0, 1].
        size: (height, width) to which images are resized; None: all must have the same size.
        mode: ``rgb``, ``gray``, or ``auto``: RGB if any image has color, else gray.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        return convert(name, to_uint8(name, _array(images)), size, mode)
    return _unite(name, [_one(f"{name}: image {i}", image) for i, image in enumerate(images)], size, mode)


def _read_all(data: Any, size: Size | None, mode: str) -> tuple[Tensor, Tensor]:
    name = type(data).__name__
    if isinstance(data, DataLoader):
        batches = [_batch(name, batch) for batch in _limited(name, _in_order(data))]
        pieces = [image for images, _ in batches for image in images]
        labels = torch.cat([labels for _, labels in batches]) if batches else torch.empty(0, dtype=torch.int64)
        return _unite(name, pieces, size, mode), labels
    if isinstance(data, Dataset):
        if not isinstance(data, IterableDataset) and not hasattr(data, "__len__"):
            raise UserError(f"{name}: expected a Dataset with __len__, or an IterableDataset")
        items = iter(data) if isinstance(data, IterableDataset) else (data[i] for i in range(len(data)))
        pairs = [_item(f"{name}: item {i}", item) for i, item in enumerate(_limited(name, items))]
        return _unite(name, [image for image, _ in pairs], size, mode), torch.tensor([label for _, label in pairs])
    if isinstance(data, (tuple, list)) and len(data) == 2:
        images = image_arrays("images", data[0], size, mode)
        labels = _labels("labels", data[1])
        if len(images) != len(labels):
            raise UserError(f"labels: expected one per image, got {len(labels)} for {len(images)} images")
        return images, labels
    raise UserError(f"data: expected {EXPECTED}, got {short(data)}")


def _selected(indices: Iterable[Any], sampler: str) -> list[Any]:
    """Return the indices that a sampler draws, in increasing order. A sampler that does not end repeats indices."""
    selected: set[Any] = set()
    for drawn in indices:
        index = drawn.item() if isinstance(drawn, Tensor) else drawn
        if index in selected:
            raise UserError(f"DataLoader: its {sampler} repeats images; pass its dataset and class_weights='balanced'")
        selected.add(index)
    return sorted(selected)


def _in_order(loader: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over the batches of a loader, in the order of its dataset, of the images that its sampler selects.

    Raises:
        UserError: its sampler repeats images, which could then be both training and test images.
    """
    try:
        if loader.batch_sampler is not None and not isinstance(loader.dataset, IterableDataset):
            own = loader.batch_size is None  # a batch sampler of the caller
            sampler = loader.batch_sampler if own else loader.sampler
            indices = chain.from_iterable(sampler) if own else sampler
            loader = DataLoader(
                Subset(loader.dataset, _selected(indices, type(sampler).__name__)),
                batch_size=loader.batch_size or 1,
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
            )
        yield from loader
    except TypeError as error:  # a dataset without a length; or the default collation, which takes no Pillow images
        raise UserError(f"DataLoader: {short(error)}; pass its dataset instead") from None
    except RuntimeError as error:
        if "stack expects each tensor to be equal size" not in str(error):
            raise
        raise UserError("DataLoader: its images have different sizes; pass its dataset and --image-size") from None


def _limited(name: str, items: Iterable[Any]) -> Iterator[Any]:
    """Raise an error for a dataset that does not end or does not fit into memory."""
    total = 0
    for item in items:
        image = item[0] if isinstance(item, (tuple, list)) and item else None
        total += int(image.nbytes) if isinstance(image, (Tensor, np.ndarray)) else 0
        if total > 8 * largest_data():
            raise UserError(f"{name}: its images are larger than the memory")
        yield item


def _batch(name: str, batch: Any) -> tuple[list[np.ndarray], Tensor]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise UserError(f"{name}: expected batches (images, labels), got {type(batch).__name__}")
    images, labels = batch
    if isinstance(images, (Tensor, np.ndarray)):
        pieces = list(to_uint8(f"{name}: images of a batch", _array(images)).permute(0, 2, 3, 1).numpy())
    else:
        pieces = [_one(f"{name}: image {i} of a batch", image) for i, image in enumerate(images)]
    numbers = _labels(f"{name}: labels of a batch", labels)
    if len(pieces) != len(numbers):
        raise UserError(f"{name}: a batch has {len(pieces)} images and {len(numbers)} labels")
    return pieces, numbers


def _item(name: str, item: Any) -> tuple[np.ndarray, int]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise UserError(f"{name}: expected a pair (image, label), got {type(item).__name__}")
    return _one(name, item[0]), int(_labels(f"{name}: label", [item[1]])[0])


def _one(name: str, image: Any) -> np.ndarray:
    """Return one image as uint8 [H, W, C]; gray Pillow images have C = 1."""
    if isinstance(image, (Tensor, np.ndarray)):
        return to_uint8(name, _array(image)[None])[0].permute(1, 2, 0).numpy()
    if hasattr(image, "getpalette"):  # a Pillow image
        try:
            pixels = to_pixels(image, 1 if is_gray(image) else 3)
        except (ValueError, OSError) as error:
            raise UserError(f"{name}: {short(error)}") from None
        return pixels if pixels.ndim == 3 else pixels[..., None]
    raise UserError(f"{name}: expected a tensor, an array or a Pillow image, got {type(image).__name__}")


def _array(images: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(images, np.ndarray):
        return images
    images = images.detach().cpu()
    return (images.float() if images.is_floating_point() else images).numpy()


def _labels(name: str, labels: Any) -> Tensor:
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise UserError(f"{name}: expected integers, got {found.dtype} of shape {list(found.shape)}")
    return torch.from_numpy(found.astype(np.int64))


def _unite(name: str, pieces: list[np.ndarray], size: Size | None, mode: str) -> Tensor:
    """Convert images [H, W, 1 or 3] to one array of one size and mode."""
    if not pieces:
        raise UserError(f"{name}: expected images, got none")
    channels = number_of_channels(mode, (piece.shape[2] == 1 for piece in pieces))
    height, width = size or one_size(name, (piece.shape[:2] for piece in pieces))
    out = np.empty((len(pieces), channels, height, width), np.uint8)
    for i, piece in enumerate(pieces):
        if piece.shape == (height, width, channels):
            out[i] = piece.transpose(2, 0, 1)
        else:
            image = import_pillow("image_size").fromarray(
                np.ascontiguousarray(piece.squeeze(2) if piece.shape[2] == 1 else piece)
            )
            out[i] = channels_first(to_pixels(image, channels, (height, width)))
    return torch.from_numpy(out)


def _class_names(data: Any, labels: Tensor) -> tuple[str, ...]:
    """Return the dataset's own names of the classes, or the numbers up to the largest label."""
    names = None
    while names is None and data is not None:
        names, data = getattr(data, "classes", None), getattr(data, "dataset", None)
    given = tuple(map(str, names)) if isinstance(names, (list, tuple)) else None
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(labels if given is None else given):
        raise UserError(f"labels: expected integers from 0 to K − 1 for K classes, got {low if low < 0 else high}")
    if given is None:
        return tuple(map(str, range(high + 1)))
    if repeated := [name for name, count in Counter(given).items() if count > 1]:
        raise UserError(f"classes: expected a name of its own for each class, got several times: {short(repeated)}")
    return given
