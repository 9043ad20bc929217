"""A run that fails before its first measurement leaves no files; a full disk does not damage saved files."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from training_helpers import logged, make, train

from automl_ext.training.errors import UserError
from automl_ext.training.files import atomic
from automl_ext.training.run import Run


@contextlib.contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """Limit files to ``largest`` bytes: the kernel refuses further writes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("error", [UserError("no data"), ValueError("bad"), OSError(28, "full"), ImportError("extra")])
def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    out = tmp_path / "a" / "b"
    with pytest.raises(type(error)), make(out):
        raise error
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)
    with pytest.raises(type(error)), make(out):
        raise error
    assert list(out.iterdir()) == []


def fail_after(action: Callable[[Run], None], run: Run) -> None:
    action(run)
    raise UserError("diverged")


def test_what_was_there_or_was_measured_stays(tmp_path: Path) -> None:
    for number, action in enumerate((lambda r: r.log(1, loss=1.0), lambda r: r.save(1, {}), lambda r: r.finish({}))):
        out = tmp_path / str(number)
        with pytest.raises(UserError), make(out) as run:
            fail_after(action, run)
        assert (out / "config.json").is_file()
        with pytest.raises(UserError), make(out, resume="auto"):
            raise UserError("refused")
        assert (out / "config.json").is_file()
    with pytest.raises(KeyboardInterrupt), make(tmp_path / "interrupted"):
        raise KeyboardInterrupt
    assert (tmp_path / "interrupted/config.json").is_file()
    with pytest.raises(UserError, match="no checkpoint at"):
        make(tmp_path / "none" / "run", resume=str(tmp_path / "step-1"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("tensorboard", [True, False])
def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensorboard: bool
) -> None:
    if not tensorboard:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(tmp_path)
    steps = sorted((tmp_path / "checkpoints").iterdir())
    with (
        make(tmp_path, resume="auto") as run,
        full_disk(20_000),
        pytest.raises(OSError, match=r"File too large: '.*state\.pt'"),
    ):
        run.save(4, {"w": torch.zeros(100_000)})
    assert sorted((tmp_path / "checkpoints").iterdir()) == steps
    room = (tmp_path / "metrics.jsonl").stat().st_size + 5
    with (
        pytest.raises(OSError, match=r"File too large: '.*metrics\.jsonl'"),
        make(tmp_path, resume="auto") as run,
        full_disk(room),
    ):
        run.log(4, loss=0.5)
    with make(tmp_path, resume="auto") as run:
        assert run.step == 3
        assert logged(tmp_path) == [1, 2, 3]


def test_torch_says_so_when_the_disk_is_full() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        atomic.save_tensors({"w": torch.zeros(100_000)}, Path("/dev/full"))


def test_a_failed_write_keeps_the_file_of_before_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic.write_atomic(path, b"before")
    with full_disk(100), pytest.raises(OSError, match=r"File too large: '.*a\.json'"):
        atomic.write_atomic(path, bytes(1000))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_may_be_a_pipe_or_a_symbolic_link(tmp_path: Path) -> None:
    pipe, real, link = tmp_path / "pipe", tmp_path / "real.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(real)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (pipe, link):
            atomic.check_writable(path)
            atomic.write_output(path, b"rows")
        assert os.read(reader, 10) == b"rows"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert real.read_bytes() == b"rows"
    with pytest.raises(OSError, match="not a regular file: '/dev/null'"):
        atomic.write_atomic(Path("/dev/null"), b"")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory")
def test_a_file_below_dev_is_a_file() -> None:
    path = Path("/dev/shm") / f"automl_ext-{os.getpid()}.csv"
    try:
        for data in (b"before", b"rows"):
            atomic.check_writable(path)
            atomic.write_output(path, data)
        assert path.read_bytes() == b"rows"
    finally:
        path.unlink()


@pytest.mark.slow
def test_standard_output_may_be_a_file_that_others_write_too(tmp_path: Path) -> None:
    script = "from pathlib import Path; from automl_ext.training.files import atomic\n"
    script += "atomic.check_writable(Path('/dev/stdout')); atomic.write_output(Path('/dev/stdout'), b'rows')"
    with (tmp_path / "all.csv").open("w") as file:
        for words in (["printf", "before "], [sys.executable, "-c", script], ["printf", " after"]):
            subprocess.run(words, stdout=file, check=True)
    assert (tmp_path / "all.csv").read_text() == "before rows after"


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(300), pytest.raises(UserError, match=r"cannot use the run directory .*: .*File too large"):
        make(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "environment.json", "result.json"])
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    train(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: expected a regular file"):
        make(tmp_path, resume="auto")


HOSTILE = [b"", b"\xff\xfe\x00", b"[]", b'"x"', b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"1" * 5000]


@pytest.mark.parametrize("name", ["config.json", "environment.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.filterwarnings("ignore:.*has lost lines")
def test_damaged_files_beside_a_good_checkpoint_do_not_matter(tmp_path: Path, name: str, content: bytes) -> None:
    train(tmp_path, 1)
    (tmp_path / name).write_bytes(content)
    with make(tmp_path, resume="auto") as run:
        assert run.step == 1
