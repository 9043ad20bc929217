"""Locks, full disks, seeds and missing input, command by command: one line, exit code 2, nothing lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nas_search_world as world
import pytest
import torch
from run_commands import COMMANDS, GENOTYPE, Refused, command
from test_refused import full_disk

from automl_ext.training.files.lock import Lock


def table(name: str, folder: Path) -> None:
    if name == "nas-bench":
        world.write(folder / "table.npz")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_locked_directory_a_full_disk_and_a_file_in_the_way(name: str, tmp_path: Path, refused: Refused) -> None:
    table(name, tmp_path)
    flags = [*name.split(), *COMMANDS[name]]
    (tmp_path / "locked").mkdir()
    lock = Lock(tmp_path / "locked")
    for resume in ([], ["--resume", "auto"]):
        assert f"locked is in use by process {os.getpid()}" in refused(*flags, "--out", "locked", *resume)
    lock.release()
    with full_disk(100):
        assert "File too large" in refused(*flags, "--out", "run/full")
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    assert "file" in refused(*flags, "--out", "file")
    assert "Not a directory" in refused(*flags, "--out", "file/below")


@pytest.mark.parametrize("name", ["train a2c", "retrain"])
def test_a_disk_that_fills_keeps_the_last_checkpoint(
    name: str, tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*name.split(), *COMMANDS[name], "--out", "run"]
    assert command(*flags, "--stop-after", 1) == 0
    before = sorted((tmp_path / "run/checkpoints").iterdir())
    size = (before[-1] / "state.pt").stat().st_size
    with full_disk(size // 2):
        assert "File too large" in refused(*flags, "--resume", "auto")
    assert sorted((tmp_path / "run/checkpoints").iterdir()) == before
    assert command(*flags, "--resume", "auto") == 0
    assert (tmp_path / "run/result.json").is_file()


@pytest.mark.slow
def test_other_commands_on_a_full_disk(tmp_path: Path, refused: Refused, policy: Path, network: Path) -> None:
    (policy / "curves.png").write_bytes(b"before")
    with full_disk(100):
        assert "curves.png" in refused("plot", policy)
        assert "cell.png" in refused("plot", "--genotype", GENOTYPE, "--out", "new")
        assert "cell.py" in refused("export", network, "--out", "made/cell.py")
    assert (policy / "curves.png").read_bytes() == b"before"
    assert not list((tmp_path / "made").iterdir())
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    for path in ("file/a.gif", "/proc/a.gif"):
        assert path.rpartition("/")[0] in refused("eval", policy, "--episodes", 1, "--gif", path)
    assert "/proc" in refused("export", network, "--out", "/proc/cell.py")
    assert "bench" in refused("bench", "--quick", "--out", "file/bench")
    assert "file" in refused("plot", "--genotype", GENOTYPE, "--out", "file/below")


def test_standard_output_on_a_full_disk(refused: Refused, monkeypatch: pytest.MonkeyPatch, network: Path) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert "No space left on device" in refused("export", network, "--out", "cell.py")
        print("Python flushes again when it ends", flush=True)
        monkeypatch.undo()


def test_a_table_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    from automl_ext.nas.benchmarks import nats_files

    monkeypatch.setattr(nats_files, "_cells", lambda source: iter([(GENOTYPE, {})]))
    monkeypatch.setattr(nats_files, "_row", lambda arch, cell, names: (1.0,) * 6)
    with full_disk(10):
        assert "t.npz" in refused("nas-table", "source", "--out", "new/t.npz")
    assert not (tmp_path / "new/t.npz").exists()
    assert command("nas-table", "source", "--out", "new/t.npz") == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_seed_out_of_range_names_the_option(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    try:
        code = command(*name.split(), *COMMANDS[name], "--seed", -1, "--out", "run")
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    err = capsys.readouterr().err
    assert "seed" in err
    assert "-1" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_of_an_evaluation_out_of_range(seed: int, refused: Refused, policy: Path) -> None:
    assert f"--seed: expected an int in [0, 2**32), got {seed}" in refused("eval", policy, "--seed", seed)


def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path, refused: Refused) -> None:
    assert "Nope" in refused("train", "a2c", "--env-id", "Nope-v0", "--out", "runs/a")
    assert "nowhere" in refused("retrain", *COMMANDS["retrain"], "--data", "npz:nowhere.npz", "--out", "runs/a")
    assert "table" in refused("nas-bench", "--table", "none.csv", "--out", "runs/a")
    assert "no checkpoint" in refused("retrain", *COMMANDS["retrain"], "--resume", "none", "--out", "runs/a")
    assert list(tmp_path.iterdir()) == []


# torch's CPU allocator raises a plain RuntimeError.
ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to\n..."
)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError(ALLOCATOR), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_too_little_memory_is_one_line(
    error: Exception, refused: Refused, monkeypatch: pytest.MonkeyPatch, policy: Path
) -> None:
    def evaluate_run(*_: object) -> None:
        raise error

    monkeypatch.setattr("automl_ext.rl.reports.evaluate_run.evaluate_run", evaluate_run)
    assert "not enough memory" in refused("eval", policy)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ModuleNotFoundError("no", name="automl_ext.rl.gone")])
def test_an_error_of_the_program_is_not_an_error_of_the_user(
    error: Exception, monkeypatch: pytest.MonkeyPatch, policy: Path
) -> None:
    def evaluate_run(*_: object) -> None:
        raise error

    monkeypatch.setattr("automl_ext.rl.reports.evaluate_run.evaluate_run", evaluate_run)
    with pytest.raises(type(error)):
        command("eval", policy)
