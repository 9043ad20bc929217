"""Reader of image files in class folders, on disk or in a zip file. Needs Pillow (extra ``data``)."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from automl_ext.data.pixels import Size, channels_first, import_pillow, is_gray, number_of_channels, one_size, to_pixels
from automl_ext.data.source import Part, Source
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import check_regular, check_size, short

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DEPTH = 6
LARGEST_FILE = 1 << 28  # largest size of one image in a zip file, in bytes

# Maps the name of a folder to its tree, and the name of an image file to None.
Tree = dict[str, Any]
Result = TypeVar("Result")


def folder_or_zip(path: Path, size: Size | None = None, mode: str = "auto") -> Source:
    """Read ``class/image`` files or, with an official test part, ``train/class/image`` and ``test/class/image`` files.

    If the top level is a single folder that contains only folders (``train``, or the zipped folder), its content is
    read. Classes are sorted by name. Hidden files and files without an image suffix are ignored.
    :mod:`automl_ext.data.pixels` describes the conversion of the images.

    Args:
        size: (height, width) to which images are resized; None: all must have the same size.
        mode: ``rgb``, ``gray``, or ``auto``: RGB if any image that is read has color, else gray.

    Raises:
        UserError: a file or folder is unsuitable; the message names it.
    """
    import_pillow("--data folder")
    names = _list_folder(path) if path.is_dir() else _list_zip(path)
    tree: Tree = {}
    for name in names:
        _insert(tree, name)
    top = ""
    while len(tree) == 1 and _holds_folders(next(iter(tree.values()))):
        name, tree = next(iter(tree.items()))
        top += f"{name}/"
    read = partial(_read, path, size, mode)
    if not _holds_folders(tree.get("train")):
        classes, train = _part(path, top, tree, read)
        return Source(classes, train)
    if sorted(_folders(tree)) != ["test", "train"]:
        found = ", ".join(sorted(_folders(tree)))
        raise UserError(
            f"{path}: expected class folders, or the folders train and test with class folders; found {found}"
        )
    classes, train = _part(path, f"{top}train/", tree["train"], read)
    test_classes, test = _part(path, f"{top}test/", tree["test"], read)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[0]
        raise UserError(f"{path}: class {odd!r} is in only one of the folders train and test")
    return Source(classes, train, test)


def _part(path: Path, top: str, tree: Tree, read: Callable[[list[str]], Tensor]) -> tuple[tuple[str, ...], Part]:
    classes = tuple(sorted(_folders(tree)))
    if not classes:
        raise UserError(f"{path}: no class folders in {top or 'the top level'}; expected class/image files")
    names, labels = [], []
    for label, name in enumerate(classes):
        inner = _folders(tree[name])
        if inner:
            raise UserError(f"{path}: class folder {top}{name} contains a folder, {inner[0]}; expected only images")
        if not tree[name]:
            raise UserError(f"{path}: class folder {top}{name} contains no images ({', '.join(SUFFIXES)})")
        names += [f"{top}{name}/{file}" for file in sorted(tree[name])]
        labels += [label] * len(tree[name])
    return classes, Part(torch.tensor(labels), lambda indices: read([names[i] for i in indices.tolist()]))


def _read(path: Path, size: Size | None, mode: str, names: list[str]) -> Tensor:
    """Read images as uint8 ``[n, C, H, W]``. Files are decoded one at a time and not unpacked to disk."""
    with _opener(path) as load:
        found = [_decode(load, path, name, _header) for name in names]
        channels = number_of_channels(mode, (gray for _, gray in found))
        height, width = size or one_size(str(path), (size for size, _ in found))
        check_size(path, len(names) * channels * height * width)
        out = np.empty((len(names), channels, height, width), np.uint8)
        for i, name in enumerate(names):
            out[i] = channels_first(_decode(load, path, name, lambda image: to_pixels(image, channels, size)))
    return torch.from_numpy(out)


def _header(image: Any) -> tuple[Size, bool]:
    """Return (height, width), and whether the image is gray. Pixels are not decoded, except for a palette."""
    return (image.size[1], image.size[0]), is_gray(image)


def _decode(load: Callable[[str], bytes], path: Path, name: str, use: Callable[[Any], Result]) -> Result:
    """Return ``use(image)`` of one file."""
    from PIL import Image

    try:
        data = load(name)
        if use is not _header:
            with Image.open(io.BytesIO(data)) as image:
                image.verify()  # checks PNG checksums, unlike decoding; the image cannot be used afterwards
        with Image.open(io.BytesIO(data)) as image:
            return use(image)
    except MemoryError:
        raise
    except Exception as error:  # each image format raises its own exceptions, and so does zipfile
        # Pillow's message contains the address of the buffer, which does not help the user.
        reason = "not an image file" if type(error).__name__ == "UnidentifiedImageError" else short(error)
        raise UserError(f"{path}: cannot read the image {name}: {reason}") from None


@contextlib.contextmanager
def _opener(path: Path) -> Iterator[Callable[[str], bytes]]:
    if path.is_dir():

        def load(name: str) -> bytes:
            check_regular(path / name, "image")
            return (path / name).read_bytes()

        yield load
    else:
        with zipfile.ZipFile(path) as archive:

            def load_member(name: str) -> bytes:
                size = archive.getinfo(name).file_size
                if size > LARGEST_FILE:
                    raise ValueError(f"its size is {size} bytes unpacked, expected at most {LARGEST_FILE}")
                return archive.read(name)  # never reads more than the declared size

            yield load_member


def _list_folder(path: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise UserError(f"cannot list {error.filename}: {error.strerror}")

    # Class folders are often links. Links can form a cycle, hence the limit on the depth.
    for place, folders, files in os.walk(path, onerror=fail, followlinks=True):
        inner = Path(place).relative_to(path)
        if len(inner.parts) >= DEPTH:
            folders.clear()
        yield from ((inner / name).as_posix() + "/" for name in folders)
        yield from ((inner / name).as_posix() for name in files)


def _list_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is neither a folder nor a readable zip file: {error}") from None


def _insert(tree: Tree, name: str) -> None:
    *folders, last = name.split("/")
    if any(part.startswith(".") or part == "__MACOSX" for part in (*folders, last)):
        return
    for folder in folders:
        if tree.get(folder) is None:
            tree[folder] = {}
        tree = tree[folder]
    if last.lower().endswith(SUFFIXES):
        tree.setdefault(last, None)


def _folders(tree: Tree) -> list[str]:
    return [name for name, inner in tree.items() if inner is not None]


def _holds_folders(tree: Tree | None) -> bool:
    return tree is not None and len(tree) > 0 and None not in tree.values()
