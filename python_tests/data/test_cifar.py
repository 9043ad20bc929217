"""The official archives of CIFAR-10 and CIFAR-100, both versions, packed and unpacked, valid and invalid."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import refused

from automl_ext.data.images import load_images, split_images
from automl_ext.training.errors import UserError

NAMES = [f"class {i}" for i in range(10)]


def python2(content: dict[str, Any]) -> bytes:
    """Pickle as Python 2 did: its strings become str only with an encoding, and hold the pixels of an array."""

    def text(data: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(data)) + data

    def value(item: Any) -> bytes:
        if isinstance(item, str):
            return text(item.encode())
        if isinstance(item, list):
            return b"](" + b"".join(map(value, item)) + b"e"
        if isinstance(item, int):
            return b"J" + struct.pack("<i", item)
        rows, columns = item.shape
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + value(rows) + value(columns) + b"t"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + text(item.tobytes()) + b"tb"

    items = b"".join(value(key) + value(item) for key, item in content.items())
    return b"\x80\x02}(" + items + b"u."


def files(kind: str, version: str, pack: Any = python2) -> dict[str, bytes]:
    """Return the files of an archive with few images, whose pixels are the numbers of the images."""
    classes = 10 if kind == "cifar10" else 20

    def batch(first: int, count: int) -> bytes:
        numbers = np.arange(first, first + count, dtype=np.uint8)
        images, labels = np.repeat(numbers[:, None], 3072, 1), numbers % classes
        images[:, 1024] = 255  # the first green pixel
        coarse = [np.zeros_like(labels)] if kind == "cifar100" else []
        if version == "binary":
            return np.column_stack([*coarse, labels, images]).tobytes()
        key = "labels" if kind == "cifar10" else "fine_labels"
        return pack({"batch_label": "training", key: labels.tolist(), "data": images, "coarse_labels": [0] * count})

    names = [f"class {i}" for i in range(classes)]
    text = ("\n".join(names) + "\n\n").encode()
    end = ".bin" if version == "binary" else ""
    if kind == "cifar10":
        found = {f"data_batch_{i + 1}{end}": batch(20 * i, 20) for i in range(5)} | {f"test_batch{end}": batch(200, 20)}
        return found | ({"batches.meta.txt": text} if end else {"batches.meta": pack({"label_names": names})})
    found = {f"train{end}": batch(0, 100), f"test{end}": batch(200, 40)}
    return found | ({"fine_label_names.txt": text} if end else {"meta": pack({"fine_label_names": names})})


def packed(path: Path, content: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def unpacked(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_archives(tmp_path: Path, kind: str, version: str) -> None:
    content = files(kind, version)
    folder = {"binary": "bin" if kind == "cifar10" else "binary", "python": "py" if kind == "cifar10" else "python"}
    inner = f"cifar-10-batches-{folder[version]}" if kind == "cifar10" else f"cifar-100-{folder[version]}"
    unpacked(tmp_path / "unpacked" / inner, content)
    paths = [packed(tmp_path / "a.tar.gz", content), packed(tmp_path / "a.tar", content, "w:")]
    for path in (*paths, tmp_path / "unpacked", tmp_path / "unpacked" / inner):
        data = load_images(f"{kind}:{path}")
        assert data.images.shape == (100, 3, 32, 32)
        assert data.images.dtype == torch.uint8
        assert data.images[:, 0, 0, 0].tolist() == list(range(100))
        assert data.images[7, :, 0, 0].tolist() == [7, 255, 7]
        assert data.labels.tolist() == [i % len(data.classes) for i in range(100)]
        assert data.test_images is not None
        assert data.test_labels is not None
        assert data.test_images[:, 2, 31, 31].tolist() == list(range(200, 220 if kind == "cifar10" else 240))
        assert data.classes == tuple(f"class {i}" for i in range(10 if kind == "cifar10" else 20))
    assert len(split_images(data).test.labels) == len(data.test_labels)


def test_batches_that_python_3_pickled(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz", files("cifar10", "python", lambda content: pickle.dumps(content, 4)))
    assert load_images(f"cifar10:{path}").images[:, 0, 0, 0].tolist() == list(range(100))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch it-was-executed",)


def array(content: Any) -> bytes:
    return pickle.dumps({"data": content, "labels": [0] * 20}, 4)


@pytest.mark.parametrize(
    ("version", "changes", "texts"),
    [
        ("binary", {"data_batch_3.bin": None}, ["no file data_batch_3.bin"]),
        ("binary", {"data_batch_1.bin": None}, ["expected a file data_batch_1.bin or data_batch_1, found none"]),
        ("binary", {"test_batch.bin": b"x" * 3072}, ["test_batch.bin: 3072 bytes, expected a multiple of 3073"]),
        ("binary", {"test_batch.bin": b""}, ["test_batch.bin: 0 bytes"]),
        ("binary", {"test_batch.bin": b"\x0a" * 3073}, ["test_batch.bin: a label is out of range, expected 0 to 9"]),
        ("binary", {"batches.meta.txt": b"\n"}, ["batches.meta.txt: expected the names of the classes"]),
        ("python", {"batches.meta": pickle.dumps({"label_names": [1]})}, ["expected the names of the classes"]),
        ("python", {"data_batch_2": pickle.dumps([1])}, ["data_batch_2: expected a dict with 'data'"]),
        ("python", {"data_batch_2": b""}, ["data_batch_2: not a batch of CIFAR's Python version"]),
        ("python", {"data_batch_2": pickle.dumps(Evil())}, ["posix.system, which is not data"]),
        ("python", {"data_batch_2": array([1])}, ["data: expected uint8 [N, 3072], got float64 [0]"]),
        ("python", {"data_batch_2": array(np.zeros((20, 3072)))}, ["got float64 [20, 3072]"]),
        ("python", {"data_batch_2": array(np.zeros((20, 9), np.uint8))}, ["got uint8 [20, 9]"]),
        ("python", {"data_batch_2": array(np.zeros((9, 3072), np.uint8))}, ["labels: expected a list of 9 integers"]),
        ("python", {"data_batch_2": pickle.dumps(np.zeros(3, "M8[s]"))}, ["a dtype that is not a plain number"]),
    ],
)
def test_damaged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, changes: dict[str, Any], texts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {name: data for name, data in (files("cifar10", version) | changes).items() if data is not None}
    refused(f"cifar10:{packed(tmp_path / 'a.tar.gz', content)}", *texts)
    refused(f"cifar10:{unpacked(tmp_path / 'unpacked', content)}", *texts)
    assert not (tmp_path / "it-was-executed").exists()


def test_labels_out_of_range(tmp_path: Path) -> None:
    for label in (-1, 10, 1 << 80):
        batch = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [label]})
        path = packed(tmp_path / "a.tar.gz", files("cifar10", "python") | {"data_batch_5": batch})
        refused(f"cifar10:{path}", "data_batch_5: a label is out of range")


def test_other_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.tar.gz", files("cifar100", "binary"))
    refused(f"cifar10:{path}", "expected a file data_batch_1.bin or data_batch_1, found none")
    refused(f"cifar100:{tmp_path}", "expected a file train.bin or train, found none")
    monkeypatch.setattr("automl_ext.data.cifar.LARGEST", 1 << 20)
    path.write_bytes(gzip.compress(bytes(2 << 20), 1))
    refused(f"cifar10:{path}", "unpacks to more than 1 MiB")
    refused("cifar10:/dev/zero", "expected a regular file")
    path.write_bytes(b"no archive")
    refused(f"cifar10:{path}", "cannot read", "expected a tar.gz archive or a folder")
    link = tarfile.TarInfo("cifar/data_batch_1")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(link)
    refused(f"cifar10:{path}", "found none")


@pytest.mark.parametrize("version", ["binary", "python"])
def test_random_damage_gives_one_line_or_data(tmp_path: Path, version: str) -> None:
    plain = packed(tmp_path / "whole.tar", files("cifar10", version), "w:").read_bytes()
    rng, path, messages = random.Random(0), tmp_path / "a.tar.gz", []
    for number in range(60):
        data = bytearray(plain)
        for _ in range(rng.choice((1, 10, 1000))):
            # Half of the damage hits the headers of the archive and the beginnings of the files.
            at = rng.randrange(len(data)) if number % 2 else 512 * rng.randrange(len(data) // 512) + rng.randrange(200)
            data[at] = rng.randrange(256)
        zipped = bytearray(gzip.compress(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]), 1))
        if number % 3 == 0:
            zipped[rng.randrange(len(zipped))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(zipped))
        try:
            load_images(f"cifar10:{path}")
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert [message for message in messages if "\n" in message] == []
