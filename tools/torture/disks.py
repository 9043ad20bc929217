"""The contents that a disk may have after a crash, from the operations until then.

The model is that of ALICE (Pillai et al., All File Systems Are Not Created Equal, OSDI 2014), made smaller:

- ``fsync`` of a file makes its writes and truncations certain. ``fsync`` of a folder makes the names in it certain:
  creations, renames and deletions. Nothing else is certain: ``fsync`` of a new file does not keep its name.
- At a crash, any operation that is not certain may be lost, whatever came before and after it. A rename is atomic.
- A write that is not certain may arrive in part: its first half only, or its length with zeros in place of its bytes.

With n operations of which u are not certain, there are 2ᵘ disks, so cases are chosen: after each operation, all arrive
(the process was killed), none arrives, one is lost, only one arrives, all of one file's writes are lost, one write is
torn, and random selections.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torture.operations import Operation

ROOT = 0  # number of the recorded folder
RANDOM = 3  # random selections after each operation
UNREAD = ("tensorboard", ".lock")  # entries of a run directory whose contents do not distinguish two disks
NEW = ("create", "mkdir", "symlink")
Files = dict[str, bytes | str | None]  # by path: the content of a file, the target of a symbolic link, None: a folder


@dataclass(frozen=True)
class Effect:
    """An operation on numbered files and folders, whose numbers a rename does not change."""

    operation: Operation
    node: int
    parent: int = -1
    new_parent: int = -1

    @property
    def is_content(self) -> bool:
        return self.operation.kind in ("write", "truncate")

    @property
    def synced_by(self) -> int:
        """The number of the file or folder whose fsync makes this effect certain."""
        if self.is_content:
            return self.node
        return self.new_parent if self.operation.kind == "rename" else self.parent


@dataclass(frozen=True)
class Case:
    """A crash.

    Attributes:
        end: number of operations before it.
        name: what happened to those that were not certain.
        lost: the operations that did not arrive.
        torn: a write of which "half" arrived, or "zeros" did.
    """

    end: int
    name: str
    lost: frozenset[int]
    torn: tuple[int, str] | None = None


class Tree:
    """Names and contents of files. Effects whose folder or file is missing have no effect."""

    def __init__(self) -> None:
        self.names: dict[int, dict[str, int]] = {ROOT: {}}  # of each folder
        self.contents: dict[int, list[tuple[int, Operation]]] = {}  # of each file: operations, with their positions

    def apply(self, i: int, effect: Effect, operation: Operation) -> None:
        kind, node = operation.kind, effect.node
        if effect.is_content:
            self.contents.setdefault(node, []).append((i, operation))
        elif kind != "fsync":
            name = operation.path.rpartition("/")[2]
            names = self.names.setdefault(effect.parent, {})
            if kind in NEW:
                names[name] = node
                if kind == "mkdir":
                    self.names.setdefault(node, {})
            elif names.get(name) == node:
                del names[name]
            if kind == "rename":
                self.names.setdefault(effect.new_parent, {})[operation.to.rpartition("/")[2]] = node

    def find(self, path: str) -> int | None:
        node: int | None = ROOT
        for name in path.split("/") if path else ():
            node = self.names.get(node, {}).get(name)  # type: ignore[arg-type]
        return node

    def paths(self, node: int = ROOT, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield all files and folders below a folder."""
        for name, child in self.names.get(node, {}).items():
            yield prefix + name, child
            yield from self.paths(child, f"{prefix}{name}/")


class Disks:
    """The disks after each prefix of ``operations``."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.effects: list[Effect] = []
        self.folders = {ROOT}
        self.links: dict[int, str] = {}  # targets of symbolic links
        self._known: dict[tuple[tuple[int, int], ...], bytes] = {}
        tree, number, ends = Tree(), 0, {}
        for operation in operations:
            parent = tree.find(operation.path.rpartition("/")[0])
            node = tree.find(operation.path)
            if operation.kind in NEW:
                if node is not None:
                    continue
                node = number = number + 1
                if operation.kind == "mkdir":
                    self.folders.add(node)
                elif operation.kind == "symlink":
                    self.links[node] = operation.to
            if node is None or parent is None:
                raise ValueError(f"{operation.kind} of {operation.path}: there is no such file")
            new_parent = tree.find(operation.to.rpartition("/")[0]) if operation.kind == "rename" else -1
            if operation.kind == "write":
                end = ends.get(node, 0)
                place = end if operation.place is None else operation.place
                operation = replace(operation, place=place)
                ends[node] = max(end, place + len(operation.data))
            elif operation.kind == "truncate":
                if ends.get(node, 0) == operation.place:
                    continue
                ends[node] = operation.place
            effect = Effect(operation, node, parent, -1 if new_parent is None else new_parent)
            tree.apply(len(self.effects), effect, operation)
            self.effects.append(effect)
        self.certain_at = [len(self.effects) + 1] * len(self.effects)  # number of operations until it is certain
        synced: dict[int, int] = {}
        for i in reversed(range(len(self.effects))):
            effect = self.effects[i]
            if effect.operation.kind == "fsync":
                synced[effect.node] = i + 1
            else:
                self.certain_at[i] = synced.get(effect.synced_by, len(self.effects) + 1)

    def tree(self, case: Case) -> Tree:
        tree = Tree()
        for i, effect in enumerate(self.effects[: case.end]):
            if i not in case.lost:
                operation = effect.operation
                if case.torn is not None and case.torn[0] == i:
                    half, data = case.torn[1] == "half", operation.data
                    operation = replace(operation, data=data[: len(data) // 2] if half else bytes(len(data)))
                tree.apply(i, effect, operation)
        return tree

    def files(self, case: Case) -> Files:
        tree = self.tree(case)
        found: Files = {}
        for path, node in tree.paths():
            if node in self.folders:
                found[path] = None
            elif node in self.links:
                found[path] = self.links[node]
            else:
                found[path] = self._content(tree.contents.get(node, []))
        return found

    def _content(self, operations: list[tuple[int, Operation]]) -> bytes:
        key = tuple((i, hash(operation.data)) for i, operation in operations)
        if key not in self._known:
            content = bytearray()
            for _, operation in operations:
                place = operation.place or 0
                content.extend(bytes(max(place - len(content), 0)))
                if operation.kind == "truncate":
                    del content[place:]
                else:
                    content[place : place + len(operation.data)] = operation.data
            self._known[key] = bytes(content)
        return self._known[key]

    def live(self, end: int) -> Case:
        """Return the case without a crash of the machine: all operations have arrived."""
        return Case(end, "all arrive", frozenset())

    def cases(self, rng: random.Random) -> Iterator[Case]:
        """Yield the cases of crashes after all operations, in random order."""
        choices = [(end, *choice) for end in range(len(self.effects) + 1) for choice in self._choices(end)]
        rng.shuffle(choices)
        yield from (self._case(*choice, rng) for choice in choices)

    def cases_at(self, end: int, rng: random.Random) -> Iterator[Case]:
        """Yield the cases of a crash after ``end`` operations."""
        yield from (self._case(end, *choice, rng) for choice in self._choices(end))

    def uncertain(self, end: int) -> list[int]:
        """Return the operations before ``end`` that may be lost."""
        return [i for i in range(end) if self.certain_at[i] > end and self.effects[i].operation.kind != "fsync"]

    def _choices(self, end: int) -> Iterator[tuple[str, int]]:
        yield "all arrive", -1
        if end and (self.effects[end - 1].operation.kind == "fsync" or self._is_unread(end - 1)):
            return  # the other disks are among those of the operation before
        yield "none arrives", -1
        yield from [("a random selection", -1)] * RANDOM
        for i in self.uncertain(end):
            if not self._is_unread(i):
                yield "without", i
                yield "only", i
                if self.effects[i].is_content:
                    yield "without the writes of", i
                if self.effects[i].operation.kind == "write":
                    yield "half of", i
                    yield "zeros of", i

    def _case(self, end: int, way: str, i: int, rng: random.Random) -> Case:
        uncertain = self.uncertain(end)
        if way == "all arrive":
            return self.live(end)
        if i < 0:
            return Case(end, way, frozenset(j for j in uncertain if way == "none arrives" or rng.random() < 0.5))
        operation, node = self.effects[i].operation, self.effects[i].node
        name = f"{way} {operation.kind} {operation.path}"
        same = [j for j in uncertain if self.effects[j].is_content and self.effects[j].node == node]
        if way == "without":
            return Case(end, name, frozenset({i}))
        if way == "only":
            return Case(end, name, frozenset(uncertain) - {i})
        if way == "without the writes of":
            return Case(end, name, frozenset(same))
        return Case(end, name, frozenset(j for j in same if j > i), (i, way.removesuffix(" of")))

    def _is_unread(self, i: int) -> bool:
        return is_unread(self.effects[i].operation.path)


def is_unread(path: str) -> bool:
    """Return whether a file is one on which no continued run depends, or lies in such a folder."""
    return any(name in UNREAD for name in path.split("/"))


def key(files: Files) -> str:
    """Return a hash of what distinguishes two disks."""
    digest = hashlib.sha256()
    for path, content in sorted(files.items()):
        if not is_unread(path):
            data = content if isinstance(content, bytes) else repr(content).encode()
            digest.update(f"{path}\0{type(content).__name__}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def write(files: Files, folder: Path) -> None:
    """Create files and folders."""
    for path, content in files.items():  # a folder comes before its files
        if content is None:
            (folder / path).mkdir()
        elif isinstance(content, str):
            (folder / path).symlink_to(content)
        else:
            (folder / path).write_bytes(content)


def read(folder: Path) -> Files:
    """Return the files and folders that :func:`write` would create."""
    found: Files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        else:
            found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return found
