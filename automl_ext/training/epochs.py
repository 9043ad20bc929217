"""Jobs that proceed by epochs, with a checkpoint after each epoch."""

from __future__ import annotations

import math
from typing import Any, Protocol

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


class Epochs:
    """Runs jobs one after another inside one Run, whose steps count the epochs of all jobs.

    Args:
        run: an open run.
        total: number of epochs of all jobs.
        description: text next to the progress bar.
        stop_after: stop after this number of epochs, None: never.

    Raises:
        ValueError: ``stop_after`` is below 1.
    """

    def __init__(self, run: Run, total: int, description: str, stop_after: int | None) -> None:
        if stop_after is not None and stop_after < 1:
            raise ValueError(f"stop_after: expected at least 1 epoch, got {stop_after}")
        self.run_directory, self.step = run, run.step
        self.stop_at = None if stop_after is None else run.step + stop_after
        self.bar: Progress = run.progress(total, description)

    def __enter__(self) -> Epochs:
        self.bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.__exit__(*exception)

    def run(self, job: Job, name: str, state: dict[str, Any]) -> bool:
        """Run the remaining epochs of ``job``. Return False if ``stop_after`` ended it early.

        Args:
            job: the job, new or loaded from a checkpoint.
            name: prefix of the job's measurements.
            state: saved in addition to the job's own state, which is ``state["job"]``.

        Raises:
            UserError: the checkpoint's number of epochs is wrong, or a measurement is not finite.
        """
        if type(job.epoch) is not int or not 0 <= job.epoch <= job.epochs:
            raise UserError(
                f"{self.run_directory.path}: epoch: expected an int from 0 to {job.epochs}, got {short(job.epoch)}"
            )
        while job.epoch < job.epochs:
            if self.step == self.stop_at:
                return False
            scalars = job.run_epoch()
            self.step += 1
            check_finite(name, job, scalars)
            self.run_directory.log(self.step, **{f"{name}_{key}": value for key, value in scalars.items()})
            self.run_directory.save(self.step, {**state, "job": job.state_dict()})
            self.bar.advance(description=name)
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
