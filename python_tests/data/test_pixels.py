"""Conversion of images of any mode and size to pixels of one mode and size."""

import numpy as np
import pytest
import torch
from test_image_files import class_folders, png, write

from automl_ext.data.images import load_images
from automl_ext.data.pixels import convert, is_gray, parse_size, to_pixels
from automl_ext.training.errors import UserError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def palette(*colors):
    image = Image.new("P", (1, 1), 1)
    image.putpalette([value for color in colors for value in color])
    return image


def transparent_palette():
    image = palette((0, 0, 0), (200, 0, 0))
    image.info["transparency"] = 1
    return image


MODES = {
    "RGB": (Image.new("RGB", (1, 1), (255, 0, 10)), (255, 0, 10), False),
    "L": (Image.new("L", (1, 1), 77), (77,) * 3, True),
    "1": (Image.new("1", (1, 1), 1), (255,) * 3, True),
    "RGBA, half transparent: on white": (Image.new("RGBA", (1, 1), (255, 0, 0, 128)), (255, 127, 127), False),
    "RGBA, transparent: white": (Image.new("RGBA", (1, 1), (9, 9, 9, 0)), (255,) * 3, False),
    "LA, transparent: white": (Image.new("LA", (1, 1), (9, 0)), (255,) * 3, True),
    "LA, opaque": (Image.new("LA", (1, 1), (9, 255)), (9,) * 3, True),
    "palette": (palette((0, 0, 0), (1, 2, 3)), (1, 2, 3), False),
    "gray palette": (palette((0, 0, 0), (5, 5, 5)), (5,) * 3, True),
    "transparent color of a palette: white": (transparent_palette(), (255,) * 3, False),
    "CMYK": (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), (0, 255, 255), False),
    "16 bits, largest": (Image.fromarray(np.array([[65535]], np.uint16)), (255,) * 3, True),
    "16 bits, 128.5 of 255 rounds to even or up": (Image.fromarray(np.array([[32896]], np.uint16)), (128,) * 3, True),
    "32 bits": (Image.fromarray(np.array([[257]], np.int32)), (1,) * 3, True),
}


@pytest.mark.parametrize("name", MODES)
def test_modes(name):
    image, color, gray = MODES[name]
    assert is_gray(image) is gray
    assert to_pixels(image, 3)[0, 0].tolist() == list(color)
    luma = round(sum(weight * value for weight, value in zip((0.299, 0.587, 0.114), color, strict=True)))
    assert abs(int(to_pixels(image, 1)[0, 0]) - luma) <= 1


def test_values_that_are_not_images_are_refused():
    with pytest.raises(ValueError, match="values from -1 to -1, expected 8 or 16 bits"):
        to_pixels(Image.fromarray(np.array([[-1]], np.int32)), 1)
    with pytest.raises(ValueError, match="mode F"):
        to_pixels(Image.fromarray(np.array([[0.5]], np.float32)), 1)


def test_one_image_with_color_makes_all_rgb(tmp_path):
    gray = class_folders(mode="L")
    assert load_images(write(tmp_path / "gray", gray, "folder")).images.shape[1] == 1
    mixed = gray | {"cat/3.png": png(103, mode="RGB"), "dog/0.png": png(200, mode="RGBA")}
    spec = write(tmp_path / "mixed", mixed, "folder")
    images = load_images(spec).images
    assert images.shape == (12, 3, 6, 5)
    assert images[:, 2, 0, 0].tolist()[:6] == [*range(100, 106)]
    assert load_images(spec, image_mode="gray").images.shape == (12, 1, 6, 5)
    assert load_images(write(tmp_path / "gray", {}, "folder"), image_mode="rgb").images.shape == (12, 3, 6, 5)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_mixed_sizes_are_resized(tmp_path, kind):
    files = class_folders() | {"cat/3.png": png(103, size=(50, 31)), "dog/1.png": png(201, size=(2, 3))}
    files |= {f"train/{name}": data for name, data in files.items()}
    files = {f"{part}/{name}": data for part in ("train", "test") for name, data in class_folders().items()}
    files["test/cat/3.png"] = png(103, size=(50, 31))
    spec = write(tmp_path, files, kind)
    data = load_images(spec, image_size="4x7")
    assert data.images.shape == data.test_images.shape == (12, 3, 4, 7)
    assert data.test_images[3].unique().tolist() == [103]
    assert load_images(spec, image_size=9).images.shape == (12, 3, 9, 9)
    with pytest.raises(UserError, match=r"2 sizes .* --image-size 6x5"):
        load_images(spec)


def test_train_and_test_of_other_sizes_name_the_option(tmp_path):
    sizes = {"train": (5, 6), "test": (6, 5)}
    files = {
        f"{part}/{name}/{i}.png": png(i, size=size)
        for part, size in sizes.items()
        for name in ("cat", "dog")
        for i in range(4)
    }
    with pytest.raises(UserError, match="3×6×5 and 3×5×6; give --image-size or --image-mode"):
        load_images(write(tmp_path, files, "folder"))


def test_resizing_is_antialiased_and_keeps_the_mean():
    lines = np.zeros((64, 64), np.uint8)
    lines[:, ::2] = 254
    small = to_pixels(Image.fromarray(lines), 1, (8, 8))
    assert small[:, 1:-1].tolist() == [[127] * 6] * 8  # without antialiasing: 0 or 254


def test_arrays_are_converted_too():
    images = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    assert convert("x", images, None, "auto") is images
    assert convert("x", images, (8, 8), "gray") is images
    assert torch.equal(convert("x", images, None, "rgb"), images.expand(3, 3, 8, 8))
    assert convert("x", images, (4, 6), "auto").shape == (3, 1, 4, 6)
    assert load_images("digits", subset=50, image_size=12, image_mode="rgb").images.shape == (50, 3, 12, 12)


@pytest.mark.parametrize("text", ["0", "x", "8x", "-3", "4097", "8x8x8", "8.5", "", "9" * 400])
def test_invalid_sizes_are_refused(text):
    with pytest.raises(ValueError, match="image_size: expected N or HxW"):
        parse_size(text)
    with pytest.raises(ValueError, match="image_mode: expected one of auto, rgb, gray, got 'grey'"):
        load_images("digits", image_mode="grey")
    assert parse_size("24x32") == (24, 32)
    assert parse_size(None) is None
