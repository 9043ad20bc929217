"""``metrics.jsonl``, one line per call, and the same scalars for TensorBoard if it is installed."""

from __future__ import annotations

import functools
import json
import os
import threading
import warnings
from pathlib import Path
from typing import Any

from automl_ext.training.files.atomic import fsync_path, naming, strict

FILE, TENSORBOARD = "metrics.jsonl", "tensorboard"


class Metrics:
    """A writer that appends to ``out/metrics.jsonl``."""

    def __init__(self, out: Path, step: int) -> None:
        self._tensorboard_folder = out / TENSORBOARD
        self._step = step
        self._writer: Any = None
        self._tried_writer = False
        self.path, self.written = out / FILE, False
        self._file = self.path.open("ab")
        fsync_path(out)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Write one line and flush it. NaN and infinities become null."""
        values = {}
        for name, value in scalars.items():
            try:
                values[name] = value if type(value) is int else float(value)
            except (TypeError, ValueError, RuntimeError):
                kind = type(value).__name__
                raise TypeError(f"log: expected a number for {name!r}, got {kind}") from None
        line = json.dumps(strict({"step": int(step), **values}), allow_nan=False)
        with naming(self.path):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        self.written = True
        self.chart(step, values)

    def chart(self, step: int, scalars: dict[str, float]) -> None:
        """Write scalars to TensorBoard only."""
        writer = self._tensorboard()
        if writer is not None:
            for name, value in scalars.items():
                writer.add_scalar(tag(name), value, step)

    def sync(self) -> int:
        """Force everything written to the disk and return the file's length in bytes."""
        with naming(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._writer is not None:
            self._writer.flush()
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> Any:
        if not self._tried_writer:  # on the first scalar: the import takes a second
            self._tried_writer = True
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return None
            # TensorBoard drops points logged after the checkpoint: those at step + 1 and later.
            purge = self._step + 1 if self._step else None
            _leave_errors_to_writer()
            self._writer = SummaryWriter(str(self._tensorboard_folder), purge_step=purge)
        return self._writer


@functools.cache
def _leave_errors_to_writer() -> None:
    """Print no traceback of TensorBoard's threads: the next call of their writer raises the error."""
    hook = threading.excepthook

    def print_traceback(args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith("tensorboard."):
            hook(args)

    threading.excepthook = print_traceback


def cut(path: Path, length: int) -> None:
    """Cut ``metrics.jsonl`` to the ``length`` bytes that it had when the checkpoint was written."""
    size = path.stat().st_size if path.exists() else 0
    if size < length:
        warnings.warn(f"{path} has lost lines: it has {size} bytes, expected {length}", stacklevel=4)
        length = path.read_bytes().rfind(b"\n") + 1 if size else 0  # the last line may be incomplete
    if size > length:
        os.truncate(path, length)
        fsync_path(path)


TAGS = {
    # reinforcement learning
    "episode_return": "rollout/ep_rew_mean",
    "episode_length": "rollout/ep_len_mean",
    "epsilon": "rollout/exploration_rate",
    "eval_return": "eval/mean_reward",
    "eval_episodes_cut": "eval/episodes_cut",
    "steps_per_second": "time/fps",
    # search strategies; a score is measured on validation data
    "score": "valid/score",
    "best_score": "valid/best_score",
    "cost": "search/cost",
    "budget": "search/budget",
    "failed": "search/failed",
}
GROUPS = ("valid", "test", "train")


def tag(name: str) -> str:
    """Return the name of a scalar in TensorBoard.

    :data:`TAGS` has the names of some scalars. If another name contains the name of a group as a word, the scalar goes
    to this group and the word is dropped: ``retrain_valid_accuracy`` becomes ``valid/retrain_accuracy``. Times go to
    ``time/``, everything else to ``train/``.
    """
    if name in TAGS:
        return TAGS[name]
    if name.startswith("eval_return/"):  # of an agent or a task
        return f"eval/mean_reward/{name.partition('/')[2]}"
    words = name.split("_")
    for group in GROUPS:
        if group in words:
            words.remove(group)
            return f"{group}/{'_'.join(words) or group}"
    return f"{'time' if 'seconds' in words else 'train'}/{name}"
