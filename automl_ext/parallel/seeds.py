"""The same run with several seeds, side by side: ``automl-ext … --seeds 0:5``.

    OUT/seed-0, OUT/seed-1, …      run directories, as of the command without --seeds
    OUT/seeds.json                 the results, and their mean with its interval; written at the end

Finished seeds are not repeated. An interrupted one continues from its checkpoint. On a node that does not see ``OUT``,
a seed runs in a temporary folder, which is sent back when it ends; if the node dies before, the seed starts again from
the files that were last sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from automl_ext.parallel.cluster import current_cluster
from automl_ext.parallel.jobs import Jobs
from automl_ext.parallel.own_modules import Files, pack, unpack
from automl_ext.training.config import check_same, increased, to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_json
from automl_ext.training.files.lock import LOCK, Lock, RunFolder, is_held_here
from automl_ext.training.files.reading import read_object, short
from automl_ext.training.intervals import t_interval
from automl_ext.training.numbers import numbers_in
from automl_ext.training.progress import Progress, quiet
from automl_ext.training.run import CONFIG, RESULT, algorithm_of
from automl_ext.training.user_code import import_module, module_in, own_names

FILE, MARK = "seeds.json", ".visible-"  # MARK: a file by which a node sees that it shares OUT
MOST = 1000  # seeds
AHEAD = 2  # seeds per worker that are submitted at a time; the files of an interrupted one are in memory
END = 2**32  # of the seeds that a configuration accepts
RunFunction = Callable[..., dict[str, Any] | None]  # (configuration, out, resume=…, stop_after=…)


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that "A:B" (A … B − 1), "A,B,C" or "A" names.

    Raises:
        ValueError: the text has another form, or it names no seed, a seed twice, a seed of 2³² or more, or more than
            ``MOST`` seeds.
    """
    expected = f"expected FIRST:END or seeds separated by commas, at most {MOST}, each below 2**32, got {short(text)}"
    first, colon, end = text.partition(":")
    parts = [first, end] if colon else text.split(",")
    if not all(part.isdecimal() and len(part) <= 10 for part in parts):
        raise ValueError(f"seeds: {expected}")
    numbers = [int(part) for part in parts]
    if colon and not 0 < numbers[1] - numbers[0] <= MOST:
        raise ValueError(f"seeds: {expected}; END must be above FIRST")
    seeds = list(range(*numbers)) if colon else numbers
    if len({*seeds}) != len(seeds):
        raise ValueError(f"seeds: {expected}, in which a seed is repeated")
    if len(seeds) > MOST or max(seeds) >= END:
        raise ValueError(f"seeds: {expected}")
    return seeds


class SeedTask(NamedTuple):
    """The arguments of a worker for one seed. ``files``: the interrupted run, for a node that cannot read it."""

    config: Any
    folder: Path
    mark: str
    stop_after: int | None
    files: Files


class SeedRunner:
    """Runs one seed of the command's ``function``; executed by the workers."""

    def __init__(self, function: RunFunction) -> None:
        self.function = function

    def __call__(self, task: SeedTask) -> tuple[dict[str, Any] | None, Files | None]:
        """Return the result, None if interrupted; and the files of the run, None if the caller can read them itself."""
        if (task.folder.parent / task.mark).is_file():
            release_lock(task.folder)
            return self.run(task, task.folder), None
        with tempfile.TemporaryDirectory(prefix="automl_ext-seed-") as name:
            folder = Path(name) / task.folder.name
            unpack(task.files, folder)
            return self.run(task, folder), pack(folder)

    def run(self, task: SeedTask, folder: Path) -> dict[str, Any] | None:
        with quiet():
            try:
                return self.function(task.config, folder, resume="auto", stop_after=task.stop_after)
            except UserError as error:
                if not folder.exists():  # a wrong option, the same for all seeds
                    raise
                raise UserError(f"seed {task.config.seed}: {error}") from None


def run_seeds(
    function: RunFunction,
    algorithm: str,
    config: Any,
    out: str | Path,
    seeds: Sequence[int],
    workers: int = 1,
    resume: str | None = None,
    stop_after: int | None = None,
) -> dict[str, Any] | None:
    """Run ``function`` once per seed.

    Args:
        function: the function of a command, such as :func:`automl_ext.nas.training.retrain.retrain`.
        algorithm: the name under which it stores its runs.
        config: its configuration; the field ``seed`` is replaced.
        out: parent of the run directories; absent or empty, unless ``resume`` is "auto".
        workers: number of seeds that run at the same time.
        resume: None or "auto".
        stop_after: interrupt each seed after this number of steps.

    Returns:
        The content of ``seeds.json``: ``seeds``; ``results``, those of the seeds; ``summary``, which has for each
        number that all results have the ``mean``, its 95 % interval ``ci95`` (Student's t; None for one seed) and
        ``values``. None if a seed was interrupted.

    Raises:
        UserError: ``out`` is not empty, a finished seed had another configuration, or a run failed.
    """
    if resume not in (None, "auto"):
        raise UserError(f"--resume: expected auto with --seeds, got {short(resume)}")
    out = Path(out).resolve()
    configs = {seed: dataclasses.replace(config, seed=seed) for seed in seeds}
    try:
        folder = RunFolder(out)
    except OSError as error:
        raise UserError(f"cannot use the run directory {out}: {error}") from error
    try:
        check_entries(out, folder.entries or [], resume)
        ended = [seed for seed in seeds if has_ended(run_of(out, seed), configs[seed])]
        for seed in ended:
            check_finished(run_of(out, seed), configs[seed], algorithm)
        finished = {seed: read_object(run_of(out, seed) / RESULT) for seed in ended}
        results = finished | remaining(function, configs, out, finished, workers, stop_after)
    except BaseException as error:
        folder.close(undo=isinstance(error, Exception) and not any(out.glob("seed-*")))
        raise
    folder.close(undo=False)
    done = [result for seed in seeds if (result := results[seed]) is not None]
    if len(done) < len(seeds):
        return None
    summary = {"seeds": list(seeds), "results": done, "summary": summarize(done)}
    write_json(out / FILE, summary)
    return summary


def run_of(out: Path, seed: int) -> Path:
    """Return the run directory of a seed."""
    return out / f"seed-{seed}"


def remaining(
    function: RunFunction,
    configs: dict[int, Any],
    out: Path,
    finished: dict[int, Any],
    workers: int,
    stop_after: int | None,
) -> dict[int, dict[str, Any] | None]:
    """Run the seeds that have not finished. Return their results, None for those that were interrupted."""
    results: dict[int, dict[str, Any] | None] = {}
    left = [seed for seed in configs if seed not in finished]
    remote = current_cluster().address is not None
    if remote:
        for name in own_names(to_dict(next(iter(configs.values())))):
            import_module(module_in(name), f"--cluster: {name}")  # so that it is sent
    for left_over in out.glob(f"{MARK}*"):  # of a killed command
        left_over.unlink()
    mark = f"{MARK}{os.getpid()}-{time.time_ns()}"
    (out / mark).touch()

    def task(seed: int) -> tuple[SeedTask]:
        run = run_of(out, seed)
        return (SeedTask(configs[seed], run, mark, stop_after, pack(run) if remote else {}),)

    try:
        with (
            Jobs(SeedRunner(function), workers, arguments=task, ahead=AHEAD * workers) as jobs,
            Progress(len(configs), "seeds", len(finished)) as bar,
        ):
            for seed, (result, files) in jobs.each(left):
                results[seed] = result
                if files is not None:
                    replace_folder(run_of(out, seed), files)
                bar.advance()
                bar.report(len(finished) + len(results), {"seed": seed} | finite(result or {}))
    finally:
        with contextlib.suppress(OSError):
            (out / mark).unlink()
    return results


def replace_folder(folder: Path, files: Files) -> None:
    """Replace the content of a folder by the files that a node has sent."""
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    unpack(files, fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def check_entries(out: Path, entries: list[Path], resume: str | None) -> None:
    """Raise UserError if ``out`` is in use by something else."""
    if entries and resume is None:
        raise UserError(f"{out} is not empty: choose another --out, or resume it with --resume auto")
    if entries and not any(path.name.startswith(("seed-", MARK)) for path in entries):
        raise UserError(f"{out} is not empty and holds no run of --seeds: choose another --out")


def has_ended(run: Path, config: Any) -> bool:
    """Return whether a run has a result, and is as long as ``config`` says."""
    return (run / RESULT).is_file() and not increased(read_object(run / CONFIG), config)


def check_finished(run: Path, config: Any, algorithm: str) -> None:
    """Raise UserError if a finished run belongs to another algorithm or configuration."""
    stored = algorithm_of(run)
    if stored != algorithm:
        raise UserError(f"{run} belongs to algorithm {short(stored)}, not {algorithm!r}: choose another --out")
    if hasattr(config, "resolved"):
        config = config.resolved()
    check_same(str(run), read_object(run / CONFIG), config)


def release_lock(folder: Path, patience: float = 10.0) -> None:
    """Wait until a killed worker has released its run directory; delete the lock that a dead machine has left.

    Only for run directories below a folder that the caller has locked, so that no other ``--seeds`` uses them.

    Raises:
        UserError: a process of this machine still writes to the run directory.
    """
    end = time.monotonic() + patience
    while (folder / LOCK).exists():
        try:
            Lock(folder).release()
        except UserError:
            if time.monotonic() > end:
                if is_held_here(folder):
                    raise
                (folder / LOCK).unlink(missing_ok=True)
            time.sleep(0.2)


def summarize(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean, interval and values of each finite number that all results have, by dotted name."""
    found = [finite(result) for result in results]
    shared = [name for name in found[0] if all(name in numbers for numbers in found)]
    values = {name: [numbers[name] for numbers in found] for name in shared}
    return {name: {"mean": fmean(v), "ci95": t_interval(v), "values": v} for name, v in values.items()}


def finite(result: dict[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a result by dotted name."""
    return {name: x for name, x in numbers_in(result) if math.isfinite(x)}
