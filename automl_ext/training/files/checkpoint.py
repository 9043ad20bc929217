"""Checkpoints on disk: one folder per step, holding ``state.pt`` and ``manifest.json``.

A checkpoint is written under a temporary name, flushed to the disk and renamed, so that a crash leaves it either
complete or absent. The manifest holds the SHA-256 of ``state.pt`` and of itself. Both are checked before the state is
loaded, with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import fsync_path, naming, save_tensors, strict
from automl_ext.training.files.reading import is_shallow, read_small, short
from automl_ext.training.files.weights import why_unloadable

KEEP = 2
LARGE = 1 << 30  # bytes; of states above it, such as those with a large replay, only the newest is kept
PREFIX, TEMPORARY = "step-", ".tmp-"
STATE, MANIFEST = "state.pt", "manifest.json"
FACTS = {  # entries of a manifest, and their types
    "algorithm": str,
    "config": dict,
    "environment": dict,
    "metrics_bytes": int,
    "state_bytes": int,
    "state_sha256": str,
    "step": int,
}


class DamagedCheckpoint(Exception):
    """The checkpoint was changed, or its state cannot be loaded. The message says what is wrong."""


class UnfitState(DamagedCheckpoint):
    """The checkpoint is intact, but its state does not match the objects that it is loaded into."""


def check_state(state: Any, key: str = "state") -> None:
    """Raise TypeError for values that ``torch.load(weights_only=True)`` cannot load.

    Types are compared exactly: ``numpy.float64`` is a subclass of float and cannot be loaded.

    Raises:
        TypeError: a value is neither a tensor nor plain Python; the message names the key path of the first such value.
    """
    kind = type(state)
    if kind in (dict, OrderedDict, Counter):  # a module's and a scheduler's state_dict use the last two
        for name, value in state.items():
            if type(name) not in (str, int):
                raise TypeError(f"{key}: expected str or int keys, got {name!r} ({type(name).__name__})")
            check_state(value, f"{key}[{name!r}]")
    elif kind in (list, tuple):
        for i, value in enumerate(state):
            check_state(value, f"{key}[{i}]")
    elif state is not None and kind not in (bool, int, float, str, torch.Tensor, torch.nn.Parameter):
        raise TypeError(
            f"{key}: expected a tensor or plain Python (dict, list, tuple, int, float, str, bool, None), "
            f"got {kind.__module__}.{kind.__qualname__}"
        )


def list_steps(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, intact or damaged, oldest first."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if re.fullmatch(PREFIX + "[0-9]+", p.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(checkpoint.name[len(PREFIX) :])


def write(folder: Path, step: int, state: dict[str, Any], facts: dict[str, Any]) -> Path:
    """Write checkpoint ``step`` into ``folder``, then delete all but the newest two, or one if it is :data:`LARGE`.

    The manifest contains ``facts``, the metadata as plain JSON: algorithm, configuration and environment.

    Raises:
        OSError: the checkpoint cannot be written, for example on a full disk; the earlier ones are unchanged.
    """
    name = f"{PREFIX}{step:08d}"
    temporary, final = folder / (TEMPORARY + name), folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with naming(temporary):
            temporary.mkdir()
            save_tensors(state, temporary / STATE)
            fsync_path(temporary / STATE)
            manifest = strict(facts) | {
                "format": 1,
                "step": step,
                "state_bytes": (temporary / STATE).stat().st_size,
                "state_sha256": _sha256(temporary / STATE),
            }
            (temporary / MANIFEST).write_bytes(_render(manifest))
            fsync_path(temporary / MANIFEST)
            fsync_path(temporary)
            os.replace(temporary, final)
            fsync_path(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in list_steps(folder)[: -1 if manifest["state_bytes"] > LARGE else -KEEP]:
        remove(old)
    return final


def copy(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint of another run into ``folder``, atomically."""
    temporary = folder / (TEMPORARY + checkpoint.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name in (STATE, MANIFEST):
        shutil.copyfile(checkpoint / name, temporary / name)
        fsync_path(temporary / name)
    fsync_path(temporary)
    os.replace(temporary, folder / checkpoint.name)
    fsync_path(folder)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint. It is renamed first, so that a crash does not leave a damaged one."""
    temporary = checkpoint.with_name(f"{TEMPORARY}old-{checkpoint.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    os.replace(checkpoint, temporary)
    if temporary.is_dir():
        shutil.rmtree(temporary)
    else:
        temporary.unlink()


def clean(folder: Path) -> None:
    """Delete temporary files that a crash left."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Return the metadata stored with a checkpoint, checked against their SHA-256.

    Raises:
        DamagedCheckpoint: the manifest is missing, unreadable or changed.
    """
    try:
        raw = read_small(checkpoint / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedCheckpoint(f"{MANIFEST} is missing") from None
    except UserError as error:
        raise DamagedCheckpoint(str(error)) from None
    try:
        manifest = json.loads(raw)["manifest"]
        intact = raw == _render(manifest)  # all bytes, including the SHA-256
    except (ValueError, KeyError, TypeError, RecursionError):
        manifest, intact = None, False
    if not intact or not isinstance(manifest, dict):
        raise DamagedCheckpoint(f"{MANIFEST} does not match its own SHA-256")
    if manifest.get("format") != 1:
        raise DamagedCheckpoint(f"{MANIFEST} has format {short(manifest.get('format'))}, expected 1")
    for name, kind in FACTS.items():
        if type(manifest.get(name)) is not kind:
            raise DamagedCheckpoint(f"{MANIFEST}: {name}: expected {kind.__name__}, got {short(manifest.get(name))}")
    if not is_shallow(manifest):
        raise DamagedCheckpoint(f"{MANIFEST} is nested too deeply")
    if checkpoint.name != f"{PREFIX}{manifest['step']:08d}":
        raise DamagedCheckpoint(f"the folder's name does not match its step, {manifest['step']}")
    return manifest


def read_state(checkpoint: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a checkpoint, with tensors on the CPU.

    The file is checked against the manifest before it is loaded.

    Raises:
        DamagedCheckpoint: the file is missing, has another length or SHA-256, or ``weights_only`` cannot load it.
    """
    path = checkpoint / STATE
    if not path.is_file():
        raise DamagedCheckpoint(f"{STATE} is missing")
    size = path.stat().st_size
    if size != manifest["state_bytes"]:
        raise DamagedCheckpoint(f"{STATE} has {size} bytes, the manifest says {manifest['state_bytes']}")
    if _sha256(path) != manifest["state_sha256"]:
        raise DamagedCheckpoint(f"{STATE} does not match its SHA-256")
    try:
        # The memory does not hold a large replay twice: its file is mapped, and the agent copies it.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=size > LARGE)
    except Exception as error:
        raise DamagedCheckpoint(f"{STATE} cannot be loaded: {why_unloadable(error)}") from None
    if type(state) is not dict:
        raise DamagedCheckpoint(f"{STATE}: expected a dict, got {type(state).__name__}")
    return state


def load_into(load: Callable[[dict[str, Any]], object], state: dict[str, Any]) -> None:
    """Call ``load(state)``.

    Raises:
        UnfitState: ``load`` failed, because of missing keys or other shapes. It may have changed some of its objects.
    """
    try:
        load(state)
    except Exception as error:
        raise UnfitState(f"{STATE} does not fit: {why_unloadable(error)}") from None


def _render(manifest: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": digest}, indent=1, sort_keys=True).encode()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
