"""Images from idx files (Fashion-MNIST) and npz files, valid and invalid."""

import gzip

import numpy as np
import pytest
import torch
from training_helpers import refused

from automl_ext.data.images import load_images, split_images


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_fashion(folder, *, zipped=True, **changes):
    """Write the four files with 100 and 20 random images. ``changes`` maps short file names to other contents."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    arrays = {}
    for part, count in (("train", 100), ("t10k", 20)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(256, size=(count, 6, 5), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for name, array in arrays.items():
        data = changes.get("_".join(name.split("-")[:2]), idx(array))
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data, 1))
        else:
            (folder / name).write_bytes(data)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist(tmp_path, zipped):
    arrays = write_fashion(tmp_path, zipped=zipped)
    data = load_images(f"fashion-mnist:{tmp_path}")
    assert torch.equal(data.images[:, 0], torch.from_numpy(arrays["train-images-idx3-ubyte"]))
    assert torch.equal(data.test_images[:, 0], torch.from_numpy(arrays["t10k-images-idx3-ubyte"]))
    assert data.labels.tolist() == [i % 10 for i in range(100)]
    assert data.test_labels.dtype == torch.int64
    assert data.classes[9] == "Ankle boot"
    assert split_images(data).image_size == (6, 5)


def test_a_subset_with_a_test_part_is_drawn_from_both(tmp_path):
    write_fashion(tmp_path)
    spec = f"fashion-mnist:{tmp_path}"
    data = load_images(spec, subset=50)
    assert torch.bincount(data.labels).tolist() == [4] * 10
    assert torch.bincount(data.test_labels).tolist() == [1] * 10
    refused(spec, "--subset 49", "has 3 training images, at least 4", subset=49)
    refused(spec, "--subset 110", "has 120 images (100 for training and 20 for test)", subset=110)


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"train_images": b""}, ["train-images", "magic number 0x, expected 0x00000803"]),
        ({"train_images": idx(np.zeros(10, np.uint8))}, ["train-images", "0x00000801, expected 0x00000803"]),
        ({"train_images": idx(np.zeros((9, 6, 5), np.uint8))[:-1]}, ["285 bytes, expected 286"]),
        ({"train_images": idx(np.zeros((9, 6, 5), np.uint8))[:9]}, ["train-images", "9 bytes"]),
        ({"t10k_labels": idx(np.zeros(20, np.uint8)) + b"x"}, ["t10k-labels", "29 or more bytes, expected 28"]),
        ({"train_images": idx(np.zeros((99, 6, 5), np.uint8))}, ["has 99 images", "has 100 labels"]),
        ({"t10k_labels": idx(np.full(20, 10, np.uint8))}, ["t10k-labels", "label 10, expected 0 to 9"]),
        ({"t10k_images": idx(np.zeros((20, 0, 5), np.uint8))}, ["t10k-images", "has no images"]),
        ({"t10k_images": idx(np.zeros((20, 5, 5), np.uint8))}, ["differ in shape", "1×6×5 and 1×5×5"]),
    ],
)
def test_broken_idx_files(tmp_path, changes, texts):
    write_fashion(tmp_path, **changes)
    refused(f"fashion-mnist:{tmp_path}", *texts)


@pytest.mark.parametrize("damage", ["truncated", "no gzip", "flipped", "missing"])
def test_broken_gzip_files(tmp_path, damage):
    write_fashion(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"hello")
    refused(f"fashion-mnist:{tmp_path}", "train-images-idx3-ubyte.gz")


def test_idx_data_larger_than_the_memory(tmp_path, monkeypatch):
    write_fashion(tmp_path)
    read = gzip.GzipFile.read

    def read_little(self, size=-1):
        if size > 100:
            raise MemoryError
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", read_little)
    refused(f"fashion-mnist:{tmp_path}", "train-images-idx3-ubyte.gz", "larger than the free memory")


def save_npz(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return f"npz:{tmp_path / 'a.npz'}"


GRAY = np.arange(10 * 6 * 5, dtype=np.uint8).reshape(10, 6, 5)
COLOR = np.arange(10 * 6 * 5 * 3, dtype=np.int64).astype(np.uint8).reshape(10, 6, 5, 3)
LABELS = np.array([7, -2] * 5)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GRAY, GRAY[:, None]),
        (GRAY[..., None], GRAY[:, None]),
        (GRAY[:, None], GRAY[:, None]),
        (COLOR, COLOR.transpose(0, 3, 1, 2)),
        (COLOR.transpose(0, 3, 1, 2), COLOR.transpose(0, 3, 1, 2)),
        (GRAY / 255, GRAY[:, None]),
        ((GRAY / 255).astype(np.float16), GRAY[:, None]),
    ],
)
def test_npz_layouts(tmp_path, images, expected):
    data = load_images(save_npz(tmp_path, images=images, labels=LABELS))
    assert np.array_equal(data.images.numpy(), expected)
    assert data.images.is_contiguous()
    assert data.classes == ("-2", "7")
    assert data.labels.tolist() == [1, 0] * 5


def test_npz_with_keras_names(tmp_path):
    spec = save_npz(tmp_path, x_train=COLOR, y_train=LABELS[:, None], x_test=COLOR[:3], y_test=LABELS[:3, None])
    data = load_images(spec)
    assert data.images.shape == (10, 3, 6, 5)
    assert data.test_labels.tolist() == [1, 0, 1]
    assert load_images(save_npz(tmp_path, x_train=GRAY, y_train=LABELS)).test_images is None


@pytest.mark.parametrize(
    ("arrays", "texts"),
    [
        (
            {"images": np.zeros((10, 3, 5, 3), np.uint8), "labels": LABELS},
            ["[10, 3, 5, 3]", "must be 1 or 3"],
        ),
        (
            {"images": np.zeros((10, 4, 5, 6), np.uint8), "labels": LABELS},
            ["[10, 4, 5, 6]", "must be 1 or 3"],
        ),
        ({"images": np.zeros((10, 30), np.uint8), "labels": LABELS}, ["a.npz: images has shape [10, 30]"]),
        ({"images": np.zeros((0, 3, 3), np.uint8), "labels": LABELS[:0]}, ["expected a non-empty array"]),
        (
            {"images": GRAY.astype(np.int64), "labels": LABELS},
            ["images is int64, expected uint8 or floats in [0, 1]"],
        ),
        ({"images": GRAY.astype(np.float32), "labels": LABELS}, ["floats from 0.0 to 255.0"]),
        ({"images": GRAY / 255 - 0.5, "labels": LABELS}, ["floats from -0.5"]),
        ({"images": GRAY * np.nan, "labels": LABELS}, ["floats from nan"]),
        ({"images": GRAY, "labels": LABELS[:9]}, ["images has 10 images, labels has 9 labels"]),
        ({"images": GRAY, "labels": LABELS / 1}, ["labels is float64 [10], expected integers"]),
        ({"images": GRAY, "labels": np.eye(10, dtype=int)}, ["labels is int64 [10, 10]"]),
        ({"images": GRAY, "labels": LABELS.astype(str)}, ["labels is <U"]),
        ({"images": GRAY, "labels": LABELS.astype(object)}, ["a.npz is not a readable npz file"]),
        ({"images": GRAY}, ["contains images; expected images and labels"]),
        ({"x": GRAY, "y_train": LABELS}, ["contains x, y_train; expected"]),
        ({}, ["contains no arrays; expected"]),
        ({"x_train": GRAY, "y_train": LABELS, "x_test": GRAY}, ["x_test and y_test must come together"]),
        (
            {"x_train": GRAY, "y_train": LABELS, "x_test": GRAY, "y_test": LABELS + 1},
            ["y_test has the label -1"],
        ),
        ({"images": GRAY, "labels": np.zeros(10, int)}, ["at least two classes are needed, found 0"]),
    ],
)
def test_unsuitable_npz_arrays(tmp_path, arrays, texts):
    refused(save_npz(tmp_path, **arrays), *texts)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY", "npy", "folder", "cut", "flipped"])
def test_invalid_npz_files(tmp_path, content):
    path = tmp_path / "a.npz"
    if content == "folder":
        path.mkdir()
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, GRAY)
    elif content in ("cut", "flipped"):
        save_npz(tmp_path, images=GRAY, labels=LABELS)
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data[:-50] if content == "cut" else data)
    else:
        path.write_bytes(content)
    message = "expected a regular file" if content == "folder" else "is not a readable npz file"
    refused(f"npz:{path}", path, message)
