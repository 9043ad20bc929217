"""Record the operations with which commands change files, by strace."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "open,openat,creat,write,writev,pwrite64,pwritev,lseek,truncate,ftruncate,rename,renameat,renameat2,unlink,unlinkat,"
    "rmdir,mkdir,mkdirat,fsync,fdatasync,link,linkat,symlink,symlinkat,sendfile,copy_file_range,fallocate"
)
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)", re.DOTALL)
DESCRIPTOR = re.compile(r"(\d+|AT_FDCWD)<((?:\\x..)*)>(\(deleted\))?")
STRING = re.compile(r'"((?:\\x..)*)"')


@dataclass(frozen=True)
class Operation:
    """One operation on a file or folder.

    Attributes:
        kind: "create" (without effect if the file exists), "mkdir", "symlink", "write", "truncate", "rename", "unlink",
            "rmdir" or "fsync".
        path: relative to the recorded folder; "" is this folder.
        to: the new path of a rename; the target of a symbolic link.
        data: the bytes of a write.
        place: the position of a write, None: at the end; the length of a truncate.
    """

    kind: str
    path: str
    to: str = ""
    data: bytes = b""
    place: int | None = None


def record(action: Callable[[], None], folder: Path) -> list[Operation]:
    """Call ``action`` in a forked process under strace. Return the operations below ``folder`` in their order.

    The process and those that it starts have ``folder`` as current directory.

    Raises:
        RuntimeError: ``action`` failed, or strace cannot be used.
    """
    log = folder.with_name(f"{folder.name}.strace")
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(write)
            os.read(read, 1)  # until strace is attached
            os.chdir(folder)
            action()
            code = 0
        finally:
            os._exit(code)
    os.close(read)
    strace = ["strace", "--follow-forks", "--decode-fds=path", "-xx", "--string-limit=1000000000"]
    with subprocess.Popen(
        [*strace, f"--trace={CALLS}", f"--output={log}", f"--attach={pid}"], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        attached = "attached" in (said := tracer.stderr.readline())
        os.close(write)
        _, status = os.waitpid(pid, 0)
        tracer.communicate()
    if status or not attached:
        raise RuntimeError(f"the recorded command failed: status {status}, strace: {said}")
    found = list(parse(log.read_text().splitlines(), folder))
    log.unlink()
    return found


def parse(lines: Iterable[str], folder: Path) -> Iterator[Operation]:
    """Yield the operations below ``folder`` in the output of strace.

    Raises:
        RuntimeError: a call changes files in a way that is not understood.
    """
    positions: dict[tuple[str, str], int | None] = {}  # (descriptor, path) → position; None: opened for appending

    def inside(path: str) -> str | None:
        path = os.path.normpath(folder / path)
        return path[len(str(folder)) + 1 :] if f"{path}/".startswith(f"{folder}/") else None

    for name, arguments, value, rest in _calls(lines):
        opened = DESCRIPTOR.findall(arguments)
        strings = [_bytes(text) for text in STRING.findall(arguments)]
        if name in ("open", "openat", "creat"):
            path = inside(os.fsdecode(_bytes(DESCRIPTOR.search(f"{value}{rest}")[2])))  # type: ignore[index]
            if path is None or "O_DIRECTORY" in arguments:
                continue
            positions[str(value), path] = None if "O_APPEND" in arguments else 0
            if "O_CREAT" in arguments or name == "creat":
                yield Operation("create", path)
            if "O_TRUNC" in arguments or name == "creat":
                yield Operation("truncate", path, place=0)
        elif name in ("rename", "renameat", "renameat2"):
            places = [_at(opened, i) for i in range(2)]
            path, to = (inside(os.path.join(p, os.fsdecode(s))) for p, s in zip(places, strings, strict=True))
            if path is None and to is None:
                continue
            if path is None or to is None or "RENAME_" in arguments:
                raise RuntimeError(f"strace: {name} of {strings} is not understood")
            moved = {key: re.sub(f"^{re.escape(path)}(?=/|$)", to, key[1]) for key in positions}
            positions = {(key[0], moved[key]): place for key, place in positions.items()}
            yield Operation("rename", path, to)
        elif name in ("symlink", "symlinkat", "link", "linkat"):
            path = inside(os.path.join(_at(opened, -1) if name == "symlinkat" else "", os.fsdecode(strings[1])))
            if path is not None and "sym" not in name:
                raise RuntimeError(f"strace: {name} in {path} is not understood")
            if path is not None:
                yield Operation("symlink", path, os.fsdecode(strings[0]))
        elif name in ("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "truncate"):
            path = inside(os.path.join(_at(opened, 0), os.fsdecode(strings[0])))
            if path is not None:
                kind = "rmdir" if "AT_REMOVEDIR" in arguments else name.removesuffix("at")
                yield Operation(kind, path, place=int(arguments.split(", ")[-1]) if name == "truncate" else None)
        else:
            number, raw, deleted = opened[0] if opened else ("", "", "")
            path = inside(os.fsdecode(_bytes(raw))) if raw.startswith(r"\x2f") and not deleted else None
            if path is None:
                continue
            if name in ("fsync", "fdatasync"):
                yield Operation("fsync", path)
            elif name == "ftruncate":
                yield Operation("truncate", path, place=int(arguments.split(", ")[-1]))
            elif name == "lseek":
                if positions.get((number, path)) is not None:
                    positions[number, path] = value
            elif name in ("pwrite64", "pwritev"):
                yield Operation("write", path, data=b"".join(strings)[:value], place=int(arguments.split(", ")[-1]))
            elif name in ("write", "writev"):
                place = positions[number, path]
                if place is not None:
                    positions[number, path] = place + value
                yield Operation("write", path, data=b"".join(strings)[:value], place=place)
            else:
                raise RuntimeError(f"strace: {name} in {path} is not understood")


def _calls(lines: Iterable[str]) -> Iterator[tuple[str, str, int, str]]:
    """Yield name, arguments, value and text after it of each call that succeeded, when it returned."""
    begun: dict[str, str] = {}
    for line in lines:
        pid, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<... "):
            text = begun.pop(pid) + text.partition(" resumed>")[2]
        with contextlib.suppress(AttributeError):
            name, arguments, value, rest = CALL.fullmatch(text).groups()  # type: ignore[union-attr]
            if int(value) >= 0:
                yield name, arguments, int(value), rest


def _at(opened: list[tuple[str, str, str]], i: int) -> str:
    """Return the folder to which the i-th path of a call is relative; "" for the current directory."""
    return os.fsdecode(_bytes(opened[i][1])) if i < len(opened) else ""


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
