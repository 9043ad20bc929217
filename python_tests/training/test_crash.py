"""Crashes simulated at every disk operation in turn, and real kills."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from training_helpers import logged, make, train


class Crash(BaseException):
    """A simulated power failure."""


def crash_at(monkeypatch, call):
    """Raise Crash instead of the ``call``-th operation that changes the disk."""
    count, fsync = [0], os.fsync

    def guard(function):
        def guarded(*args, **kwargs):
            count[0] += 1
            if count[0] == call:
                raise Crash
            return None if function is fsync else function(*args, **kwargs)  # the disk is not really lost

        return guarded

    for owner, name in [(os, "replace"), (os, "fsync"), (os, "truncate"), (os, "unlink"), (os, "rmdir")]:
        monkeypatch.setattr(owner, name, guard(getattr(owner, name)))
    for name in ("mkdir", "write_bytes"):
        monkeypatch.setattr(Path, name, guard(getattr(Path, name)))


def crashes(tmp_path, monkeypatch, prepare, action):
    """Prepare a directory and crash ``action`` at its k-th operation, for every k. Yield the directories."""
    for k in range(1, 200):
        out = tmp_path / str(k)
        prepare(out)
        with monkeypatch.context() as patch:
            crash_at(patch, k)
            try:
                action(out)
            except Crash:
                survived = False
            else:
                survived = True
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing may look damaged
            yield out
        if survived:
            assert k > 5
            return
    pytest.fail("never ran to its end")


@pytest.fixture
def _no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.mark.usefixtures("_no_tensorboard")
def test_a_crash_while_saving_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    def save(out):
        with make(out, resume="auto") as run:
            run.log(4, loss=0.0)
            run.save(4, {"w": torch.full((3,), 4.0)})

    found = set()
    for out in crashes(tmp_path, monkeypatch, train, save):
        with make(out, resume="auto") as run:
            assert run.state["w"].tolist() == [float(run.step)] * 3
            assert logged(out) == list(range(1, run.step + 1))
            assert not list((out / "checkpoints").glob(".tmp*"))
            found.add(run.step)
    assert found == {3, 4}


@pytest.mark.usefixtures("_no_tensorboard")
def test_a_crash_while_saving_the_first_is_a_fresh_start_or_it(tmp_path, monkeypatch):
    found = {out: _resumed_step(out) for out in crashes(tmp_path, monkeypatch, Path, lambda o: train(o, 1))}
    assert set(found.values()) == {0, 1}


@pytest.mark.usefixtures("_no_tensorboard")
def test_a_crash_while_going_back_loses_nothing(tmp_path, monkeypatch):
    def go_back(out):
        make(out, resume=str(out / "checkpoints" / "step-00000002")).close()

    found = {out: _resumed_step(out) for out in crashes(tmp_path, monkeypatch, train, go_back)}
    assert set(found.values()) == {2, 3}


@pytest.mark.usefixtures("_no_tensorboard")
def test_a_crash_while_copying_another_run(tmp_path, monkeypatch):
    origin = train(tmp_path / "origin")[-1]

    def copy(out):
        make(out, resume=str(origin)).close()

    found = {out: _resumed_step(out) for out in crashes(tmp_path, monkeypatch, Path, copy)}
    assert set(found.values()) == {0, 3}


@pytest.mark.usefixtures("_no_tensorboard")
def test_a_crash_while_finishing_leaves_no_half_result(tmp_path, monkeypatch):
    def finish(out):
        with make(out, resume="auto") as run:
            run.finish({"accuracy": 1.0})

    for out in crashes(tmp_path, monkeypatch, train, finish):
        result = out / "result.json"
        assert not result.exists() or json.loads(result.read_text()) == {"accuracy": 1.0}
        assert _resumed_step(out) == 3
        assert not list(out.glob(".*.tmp"))


def _resumed_step(out):
    with make(out, resume="auto") as run:
        assert logged(out) == list(range(1, run.step + 1))
        return run.step


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(tmp_path):
    """At least ten kills of a training process do not change its results in any bit."""
    script = Path(__file__).with_name("training_killed.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] >= 10
    assert report["resumed"] >= 5
    runs = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(runs) >= 2
    for name in ("result.json", "metrics.jsonl"):
        assert {(out / name).read_bytes() for out in runs} == {(runs[0] / name).read_bytes()}, name
