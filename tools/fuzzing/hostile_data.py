"""Make hostile data sets and pickles.

A maker returns a description, the command line, and, if there is one, the command line for the undamaged file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import random
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from fuzzing import bombs, damage, runs
from fuzzing.command_tables import GENOTYPE

Made = tuple[str, list[str], "list[str] | None"]
Maker = Callable[[random.Random, Path, Any], Made]
TRAIN = f"retrain --epochs 1 --channels 1 --batch-size 8 --device cpu --genotype {GENOTYPE}".split()
N, SIDE = 30, 6


def _train(data: str, out: str = "out") -> list[str]:
    return [*TRAIN, "--data", data, "--out", out]


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"images": rng.integers(0, 256, (N, SIDE, SIDE), dtype=np.uint8), "labels": np.arange(N) % 3}


def _place_odd(rng: random.Random, path: Path) -> str:
    how = rng.choice(damage.PLACES)
    how(rng, path)
    return how.__name__


def _npz(rng: random.Random, folder: Path, _: Any) -> Made:
    np.savez(folder / "good.npz", **_arrays())
    path = folder / "bad.npz"
    path.write_bytes((folder / "good.npz").read_bytes())
    what = damage.damage(rng, path)
    return what, _train("npz:bad.npz"), _train("npz:good.npz", "expected")


def _odd_npz(rng: random.Random, folder: Path, _: Any) -> Made:
    arrays: dict[str, Any] = _arrays()
    name = rng.choice(("images", "labels"))
    x = arrays[name]
    odd = (
        lambda: x.astype(object),
        lambda: x.astype(rng.choice(("f2", "f8", "i8", "c8", "?", "U3", "S3", "M8[s]"))),
        lambda: x[..., None, None, None],
        lambda: x[:0],
        lambda: x[:-1],
        lambda: np.array(3),
        lambda: x.astype("f8") / x.max() * rng.choice((np.nan, np.inf, -1, 1.0001)),
        lambda: np.zeros(len(x), [("a", "u1")]),
        lambda: np.full_like(x, 2**62 if x.dtype == np.int64 else 7),
        lambda: x.astype(">u2"),
        lambda: np.asfortranarray(x)[::-1],
        lambda: np.zeros((N, 1, 1), np.uint8),
        lambda: np.arange(len(x), dtype=np.int64) * 10**17,
    )
    number = rng.randrange(len(odd))
    arrays[name] = odd[number]()
    np.savez(folder / "odd.npz", **arrays)
    return f"{name}, variant {number}", _train("npz:odd.npz"), None


def _npz_bomb(rng: random.Random, folder: Path, _: Any) -> Made:
    shape = rng.choice(((1 << 40, 8, 8), (bombs.BLOCK * bombs.TIMES // 64, 8, 8), (10, 100_000, 100_000), (-1, 8, 8)))
    descr = rng.choice(("|u1", "|u1", "<f8", "|O", "|V1000000000", "<U2000000000", "x"))
    head = bombs.npy(shape, descr)
    how = rng.randrange(3)
    if how == 0:
        data = bombs.zip_of(["images.npy", "labels.npy"], head)
    elif how == 1:
        data = bombs.npz({"images.npy": head, "labels.npy": bombs.npy((N,), "<i8") + bytes(8 * N)})
    else:
        text = b"\x93NUMPY\x01\x00\xff\xff" + rng.choice((b"(" * 60_000, b"[" * 60_000, b"'" * 100, b"1+" * 30_000))
        data = bombs.npz({"images.npy": text, "labels.npy": text})
    (folder / "bomb.npz").write_bytes(data)
    return f"{('deflate bomb', 'header only', 'odd header')[how]} {shape} {descr}", _train("npz:bomb.npz"), None


def _code(rng: random.Random, folder: Path, _: Any) -> Made:
    payload = rng.choice(bombs.code(folder / "canary"))
    (folder / "a.npz").write_bytes(
        bombs.npz({"images.npy": bombs.npy((3,), "|O") + payload, "labels.npy": payload})
        if rng.random() < 0.7
        else payload
    )
    return "pickles in an npz", _train("npz:a.npz"), None


def _png(rng: random.Random, side: int = SIDE, mode: str = "L") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    pixels = rng.randbytes(side * side * len(mode))
    Image.frombytes(mode, (side, side), pixels).save(file, "PNG")
    return file.getvalue()


def _tree(rng: random.Random, folder: Path) -> list[Path]:
    paths = [folder / f"class{k}" / f"{i}.png" for k in range(2) for i in range(6)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(rng))
    return paths


def _folder(rng: random.Random, folder: Path, _: Any) -> Made:
    path = rng.choice(_tree(rng, folder / "images"))
    how = rng.randrange(6)
    what = f"variant {how}"
    if how == 0:
        what = damage.damage(rng, path)
    elif how == 1:
        path.write_bytes(_png(rng, rng.choice((1, 7)), rng.choice(("L", "RGB"))))
    elif how == 2:
        name = rng.choice(("a\nb", "é🙂", "a" * 250, "-x", "'; touch canary;'", "\udcff"))
        path.parent.rename(path.parent.with_name(name))
        what = f"class {name[:20]!r}"
    elif how == 3:
        what = "another file: " + _place_odd(rng, path.with_name("odd.png"))
    elif how == 4:
        what = "a class: " + _place_odd(rng, path.parent.with_name("odd"))
    else:  # a header that declares 60000 x 60000 pixels
        data = bytearray(path.read_bytes())
        data[16:24] = (60000).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
        path.write_bytes(bytes(data))
    return what, _train("folder:images"), None


def _names(path: Path) -> list[str] | None:
    """Return the names in an archive, since a file with another ending is no image; None if it is unreadable."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None


def _zip(rng: random.Random, folder: Path, _: Any) -> Made:
    paths = _tree(rng, folder / "images")
    with zipfile.ZipFile(folder / "good.zip", "w", rng.choice((0, 8, 12, 14))) as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder / "images"))
    bad = folder / "bad.zip"
    bad.write_bytes((folder / "good.zip").read_bytes())
    if rng.random() < 0.6:
        what = damage.damage(rng, bad)
        like = _train("folder:good.zip", "expected") if _names(bad) == _names(folder / "good.zip") else None
        return what, _train("folder:bad.zip"), like
    what = rng.choice(("bomb", "encrypted", "outside", "doubled", "deep"))
    if what == "bomb":
        bad.write_bytes(bombs.zip_of([f"class{k}/{i}.png" for k in range(2) for i in range(5)], b"\x89PNG\r\n\x1a\n"))
    elif what == "encrypted":
        data = bytearray(bad.read_bytes())
        for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.find(sign) + offset] |= 1
        bad.write_bytes(bytes(data))
    else:
        names = {"outside": "../canary/x.png", "doubled": "class0/0.png", "deep": "a/" * 3000 + "x.png"}
        with zipfile.ZipFile(bad, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(names[what], _png(rng))
    return what, _train("folder:bad.zip"), None


def _idx(rng: random.Random, folder: Path, _: Any) -> Made:
    (folder / "f").mkdir()
    gz = rng.random() < 0.6
    generator = np.random.default_rng(0)
    for part, n in (("train", 50), ("t10k", 20)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = generator.integers(0, 256, (n, SIDE, SIDE), dtype=np.uint8)
        for name, x in (("images-idx3", images), ("labels-idx1", labels)):
            data = bytes((0, 0, 8, x.ndim)) + b"".join(size.to_bytes(4, "big") for size in x.shape) + x.tobytes()
            path = folder / "f" / f"{part}-{name}-ubyte{'.gz' * gz}"
            path.write_bytes(gzip.compress(data) if gz else data)
    path = rng.choice(sorted((folder / "f").iterdir()))
    if gz and rng.random() < 0.25:
        sizes = rng.choice(((400_000_000, 4, 4), (2**32 - 1,) * 3))
        head = bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4, "big") for size in sizes)
        path.write_bytes(bombs.gz(head))
        return "gz bomb", _train("fashion-mnist:f"), None
    return damage.damage(rng, path), _train("fashion-mnist:f"), None


def _device(rng: random.Random, folder: Path, _: Any) -> Made:
    what = _place_odd(rng, folder / "odd")
    place = rng.choice(("odd", "odd", "/dev/zero", "/dev/random", "/proc/self/mem", "/dev/stdin", "/dev/tty"))
    return what, _train(f"{rng.choice(('npz', 'folder', 'fashion-mnist', 'cifar10'))}:{place}"), None


def _pickle(rng: random.Random, folder: Path, _: Any) -> Made:
    payload = rng.choice(bombs.code(folder / "canary")) if rng.random() < 0.4 else bombs.odd_pickles(rng)
    how = rng.randrange(4)
    data = bombs.bz(b"\x80\x04\x8e" + (1 << 33).to_bytes(8, "little")) if how == 0 else bz2.compress(payload)
    place = folder / "NATS-tss-v1_0-x.pickle.pbz2"
    if how == 1:
        place = folder / "simple" / "meta.pickle.pbz2"
        place.parent.mkdir()
    place.write_bytes(data)
    if how == 2:
        place.unlink()
        _place_odd(rng, place)
    what = f"{('bz2 bomb', 'folder', 'odd file', 'file')[how]} {payload[:60]!r}"
    return what, ["nas-table", str(place if how != 1 else place.parent), "--out", "out.npz"], None


def _rows(rng: random.Random, folder: Path, bases: Any) -> Made:
    """Make a table for fit or predict."""
    runs.copy(bases["fit"].whole, folder)
    good = bases["fit"].whole.with_name("table.csv").read_bytes()
    path = folder / rng.choice(("bad.csv", "bad.csv.gz", "bad.parquet"))
    pack = gzip.compress if path.suffix == ".gz" else bytes
    if path.suffix == ".parquet":
        file = io.BytesIO()
        pandas.read_csv(io.BytesIO(good)).to_parquet(file)
        path.write_bytes(file.getvalue())
        what = damage.damage(rng, path)
    elif path.suffix == ".gz" and rng.random() < 0.2:
        path.write_bytes(bombs.gz(good))
        what = "gz bomb"
    elif rng.random() < 0.4:
        path.write_bytes(pack(good))
        what = damage.damage(rng, path)
    else:
        cells = ["1e999", "9" * 5000, "nan", "-inf", '"', '"a\nb"', "\0", "é", "", "2024-13-45", "0x1", "True", ","]
        lines = good.decode().splitlines()
        for _unused in range(rng.choice((1, 3, 40))):
            i = rng.randrange(len(lines))
            row = lines[i].split(",")
            row[rng.randrange(len(row))] = rng.choice(cells)
            lines[i] = rng.choice((",".join(row), ",".join(row), lines[i] * 2, "", ",".join(row[:2])))
        path.write_bytes(pack(rng.choice(("\n", "\r", "\r\n")).join(lines).encode()))
        what = "odd cells"
    argv = ["predict", "run", path.name, "--out", "new.csv"]
    if rng.random() < 0.5:
        argv = ["fit", path.name, "--target", rng.choice("yyynkt"), "--minutes", "0.02", "--out", "out"]
    return what, argv, None


MAKERS: dict[str, tuple[int, Maker]] = {
    "npz": (5, _npz),
    "odd npz": (5, _odd_npz),
    "npz bomb": (3, _npz_bomb),
    "npz code": (3, _code),
    "image folder": (5, _folder),
    "zip": (6, _zip),
    "idx": (4, _idx),
    "device": (3, _device),
    "pickle": (8, _pickle),
    "rows": (8, _rows),
}
