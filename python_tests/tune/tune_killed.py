"""Tune a toy with two workers, kill -9 the tuning run at random moments, resume it: ``tune_killed.py FOLDER KILLS``.

FOLDER/whole is left alone. FOLDER/killed must end with the same trials, and none that has ended may change. torch is
imported once and everything forked, so that a start costs milliseconds.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import torch._dynamo  # before the forks
import torch.utils.tensorboard  # noqa: F401

from automl_ext.tune import Range, TuneConfig, report, tune

SPACE = {"x": Range(0.0, 1.0), "n": Range(1, 100, log=True)}


def objective(seconds: float, point: dict[str, Any], out: Path) -> float:
    """A parabola, in steps; a trial that is called again continues as if nothing had happened."""
    value = -((point["x"] - 0.3) ** 2) - abs(point["n"] - 7) / 100
    for step in range(1, 10):
        time.sleep(seconds / 9)
        report(step, value * 10 / step)
    if point["n"] > 60:
        raise RuntimeError("too large")
    return value


def start(out: Path, trials: int, seconds: float) -> int:
    """Start or resume the tuning run in a process; return its id."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        sys.stderr = open(out.parent / "stderr.txt", "a")  # noqa: SIM115
        try:
            config = TuneConfig(trials=trials, workers=2, sampler="tpe", pruner="hyperband")
            toy = functools.partial(objective, seconds)
            tune(toy, SPACE, config, out, first=[{"x": 0.9, "n": 50}], resume="auto")
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def ended(out: Path) -> dict[str, tuple[int, str]]:
    """The trials that have ended: file -> time of its last change, content."""
    files = {path: path.read_text() for path in out.glob("trials/*.json")}
    return {path.name: (path.stat().st_mtime_ns, text) for path, text in files.items() if '"outcome"' in text}


def trials_of(out: Path) -> list[tuple[Any, ...]]:
    """Number, state, value and point of every trial."""
    trials = json.loads((out / "result.json").read_text())["trials"]
    return [(trial["trial"], trial["state"], trial["value"], trial["point"]) for trial in trials]


def kill_until_it_ends(out: Path, trials: int, seconds: float, most: int, rng: random.Random) -> int:
    """Kill and resume a tuning run at most ``most`` times, and let it end. Return the number of kills."""
    kills, before = 0, ended(out)
    while True:
        pid = start(out, trials, seconds)
        if kills < most:
            time.sleep(rng.uniform(0.05, 0.6))
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        now = ended(out)
        assert before.items() <= now.items(), "a trial that had ended was lost or repeated"
        before = now
        if not os.WIFSIGNALED(status):
            assert status == 0, (out.parent / "stderr.txt").read_text()
            return kills
        kills += 1


def main(folder: Path, kills: int, trials: int = 16, seconds: float = 0.1) -> None:
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment,misc]
    folder.mkdir(parents=True, exist_ok=True)
    rng, done = random.Random(0), 0
    assert os.waitpid(start(folder / "whole", trials, seconds / 10), 0)[1] == 0, (folder / "stderr.txt").read_text()
    while done < kills:
        out = folder / f"killed-{done}"
        done += kill_until_it_ends(out, trials, seconds, kills - done, rng)
        assert trials_of(out) == trials_of(folder / "whole"), "other trials than without the kills"
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "study.log")))
        numbers = [t.user_attrs["trial"] for t in optuna.load_study(study_name="tune", storage=storage).trials]
        assert numbers == list(range(trials)), numbers
        assert len((out / "metrics.jsonl").read_text().splitlines()) == trials
    states = [state for _, state, _, _ in trials_of(folder / "whole")]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "failed", "pruned"))
    print(f"{done} kills of tuning runs with {trials} trials ({counts}): none lost or repeated")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
