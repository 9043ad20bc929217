"""Decompression bombs, files whose headers promise too much data, and pickles that run code."""

from __future__ import annotations

import bz2
import io
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK = 16 << 20
TIMES = 400  # 6.7 GB
PARTS = {}  # cache of the compressed block


def _block() -> bytes:
    if "zeros" not in PARTS:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        PARTS["zeros"] = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return PARTS["zeros"]


def deflated(head: bytes = b"") -> bytes:
    """Compress ``head`` and 6.7 GB of zeros to a few MB.

    After a full flush, the compressed block can be repeated in the deflate stream.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + _block() * TIMES + b"\x03\x00"


def gz(head: bytes = b"") -> bytes:
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + deflated(head) + struct.pack("<II", 0, 0)


def bz(head: bytes = b"") -> bytes:
    return bz2.compress(head) + bz2.compress(bytes(BLOCK)) * TIMES


def zip_of(names: list[str], head: bytes) -> bytes:
    """Return a zip file whose members unpack to 6.7 GB each. Their checksums are wrong."""
    data, size = deflated(head), len(head) + BLOCK * TIMES
    body, directory = io.BytesIO(), io.BytesIO()
    for name in names:
        offset, raw = body.tell(), name.encode()
        extra = struct.pack("<HHQQ", 1, 16, size, len(data))
        fields = (0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(raw), len(extra))
        body.write(b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 45, *fields) + raw + extra + data)
        directory.write(b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 45, 45, *fields, 0, 0, 0, 0, offset))
        directory.write(raw + extra)
    end = struct.pack("<HHHHIIH", 0, 0, len(names), len(names), directory.tell(), body.tell(), 0)
    return body.getvalue() + directory.getvalue() + b"PK\x05\x06" + end


def npy(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """Return the .npy header of an array of this shape, without its data."""
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def npz(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


class Reduced:
    """An object whose pickle calls ``function`` with ``arguments`` when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


def code(canary: Path) -> list[bytes]:
    """Return pickles that would create the file ``canary``."""
    import builtins
    import os
    import subprocess

    calls = (
        Reduced(os.system, f"touch '{canary}'"),
        Reduced(subprocess.check_output, ["touch", str(canary)]),
        Reduced(builtins.eval, f"open({str(canary)!r}, 'w')"),
        Reduced(builtins.exec, f"open({str(canary)!r}, 'w')"),
        Reduced(getattr(builtins, "open"), str(canary), "w"),  # noqa: B009
    )
    made = [pickle.dumps(call, protocol) for call in calls for protocol in (0, 2, 4)]
    text = f"open({str(canary)!r}, 'w')"
    for module, name in (("builtins", "set.__class__"), ("collections", "defaultdict.__init__"), ("numpy", "f2py.os")):
        made.append(b"\x80\x04" + _global(module, name) + pickle.dumps(text, 4)[2:-1] + b"\x85R.")
    return made


def _global(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes((len(x),)) + x.encode() for x in (module, name)) + b"\x93"


def odd_pickles(rng: random.Random) -> bytes:
    """Return a pickle of an allowed class with invalid arguments, or an invalid pickle."""
    import collections

    import numpy as np

    scalar, rebuild = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    objects = np.dtype("O")
    made = (
        lambda: pickle.dumps(Reduced(scalar, objects, b"A" * 8)),
        lambda: pickle.dumps(Reduced(scalar, np.dtype("f8"), b"A")),
        lambda: pickle.dumps(Reduced(rebuild, np.ndarray, (1 << 40,), b"b")),
        lambda: pickle.dumps(Reduced(rebuild, np.ndarray, (0,), b"b", state=(1, (4,), objects, False, b"A" * 32))),
        lambda: pickle.dumps(Reduced(rebuild, np.ndarray, (0,), b"b", state=(1, (2**60,), np.dtype("u1"), 0, b""))),
        lambda: pickle.dumps(Reduced(np.dtype, "f8", False, True, state=(3, "<", None, None, None, -1, -1, 63))),
        lambda: pickle.dumps(Reduced(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {}, 8, 1, 63))),
        lambda: pickle.dumps(Reduced(np.ndarray, (1 << 50,))),
        lambda: pickle.dumps(Reduced(collections.defaultdict, 1)),
        lambda: b"\x80\x04" + b"]" * 200_000 + b"." * 2,
        lambda: b"(" * 500_000 + b"t" * 500_000 + b".",
        lambda: b"\x80\x04]\x94" + b"]\x94a" * 1 + b"h\x00a.",
        lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"x.",
        lambda: b"\x80\x04r\xff\xff\xff\x7fN.",
        lambda: b"\x80\x04Nr\xff\xff\xff\x7f.",
        lambda: b"I" + b"1" * 100_000 + b"\n.",
        lambda: b"\x80\x05\x97.",
        lambda: b"\x80\x04P1\n.",
        lambda: b"P1\n.",
        lambda: b"\x80\xff.",
        lambda: rng.randbytes(100),
        lambda: pickle.dumps(
            rng.choice(([], {}, None, "x", {"meta_archs": 1}, {"meta_archs": ["x"], "arch2infos": {}}))
        ),
        lambda: pickle.dumps({"meta_archs": ["|x|"], "arch2infos": {0: {"12": {}, "200": []}}}),
        lambda: pickle.dumps({"meta_archs": {1: 2}, "arch2infos": [None]}),
        lambda: pickle.dumps({"meta_archs": 10**6 * "a", "arch2infos": {0: 1}}),
        lambda: pickle.dumps({"meta_archs": [["x"]], "arch2infos": {0: "x"}}),
    )
    return rng.choice(made)()
