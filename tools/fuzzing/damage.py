"""Damage files: change their bytes, replace them by other kinds of files, or change JSON values."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

DEEP = 100_000


def damage(rng: random.Random, path: Path) -> str:
    """Damage the file at ``path``. Return a description."""
    if rng.random() < 0.7:
        how = rng.choice(BYTES)
        data = path.read_bytes()
        new = how(rng, data)
        path.write_bytes(new)
        return f"{path.name}: {how.__name__}{'' if new != data else ' (no change)'}"
    how_placed = rng.choice(PLACES)
    path.unlink()
    how_placed(rng, path)
    return f"{path.name}: {how_placed.__name__}"


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.choice((0, 1, max(len(data) - 1, 0), rng.randint(0, len(data))))]


def zero_fill(rng: random.Random, data: bytes) -> bytes:
    begin = rng.randint(0, len(data))
    length = rng.choice((16, 512, len(data)))
    return data[:begin] + bytes(min(length, len(data) - begin)) + data[begin + length :]


def append(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice((b"\x00", b"\n{}", rng.randbytes(100), data))


def overwrite(rng: random.Random, data: bytes) -> bytes:
    begin = rng.randint(0, len(data))
    return data[:begin] + rng.randbytes(rng.choice((1, 8, 64))) + data[begin + 8 :]


def replace_all(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((rng.randbytes(200), b"\xff\xfe", b"PK\x03\x04", b"{}", b"null", b"\x80\x04.", bytes(len(data))))


def remove(rng: random.Random, path: Path) -> None:
    pass


def folder_instead(rng: random.Random, path: Path) -> None:
    path.mkdir()
    if rng.random() < 0.5:
        (path / "x").write_text("x")


def fifo(rng: random.Random, path: Path) -> None:
    os.mkfifo(path)


def link_to_itself(rng: random.Random, path: Path) -> None:
    path.symlink_to(path)


def broken_link(rng: random.Random, path: Path) -> None:
    path.symlink_to(path.with_name("absent"))


def device(rng: random.Random, path: Path) -> None:
    path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/random", "/proc/self/mem")))


BYTES = (flip_bits, flip_bits, truncate, zero_fill, append, overwrite, replace_all)
PLACES = (remove, folder_instead, fifo, link_to_itself, broken_link, device)


def odd_value(rng: random.Random) -> Any:
    """Return a JSON value of an unexpected type or range."""
    plain = (None, True, 0, -1, 2**70, 1e308, math.nan, math.inf, "", "x", "\ud800", "²", [], {}, [[]], {"": {}})
    return rng.choice((*plain, [0] * 1000, "a" * 10_000, [1, "x"], {"a": None}))


def change_json(rng: random.Random, value: Any) -> str:
    """Replace, remove or add a value somewhere inside a JSON object or list, in place. Return a description."""
    key: Any = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    inner = value[key]
    if isinstance(inner, (dict, list)) and inner and rng.random() < 0.75:
        return f"{key}.{change_json(rng, inner)}"
    if isinstance(value, dict) and rng.random() < 0.15:
        value["odd"] = odd_value(rng)
        return "an unknown key"
    if rng.random() < 0.2:
        del value[key]
        return f"{key} removed"
    value[key] = odd_value(rng)
    return f"{key} = {str(value[key])[:40]!r}"


def damage_json(rng: random.Random, path: Path) -> str:
    """Write changed JSON, or text that is almost JSON, to ``path``. Return a description."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        what = f"{path.name}: {change_json(rng, rows)}"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return what
    if rng.random() < 0.6:
        value = json.loads(path.read_bytes())
        where = change_json(rng, value)
        path.write_text(json.dumps(value))
        return f"{path.name}: {where}"
    texts = {"deep lists": "[" * DEEP + "]" * DEEP, "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP, "null": "null"}
    texts |= {"a number of 10,000 digits": '{"seed": ' + "1" * 10_000 + "}", "a list": "[1, 2]", "a string": '"x"'}
    texts |= {"a number": "1", "an empty object": "{}", "a BOM": "\ufeff{}"}
    texts["a surrogate"] = '{"algorithm": "\\ud800", "env_id": "\\ud800", "genotype": "\\ud800"}'
    name, text = rng.choice(list(texts.items()))
    path.write_text(text)
    return f"{path.name}: {name}"
