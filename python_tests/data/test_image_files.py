"""Images from class folders and zip files, valid and invalid."""

import io
import zipfile

import pytest
import torch
from training_helpers import refused

from automl_ext.data.images import load_images

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def png(value=0, size=(5, 6), mode="RGB", kind="png"):
    pixel = value if mode in ("L", "P", "1") else (value,) * len(mode)
    buffer = io.BytesIO()
    Image.new(mode, size, pixel).save(buffer, kind)
    return buffer.getvalue()


def flipped(data):
    """Flip one bit of the compressed pixels, which only the PNG checksum detects."""
    at = data.index(b"IDAT") + 8
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def class_folders(top="", count=6, mode="RGB"):
    """Return file names and contents: ``count`` images of cat (gray values from 100) and of dog (from 200)."""
    return {
        f"{top}{name}/{i}.png": png(base + i, mode=mode)
        for name, base in (("dog", 200), ("cat", 100))
        for i in range(count)
    }


def write(place, files, kind):
    """Write files into a folder or a zip and return the spec."""
    if kind == "zip":
        path = place / "data.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return f"folder:{path}"
    for name, data in files.items():
        path = place / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if name.endswith("/") else path.write_bytes(data)
    return f"folder:{place / 'data'}"


both = pytest.mark.parametrize("kind", ["folder", "zip"])


@both
@pytest.mark.parametrize("top", ["", "train/", "pets/", "pets/train/"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_class_folders(tmp_path, kind, top, mode):
    files = class_folders(top, mode=mode) | {
        "README.txt": b"x",
        f"{top}cat/.hidden.png": b"x",
        f"{top}cat/list.csv": b"",
    }
    files |= {f"{top}cat/list.csv": b""}
    files |= {f"__MACOSX/{top}cat/0.png": b"x", ".cache/x/1.png": b"x"}
    data = load_images(write(tmp_path, files, kind))
    assert data.classes == ("cat", "dog")
    assert data.images.shape == (12, len(mode), 6, 5)
    assert data.images.is_contiguous()
    assert data.images[:, 0, 0, 0].tolist() == [*range(100, 106), *range(200, 206)]
    assert data.labels.tolist() == [0] * 6 + [1] * 6
    assert data.test_images is None


@both
def test_train_and_test_folders(tmp_path, kind):
    files = class_folders("train/", 4) | class_folders("test/", 2)
    data = load_images(write(tmp_path, files, kind))
    assert len(data.images) == 8
    assert data.test_images[:, 0, 0, 0].tolist() == [100, 101, 200, 201]
    assert data.test_labels.tolist() == [0, 0, 1, 1]


@both
def test_only_drawn_files_are_read(tmp_path, kind):
    files = class_folders(count=50)
    spec = write(tmp_path, files, kind)
    whole = load_images(spec)
    drawn = load_images(spec, subset=20)
    kept = set(drawn.images[:, 0, 0, 0].tolist())
    broken = {name: data if png_value(data) in kept else b"broken" for name, data in files.items()}
    assert len([d for d in broken.values() if d == b"broken"]) == 80
    again = load_images(write(tmp_path, broken, kind), subset=20)
    assert torch.equal(again.images, drawn.images)
    assert torch.bincount(again.labels).tolist() == [10, 10]
    assert len(whole.images) == 100


def png_value(data):
    return Image.open(io.BytesIO(data)).getpixel((0, 0))[0]


def test_jpeg_files_with_any_case(tmp_path):
    files = {f"{c}/{i}.JpG": png(90, kind="jpeg") for c in "ab" for i in range(5)}
    images = load_images(write(tmp_path, files, "zip")).images
    assert images.shape == (10, 3, 6, 5)
    assert (images.int() - 90).abs().max() <= 2


def test_linked_class_folders(tmp_path):
    write(tmp_path, class_folders(), "folder")
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "data" / name)
    assert len(load_images(f"folder:{tmp_path / 'links'}").images) == 12
    (tmp_path / "links" / "cat2").symlink_to(tmp_path / "links")  # a cycle of links
    refused(f"folder:{tmp_path / 'links'}", "cat2 contains a folder")


@both
@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"cat/3.png": b"no image"}, ["cannot read the image cat/3.png", "not an image file"]),
        ({"cat/3.png": b""}, ["cannot read the image cat/3.png"]),
        ({"cat/3.png": png(103)[:-20]}, ["cannot read the image cat/3.png"]),
        ({"cat/3.png": flipped(png(103))}, ["cannot read the image cat/3.png"]),
        (
            {"cat/3.png": png(size=(5, 7))},
            ["2 sizes (height×width): 6×5 (11 images), 7×5 (1 image)", "--image-size, for example --image-size 6x5"],
        ),
        ({"dog/deep/1.png": png()}, ["class folder dog contains a folder, deep"]),
        ({"fish/": b""}, ["class folder fish contains no images"]),
        ({"fish/list.txt": b""}, ["class folder fish contains no images"]),
        ({"fish/1.png": png()}, ["class 'fish' has 1 images, at least 5 are needed"]),
    ],
)
def test_unsuitable_images(tmp_path, kind, change, texts):
    refused(write(tmp_path, class_folders() | change, kind), str(tmp_path / "data"), *texts)


@both
@pytest.mark.parametrize(
    ("files", "texts"),
    [
        ({}, ["no class folders"]),
        ({"1.png": png(), "2.png": png()}, ["no class folders"]),
        ({f"cat/{i}.png": png() for i in range(9)}, ["at least two classes are needed, found cat"]),
        (class_folders("train/") | class_folders("val/"), ["the folders train and test", "found train, val"]),
        (
            class_folders("train/") | class_folders("test/") | class_folders("val/"),
            ["found test, train, val"],
        ),
        (class_folders("train/") | {"test/cat/1.png": png()}, ["class 'dog' is in only one of"]),
        (class_folders("train/") | {"test/": b""}, ["no class folders in test/"]),
        (class_folders("train/") | {"test/cat/1.png": png(), "test/dog/": b""}, ["test/dog contains no images"]),
    ],
)
def test_unsuitable_folders(tmp_path, kind, files, texts):
    (tmp_path / "data").mkdir()
    refused(write(tmp_path, files, kind), str(tmp_path / "data"), *texts)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_broken_zips(tmp_path, damage):
    spec = write(tmp_path, class_folders(), "zip")
    path = tmp_path / "data.zip"
    data = bytearray(path.read_bytes())
    if damage == "text":
        data = bytearray(b"hello")
    elif damage == "cut":
        data = data[: len(data) // 2]
    else:
        data[60] ^= 1
    path.write_bytes(data)
    refused(spec, path, "cannot read the image dog/0.png" if damage == "flipped" else "nor a readable zip")
