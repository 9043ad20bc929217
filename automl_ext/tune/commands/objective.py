"""The objective of a command: it runs the command in the trial's folder and reads the metric."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.lock import Lock
from automl_ext.training.files.metrics import FILE
from automl_ext.training.files.reading import read_object
from automl_ext.training.numbers import numbers_in
from automl_ext.training.observer import observing
from automl_ext.training.pictures.curves import read_metrics
from automl_ext.training.run import RESULT
from automl_ext.training.search_space import with_point
from automl_ext.tune.reporting import Pruned, report

PATIENCE = 30.0  # seconds to wait for the lock of a trial's folder: a killed process may still be ending


@dataclass(frozen=True)
class TunedBy:
    """The metric by which a command is tuned.

    Attributes:
        name: an entry of ``result.json``, with dots between levels. If there is none of this name, the last value in
            ``metrics.jsonl`` counts.
        logged: the entry of ``metrics.jsonl`` by which trials are pruned; None: trials are not pruned.
        needs: values of the command's options that the metric requires.
    """

    name: str
    logged: str | None = None
    needs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class CommandObjective:
    """Runs a command with the values of a point. It can be pickled.

    Args:
        load: imports and returns the configuration's class and the function ``(config, out, resume, stop_after)``.
        settings: the configuration; a point replaces some of its values.
        metric: the metric whose value is the result.
        seeds: number of runs, whose seeds follow each other from that of ``settings``; the result is their mean.
    """

    load: Callable[[], tuple[type, Callable[..., Any]]]
    settings: Any
    metric: TunedBy
    seeds: int = 1

    def __call__(self, point: Mapping[str, Any], out: Path) -> float:
        """Run the command in ``out``, or continue it, and return the metric, with several seeds its mean.

        Raises:
            ValueError: the configuration refuses the point.
            UserError: the run failed, or has no such metric.
        """
        _, function = self.load()
        config = with_point(self.settings, point)
        values = []
        for i in range(self.seeds):
            run = run_of(out, i, self.seeds)
            wait_for(run)
            if not (run / RESULT).is_file():
                seeded = dataclasses.replace(config, seed=config.seed + i) if i else config
                with observing(self.watch(run)) if i == 0 else contextlib.nullcontext():
                    function(seeded, run, resume="auto", stop_after=None)
            if i == 0:  # trials are pruned by their first run
                for step, value in self.logged(run):
                    with contextlib.suppress(Pruned):  # the run has finished
                        report(step, value)
            values.append(value_of(run, self.metric.name))
        return fmean(values)

    def watch(self, trial: Path) -> Callable[[Path, int, Mapping[str, float]], None]:
        """Return an observer that reports the logged metric, beginning with the first line of ``metrics.jsonl``."""
        started = False

        def observer(run: Path, step: int, scalars: Mapping[str, float]) -> None:
            nonlocal started
            if run != trial or self.metric.logged is None:
                return
            if not started:  # a resumed run has earlier lines
                started = True
                for earlier, value in self.logged(run):
                    report(earlier, value)
            elif self.metric.logged in scalars:
                report(step, float(scalars[self.metric.logged]))

        return observer

    def logged(self, run: Path) -> Iterator[tuple[int, float]]:
        """Yield step and value of the logged metric."""
        name = self.metric.logged
        if name is not None and (run / FILE).is_file():
            for line in read_metrics(run):
                if name in line:
                    yield line["step"], float("nan") if line[name] is None else float(line[name])


def run_of(trial: Path, index: int, seeds: int) -> Path:
    """Return the directory of a run of a trial; the only run of a trial is in the trial's folder itself."""
    return trial if seeds == 1 else trial / f"run-{index}"


def value_of(run: Path, name: str) -> float:
    """Return a metric of a finished run.

    Raises:
        UserError: there is no such number; the message lists those that the run logs, and those of ``result.json``.
    """
    result = read_object(run / RESULT)
    numbers = dict(numbers_in(result))
    if name in numbers:
        return numbers[name]
    lines = read_metrics(run) if (run / FILE).is_file() else []
    values = [line[name] for line in lines if line.get(name) is not None]
    if not values:
        logged = [key for line in lines for key in line]
        known = [key for key in (*logged, *numbers) if "." not in key and key != "step" and not key.startswith("test_")]
        raise UserError(f"objective: expected one of {', '.join(dict.fromkeys(known))}, got {name}")
    return float(values[-1])


def wait_for(folder: Path) -> None:
    """Wait until no process holds the lock of a run directory; give up after ``PATIENCE`` seconds."""
    end = time.monotonic() + PATIENCE
    while folder.is_dir() and time.monotonic() < end:
        try:
            Lock(folder).release()
        except UserError:
            time.sleep(0.1)
        else:
            return
