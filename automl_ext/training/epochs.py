"""The steps of a run: each step is logged, checkpoints are saved, and the run may stop after a number of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch.optim import Optimizer

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.progress import Progress
from automl_ext.training.run import Run


class Job(Protocol):
    """A search or a training run. ``state_dict`` holds everything that its continuation depends on."""

    epochs: int  # total number
    epoch: int  # number completed

    def run_epoch(self) -> dict[str, float]:
        """Run one epoch and increment ``epoch``. Return the measurements by name."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Counting = TypeVar("Counting", bound="Steps")


class Steps:
    """Counts the steps of an open run: logs each, saves checkpoints, and says when the run stops. A context manager.

    Args:
        run: the run. Steps up to that of its checkpoint are counted, but neither logged nor saved again.
        total: the last step.
        description: text next to the progress bar.
        stop_after: stop after this number of new steps, None: never.
        state: returns the state to save.
        every: seconds between checkpoints; 0: save after each :meth:`add`.
        start: number of steps so far; by default that of the run.
        percent: returns how much of a budget is spent, in percent; the bar counts these instead of steps.

    Raises:
        ValueError: ``stop_after`` is below 1.
    """

    def __init__(
        self,
        run: Run,
        total: int,
        description: str,
        stop_after: int | None,
        state: Callable[[], dict[str, Any]],
        *,
        every: float = 0.0,
        start: int | None = None,
        percent: Callable[[], int] | None = None,
    ) -> None:
        if stop_after is not None and stop_after < 1:
            raise ValueError(f"stop_after: expected at least 1, got {stop_after}")
        self.run_directory, self.state, self.every, self.percent = run, state, every, percent
        self.step = run.step if start is None else start
        self.stop_at = None if stop_after is None else run.step + stop_after
        self.saved, self.saved_at = max(self.step, run.step), time.monotonic()
        self.shown = self.position()
        total = total if percent is None else 100
        self.bar: Progress = run.progress(total, description, self.shown, percent is not None)

    def position(self) -> int:
        return self.step if self.percent is None else self.percent()

    @property
    def stopped(self) -> bool:
        """Whether ``stop_after`` ends the run."""
        return self.stop_at is not None and self.step >= self.stop_at

    def add(self, *lines: dict[str, float], size: int = 1, description: str | None = None) -> None:
        """Count and log steps; save a checkpoint if it is time, or if the run stops.

        Args:
            lines: the measurements after each step.
            size: number of steps that a line stands for.
            description: text next to the progress bar from now on.
        """
        self.bar.advance(0, description)  # which the lines below show
        for scalars in lines:
            self.step += size
            if self.step > self.run_directory.step:
                self.run_directory.log(self.step, **scalars)
        before, self.shown = self.shown, self.position()
        self.bar.advance(self.shown - before)
        if self.stopped or time.monotonic() - self.saved_at >= self.every:
            self.save()

    def save(self) -> None:
        """Save a checkpoint, unless the last one is of this step."""
        if self.step > self.saved:
            self.run_directory.save(self.step, self.state())
            self.saved, self.saved_at = self.step, time.monotonic()

    def __enter__(self: Counting) -> Counting:
        self.bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.__exit__(*exception)


class Epochs(Steps):
    """Runs jobs one after another inside one Run, whose steps count the epochs of all jobs; saves after each epoch."""

    def __init__(self, run: Run, total: int, description: str, stop_after: int | None) -> None:
        super().__init__(run, total, description, stop_after, dict)

    def run(self, job: Job, name: str, state: dict[str, Any], check: Callable[[], None] = lambda: None) -> bool:
        """Run the remaining epochs of ``job``. Return False if ``stop_after`` ended it early.

        Args:
            job: the job, new or loaded from a checkpoint.
            name: prefix of the job's measurements.
            state: saved in addition to the job's own state, which is ``state["job"]``.
            check: called after each epoch; it may raise.

        Raises:
            UserError: the checkpoint's number of epochs is wrong, or a measurement is not finite.
        """
        if type(job.epoch) is not int or not 0 <= job.epoch <= job.epochs:
            raise UserError(
                f"{self.run_directory.path}: epoch: expected an int from 0 to {job.epochs}, got {short(job.epoch)}"
            )
        self.state = lambda: {**state, "job": job.state_dict()}
        while job.epoch < job.epochs:
            if self.stopped:
                return False
            scalars = job.run_epoch()
            check_finite(name, job, scalars)
            self.add({f"{name}_{key}": value for key, value in scalars.items()}, description=name)
            check()
        return True


def check_finite(name: str, job: Job, scalars: dict[str, float]) -> None:
    """Raise UserError if a measurement of the job's last epoch is not finite."""
    if not all(math.isfinite(value) for value in scalars.values()):
        raise UserError(f"{name}: diverged in epoch {job.epoch}: {scalars}; try a lower learning rate")


def set_cosine_lr(optimizer: Optimizer, progress: float, lr: float, lr_min: float) -> float:
    """Set the learning rate on a half cosine from ``lr`` (progress 0) to ``lr_min`` (progress 1). Return it.

    The rate depends on the progress alone, so that no scheduler state must be saved.
    """
    value = lr_min + (lr - lr_min) * (1 + math.cos(math.pi * progress)) / 2
    for group in optimizer.param_groups:
        group["lr"] = value
    return value
