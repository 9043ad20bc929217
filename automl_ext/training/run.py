"""The run directory: configuration, environment, measurements, checkpoints and result of one run.

    config.json  environment.json  metrics.jsonl  result.json
    checkpoints/step-00000012/{state.pt, manifest.json}     the last two checkpoints (above 1 GiB: one)
    tensorboard/                                            if TensorBoard is installed
    .lock                                                   while a process writes the run

A run can be killed at any moment. Resumed with the same configuration, it ends with the result of the uninterrupted
run, bit for bit; on a GPU, only under :func:`torch.use_deterministic_algorithms`. Its state must hold everything that
changes: parameters, optimizers, schedulers and random states (:mod:`~automl_ext.training.seeding`). The results are
equal for the same number of threads, PyTorch version, backend and kind of processor: PyTorch's own sums (batch norm,
gradients of convolutions) round differently with another number of threads, and training amplifies the difference. The
ops of automl_ext do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from automl_ext._version import __version__
from automl_ext.training.config import from_dict, increased, to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint, metrics
from automl_ext.training.files.atomic import fsync_path, write_json
from automl_ext.training.files.checkpoint import DamagedCheckpoint, UnfitState
from automl_ext.training.files.lock import RunFolder
from automl_ext.training.files.reading import read_object, short
from automl_ext.training.machine.environment import check_compatible, environment
from automl_ext.training.machine.memory import keep_freed_memory
from automl_ext.training.observer import observe
from automl_ext.training.progress import Progress, say
from automl_ext.training.user_code import check_not_imported_by_a_worker

CONFIG, ENVIRONMENT, RESULT, CHECKPOINTS = "config.json", "environment.json", "result.json", "checkpoints"
BEST = "best.json"  # the best network so far of a search that is not finished
MEMBERS = "members"  # folder of the weights of finished trainings, in files .pt
Config = TypeVar("Config")
Load = Callable[[dict[str, Any]], object]
Origin = tuple[Path, dict[str, Any], dict[str, Any]]  # of the resumed checkpoint: path, manifest, state


class Run:
    """One run in one directory. Create it with :meth:`open`; close it, or use it as a context manager.

    Attributes:
        path: the run directory.
        step: number of steps (or epochs) that the checkpoint had completed; 0 for a new run.
        state: the checkpoint's state, tensors on the CPU; None for a new run.
    """

    def __init__(self, path: Path, facts: dict[str, Any], step: int, state: dict[str, Any] | None) -> None:
        self.path, self.step, self.state = path, step, state
        self._facts = facts
        self._saved_step = step if state is not None else -1
        self._metrics = metrics.Metrics(path, step)
        self._folder: RunFolder | None = None  # set by open
        self._finished = False
        self._progress: Progress | None = None

    @classmethod
    def open(
        cls,
        out: str | Path,
        config: Any,
        *,
        algorithm: str,
        resume: str | None = None,
        load: Load | None = None,
        worker_threads: int | None = None,
    ) -> Run:
        """Start a run in ``out``, or resume one.

        The directory is locked until the run is closed or the process ends. A new run that fails before it has logged
        or saved anything removes its files, so that ``out`` can be used again. The process keeps freed memory from
        here on (:func:`~automl_ext.training.machine.memory.keep_freed_memory`).

        Args:
            out: the run directory.
            config: a (nested) dataclass with all options that affect the result. Other options (where to write, when
                to interrupt) are left out: a resumed run must have the same configuration.
            algorithm: name of the algorithm; a checkpoint of another algorithm causes an error.
            resume: None: ``out`` must be absent or empty. ``"auto"``: resume from the newest intact checkpoint; damaged
                ones are skipped with a warning, and deleted; without a checkpoint, start a new run. A path: resume
                from that checkpoint. If it belongs to this run, later ones are deleted. If it belongs to another run,
                ``out`` must be absent or empty, and the checkpoint, the metrics up to it and the weights of finished
                trainings are copied.
            load: fills the caller's objects from the state of the checkpoint, before anything on the disk changes.
                A checkpoint for which it raises an exception counts as damaged, and ``"auto"`` tries an older one.
                It must set every value, because an earlier attempt may have set some. :attr:`state` is None
                afterwards, and its memory is free.
            worker_threads: number of threads of each process that computes results; None: they are computed here.

        Raises:
            UserError: ``out`` is not empty or not a run directory; another process writes to it; the checkpoint at the
                path is missing, damaged or belongs to another run; no checkpoint fits ``load``; or the algorithm,
                torch's minor version, a number of threads or the configuration differs.
            TypeError: a configuration value cannot be stored.
        """
        check_not_imported_by_a_worker()
        keep_freed_memory()
        out = Path(out)
        if not dataclasses.is_dataclass(config) or isinstance(config, type):
            raise TypeError(f"config: expected a dataclass instance, got {type(config).__name__}")
        facts = {"algorithm": algorithm, "config": to_dict(config), "environment": environment()}
        if worker_threads is not None:
            facts["environment"]["worker_threads"] = worker_threads
        try:
            folder = RunFolder(out)
            try:
                entries = folder.entries or []
                origin = None
                read = functools.partial(_read, facts=facts, config=config, load=load)
                if resume is None:
                    if entries:
                        raise UserError(f"{out} is not empty: choose another --out, or resume it with --resume auto")
                elif resume == "auto":
                    _check_run_directory(out, entries)
                    origin = _newest_intact(out / CHECKPOINTS, read)
                else:
                    origin = _at_path(Path(resume), out, entries, read)
                _check_files(out)
                longer = [] if origin is None else _lengthen(out, origin[1]["config"], config)
                run = _fresh(out, facts) if origin is None else _resume(out, facts, *origin)
                if resume == "auto" and entries:
                    say(f"{out}: " + (f"continues from step {run.step:,}" if origin else "no checkpoint, starts anew"))
                for text in longer:
                    say(f"{out}: {text}")
            except BaseException as error:
                folder.close(undo=isinstance(error, Exception))
                raise
        except OSError as error:
            raise UserError(f"cannot use the run directory {out}: {error}") from error
        run._folder = folder
        if load is not None:
            run.state = None
        return run

    def log(self, step: int, **scalars: float) -> None:
        """Append scalars to ``metrics.jsonl``, where NaN becomes null.

        They are also written to TensorBoard, with the names of :func:`~automl_ext.training.files.metrics.tag`, and
        reported by the progress bar. ``step`` is the number of completed steps, as in :meth:`save`: the first epoch's
        losses are logged at 1. The observer sees them last (:mod:`~automl_ext.training.observer`), and may raise.
        """
        self._metrics.log(step, scalars)
        if self._progress is not None:
            self._progress.report(step, scalars)
        observe(self.path, step, scalars)

    def chart(self, step: int, **scalars: float) -> None:
        """Write scalars to TensorBoard only, such as times: in ``metrics.jsonl`` they would make equal runs differ."""
        self._metrics.chart(step, scalars)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint after ``step`` completed steps. The last two are kept, or one if it exceeds 1 GiB.

        ``state`` may hold tensors and plain Python values. A resumed run first removes the lines of ``metrics.jsonl``
        that were written after its checkpoint.

        Raises:
            TypeError: a value is neither a tensor nor plain Python; the message names its key path.
            ValueError: ``step`` is not above the last one saved.
        """
        if type(state) is not dict:
            raise TypeError(f"state: expected a dict, got {type(state).__name__}")
        if type(step) is not int or step <= self._saved_step:
            raise ValueError(f"step: expected an int above {self._saved_step}, the last one saved, got {step!r}")
        checkpoint.check_state(state)
        facts = self._facts | {"metrics_bytes": self._metrics.sync()}
        checkpoint.write(self.path / CHECKPOINTS, step, state, facts)
        self._saved_step = step

    def finish(self, result: dict[str, Any]) -> None:
        """Write ``result.json``: strict JSON, NaN and infinities as null.

        Raises:
            TypeError: a value is not plain Python; the message names its key.
        """
        self._metrics.sync()
        write_json(self.path / RESULT, result)
        self._finished = True

    def progress(self, total: int, description: str, start: int | None = None, percent: bool = False) -> Progress:
        """Return a progress bar from ``start`` to ``total``: ``for epoch in run.progress(epochs, "search"): …``."""
        self._progress = Progress(total, description, self.step if start is None else start, percent)
        return self._progress

    def close(self) -> None:
        """Close the files and release the lock."""
        self._close(undo=False)

    def _close(self, undo: bool) -> None:
        try:
            self._metrics.close()
        finally:
            if self._folder is not None:
                self._folder.close(undo)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        deleted = isinstance(error, OSError) and not self.path.exists()
        unused = self._saved_step < 0 and not self._metrics.written and not self._finished
        with contextlib.suppress(OSError):  # the disk is still full; the first error says more
            self._close(undo=unused and isinstance(error, Exception))
        if deleted:
            raise UserError(f"{self.path}: the run directory was deleted while the run went on") from None


def algorithm_of(run: Path) -> str | None:
    """Return the algorithm of a run directory; None if ``run`` is not a run directory."""
    try:
        name = read_object(run / ENVIRONMENT).get("algorithm")
    except UserError:
        return None
    return name if isinstance(name, str) else None


def read_config(run: Path, config: Config) -> Config:
    """Return the configuration of a run directory; ``config`` is an instance of its class.

    Raises:
        UserError: the file is missing or damaged, or has an option that this version does not have.
    """
    version = read_object(run / ENVIRONMENT).get("automl_ext")
    return from_dict(config, read_object(run / CONFIG), str(run / CONFIG), version)


def _lengthen(out: Path, stored: dict[str, Any], config: Any) -> list[str]:
    """Remove the result of a run that is continued beyond its former end. Return which of its schedules change.

    This is before ``config.json`` changes: after a crash in between, no result is beside a configuration of more steps.
    """
    texts = []
    for name in increased(stored, config):
        (out / RESULT).unlink(missing_ok=True)
        fsync_path(out)
        now = f"{getattr(config, name):,}"
        text = f"{name} was {stored[name]:,} and is now {now}"
        if schedules := config.may_increase[name]:
            text += f"; {', '.join(schedules)}: the schedule changes here, so this is no run of {now} from the start"
        texts.append(text)
    return texts


def _check_run_directory(out: Path, entries: list[Path]) -> None:
    """Raise UserError for a folder that is not a run directory, because a new run deletes old files.

    A run writes ``environment.json`` first.
    """
    if all(path.name == f".{ENVIRONMENT}.tmp" for path in entries):
        return
    try:
        ours = "automl_ext" in read_object(out / ENVIRONMENT)
    except UserError:
        ours = False
    if not ours and not checkpoint.list_steps(out / CHECKPOINTS):
        raise UserError(f"{out} is not empty and not a run directory ({ENVIRONMENT} is missing or unreadable)")


def _read(path: Path, facts: dict[str, Any], config: Any, load: Load | None) -> Origin:
    """Read and check one checkpoint; call ``load`` with its state."""
    manifest = checkpoint.read_manifest(path)
    check_compatible(str(path), manifest, facts, config)
    state = checkpoint.read_state(path, manifest)
    if load is not None:
        try:
            checkpoint.load_into(load, state)
        except UnfitState as error:
            version = manifest["environment"].get("automl_ext")
            if version == __version__:
                raise
            raise UnfitState(f"{error} (written by automl_ext {short(version)}, this is {__version__})") from None
    return path, manifest, state


def _newest_intact(folder: Path, read: Callable[[Path], Origin]) -> Origin | None:
    half_filled = False
    for path in reversed(checkpoint.list_steps(folder)):
        try:
            return read(path)
        except DamagedCheckpoint as error:
            half_filled |= isinstance(error, UnfitState)
            warnings.warn(f"skipping the damaged checkpoint {path}: {error}", stacklevel=3)
    if half_filled:  # a new run must not start from half-filled objects
        raise UserError(f"no checkpoint in {folder} fits, see the warnings above: choose another --out")
    return None


def _at_path(path: Path, out: Path, entries: list[Path], read: Callable[[Path], Origin]) -> Origin:
    if not path.exists():
        raise UserError(f"there is no checkpoint at {path}")
    given, path = path, (path if path.is_dir() else path.parent).resolve()
    if not path.name.startswith(checkpoint.PREFIX):
        raise UserError(f"--resume: expected a checkpoint, a folder {CHECKPOINTS}/{checkpoint.PREFIX}…, got {given}")
    if entries and path.parent != (out / CHECKPOINTS).resolve():
        raise UserError(f"the checkpoint {path} does not belong to {out}, which is not empty: choose another --out")
    try:
        return read(path)
    except DamagedCheckpoint as error:
        raise UserError(f"the checkpoint {path} is damaged: {error}") from None


def _fresh(out: Path, facts: dict[str, Any]) -> Run:
    for path in reversed(checkpoint.list_steps(out / CHECKPOINTS)):
        checkpoint.remove(path)
    for name in (metrics.FILE, RESULT):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / metrics.TENSORBOARD, ignore_errors=True)
    _prepare(out, facts, facts["environment"])
    return Run(out, facts, 0, None)


def _resume(out: Path, facts: dict[str, Any], path: Path, manifest: dict[str, Any], state: dict[str, Any]) -> Run:
    folder = out / CHECKPOINTS
    own = path.parent == folder or path.parent == folder.resolve()
    if own:
        # Before metrics.jsonl is cut: after a crash in between, it still covers every checkpoint.
        for later in checkpoint.list_steps(folder):
            if checkpoint.step_of(later) > manifest["step"]:
                checkpoint.remove(later)
    _prepare(out, facts, _resumed(out, facts["environment"], manifest))
    if not own:
        _copy_files(path.parent.parent, out)
    metrics.cut(out / metrics.FILE, manifest["metrics_bytes"])
    if not own:
        checkpoint.copy(path, folder)  # last: this completes the new run
    return Run(out, facts, manifest["step"], state)


def _copy_files(source: Path, out: Path) -> None:
    """Copy the metrics of another run, and the weights that it keeps outside of its checkpoints."""
    for path in (source / metrics.FILE, source / BEST, *(source / MEMBERS).glob("*.pt")):
        if path.is_file():
            target = out / path.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
            fsync_path(target)


def _check_files(out: Path) -> None:
    for name in (metrics.FILE, ENVIRONMENT, CONFIG, RESULT):
        path = out / name
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise UserError(f"{path}: expected a regular file")


def _prepare(out: Path, facts: dict[str, Any], record: dict[str, Any]) -> None:
    folder = out / CHECKPOINTS
    write_json(out / ENVIRONMENT, {"algorithm": facts["algorithm"], **record})
    write_json(out / CONFIG, facts["config"])
    folder.mkdir(exist_ok=True)
    checkpoint.clean(folder)
    fsync_path(out)
    for name in (CONFIG, ENVIRONMENT, RESULT):
        (out / f".{name}.tmp").unlink(missing_ok=True)


def _resumed(out: Path, now: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the environment of the first start, with the current one appended to its list ``resumed``."""
    try:
        first = read_object(out / ENVIRONMENT)
        earlier = list(first.get("resumed", []))
    except (UserError, TypeError):
        first, earlier = manifest["environment"], []
    return first | {"resumed": [*earlier, now | {"step": manifest["step"]}]}
