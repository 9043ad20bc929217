"""Conversion of images to uint8 pixels of one size and one mode, by Pillow (extra ``data``).

Modes: palette, CMYK and others become RGB or gray. Transparent pixels are blended with white. 16-bit gray values are
scaled to 8 bits. An image is gray if its mode or its palette has no color; EXIF rotation is ignored.
Sizes: an image of another size is stretched to the wanted one, by bilinear resampling with antialiasing. The result
depends only on the image, the size and the mode.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import check_size, short

MODES = ("auto", "rgb", "gray")
LARGEST_SIDE = 4096  # pixels

Size = tuple[int, int]  # (height, width)


def parse_size(text: str | int | None) -> Size | None:
    """Return (height, width) of ``image_size``: N, or HxW such as 24x32. None stays None.

    Raises:
        ValueError: the text has another form, or a side is not from 1 to 4096.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", str(text))
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise ValueError(f"image_size: expected N or HxW, such as 32 or 24x32, at most 4096, got {short(text)}")
    return size


def check_mode(mode: str) -> None:
    """Raise ValueError if ``image_mode`` is unknown."""
    if mode not in MODES:
        raise ValueError(f"image_mode: expected one of {', '.join(MODES)}, got {short(mode)}")


def import_pillow(option: str) -> Any:
    """Return the module ``PIL.Image``.

    Raises:
        UserError: Pillow is missing; the message names ``option``, which needs it.
    """
    try:
        from PIL import Image
    except ImportError:
        raise UserError(f'{option}: needs Pillow: pip install "automl_ext[data]"') from None
    return Image


def is_gray(image: Any) -> bool:
    """Return whether a Pillow image is gray, as its mode or its palette shows."""
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def number_of_channels(mode: str, grays: Iterable[bool]) -> int:
    """Return 1 or 3. ``auto``: 3 if any image has color."""
    return 3 if mode == "rgb" or (mode == "auto" and not all(grays)) else 1


def one_size(name: str, sizes: Iterable[Size]) -> Size:
    """Return the common size.

    Raises:
        UserError: there are several sizes; the message lists the most frequent ones and names the option.
    """
    counts = Counter(sizes).most_common()
    if len(counts) > 1:
        listed = ", ".join(
            f"{height}×{width} ({count} image{'s' * (count > 1)})" for (height, width), count in counts[:4]
        )
        more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
        raise UserError(
            f"{name}: the images have {len(counts)} sizes (height×width): {listed}{more}; "
            f"resize all of them with --image-size, for example --image-size {counts[0][0][0]}x{counts[0][0][1]}"
        )
    return counts[0][0]


def to_pixels(image: Any, channels: int, size: Size | None = None) -> np.ndarray:
    """Convert a Pillow image to uint8 [H, W] (1 channel) or [H, W, 3].

    Raises:
        ValueError: the image has floats, or 32-bit values outside the range of 16 bits.
    """
    from PIL import Image

    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    elif image.mode == "F":
        raise ValueError("it has mode F (floats), expected 8 or 16 bits per value")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), shown)
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _from_16_bits(image: Any) -> Any:
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"it has values from {values.min()} to {values.max()}, expected 8 or 16 bits per value")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def convert(name: str, images: Tensor, size: Size | None, mode: str) -> Tensor:
    """Convert images that are already arrays: uint8 [N, C, H, W], C = 1 or 3.

    Args:
        name: the source, for messages.
        images: returned unchanged if they have this size and mode.
        size: (height, width); None: keep the size.
        mode: one of ``MODES``; ``auto`` keeps the channels.
    """
    channels = {"auto": images.shape[1], "rgb": 3, "gray": 1}[mode]
    height, width = size or images.shape[2:]
    shape = (len(images), channels, int(height), int(width))
    if tuple(images.shape) == shape:
        return images
    pillow = import_pillow("--image-size" if size else "--image-mode")
    check_size(Path(name), int(np.prod(shape, dtype=np.int64)))
    out = np.empty(shape, np.uint8)
    for i, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
        image = pillow.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
        out[i] = channels_first(to_pixels(image, channels, size))
    return torch.from_numpy(out)


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """Move the channels first: [H, W] or [H, W, 3] → [1, H, W] or [3, H, W]."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
