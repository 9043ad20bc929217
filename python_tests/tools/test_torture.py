"""tools/torture: its model of disks, its reading of strace's output, and that it notices a planted fault."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from paths import ROOT
from torture.commands import durable_step, false_claim
from torture.disks import Disks, Files, key
from torture.operations import Operation, parse, record

FOLDER = Operation("mkdir", "run")
NEW = (Operation("create", "run/.tmp"), Operation("write", "run/.tmp", data=b"word"))
FILE_SYNCED, FOLDER_SYNCED = Operation("fsync", "run/.tmp"), Operation("fsync", "run")
RENAMED = Operation("rename", "run/.tmp", "run/result.json")


def found(operations: Sequence[Operation], path: str) -> set[bytes | str | None]:
    """Return the contents that a file has on any disk; None: it is missing."""
    disks = Disks(operations)
    return {disks.files(case).get(path) for case in disks.cases(random.Random(0))}


def at_the_end(operations: Sequence[Operation]) -> list[Files]:
    disks = Disks(operations)
    return [disks.files(case) for case in disks.cases_at(len(disks.effects), random.Random(0))]


def claims(operations: Sequence[Operation]) -> set[str]:
    disks = Disks(operations)
    every = (false_claim(disks, case, disks.files(case)) for case in disks.cases(random.Random(0)))
    return {claim for claim in every if claim is not None}


def test_a_rename_may_arrive_without_the_bytes_that_were_not_synced() -> None:
    unsafe, safe = [FOLDER, *NEW, RENAMED, FOLDER_SYNCED], [FOLDER, *NEW, FILE_SYNCED, RENAMED, FOLDER_SYNCED]
    assert found(unsafe, "run/result.json") == {None, b"", b"wo", bytes(4), b"word"}
    assert found(safe, "run/result.json") == {None, b"word"}
    assert claims(unsafe) == {"run/result.json is there, but run/result.json differs"}
    assert claims(safe) == set()


def test_what_the_result_speaks_of_must_be_there_too() -> None:
    model = [Operation("create", "run/model"), Operation("write", "run/model", data=b"12")]
    result = [*NEW, FILE_SYNCED, RENAMED, FOLDER_SYNCED]
    assert claims([FOLDER, *model, *result]) == {"run/result.json is there, but run/model differs"} | {
        "run/result.json is there, but run/model is missing"
    }
    synced = [*model, Operation("fsync", "run/model"), FOLDER_SYNCED]
    assert claims([FOLDER, *synced, *result]) == set()
    assert claims([FOLDER, *synced, *result, Operation("truncate", "run/model", place=0)]) == set()
    trial = [
        Operation("mkdir", "run/0"),
        Operation("mkdir", "run/0/tensorboard"),
        Operation("fsync", "run/0"),
        FOLDER_SYNCED,
    ]
    events = Operation("create", "run/0/tensorboard/events")
    later = Operation("create", "run/later")
    assert claims([FOLDER, *trial, events, *result, later]) == set()  # not promised


def test_names_are_certain_only_after_the_sync_of_their_folder() -> None:
    deleted = [FOLDER, *NEW, FILE_SYNCED, FOLDER_SYNCED, Operation("unlink", "run/.tmp")]
    after = [*deleted, Operation("create", "run/next")]
    assert {files.get("run/.tmp") for files in at_the_end(after)} == {None, b"word"}
    last = at_the_end([*after, FOLDER_SYNCED, Operation("create", "run/last")])
    assert all("run/.tmp" not in files and "run/next" in files for files in last if files)
    assert {} in last  # the folder itself was never synced
    assert len({key(files) for files in last}) == 3


def test_a_checkpoint_is_durable_with_the_sync_of_its_folder() -> None:
    operations = [FOLDER, Operation("mkdir", "run/checkpoints"), Operation("mkdir", "run/checkpoints/.tmp")]
    operations.append(Operation("rename", "run/checkpoints/.tmp", "run/checkpoints/step-00000007"))
    operations.append(Operation("fsync", "run/checkpoints"))
    assert [durable_step(Disks(operations), end) for end in range(6)] == [-1, -1, -1, -1, -1, 7]


def test_positions_of_writes() -> None:
    def text(*parts: str) -> list[str]:
        return ["".join(f"\\x{byte:02x}" for byte in part.encode()) for part in parts]

    a, b, one, two, root = text("/d/a", "/d/b", "12", "34", "/d")
    lines = [
        f'7 openat(AT_FDCWD<{root}>, "{a}", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 3<{a}>',
        f'7 write(3<{a}>, "{one}", 2 <unfinished ...>',
        f"8 fsync(4<{root}> <unfinished ...>",
        "7 <... write resumed>)             = 2",
        f'7 rename("{a}", "{b}")            = 0',
        "8 <... fsync resumed>)             = 0",
        f'7 unlink("{a}") = -1 ENOENT (No such file or directory)',
        f'7 write(3<{b}>, "{two}", 2)       = 1',
        f"7 lseek(3<{b}>, 0, SEEK_SET)      = 0",
        f'7 write(3<{b}>, "{two}", 2)       = 2',
        f'7 openat(AT_FDCWD<{root}>, "{b}", O_WRONLY|O_CREAT|O_APPEND, 0666) = 5<{b}>',
        f'7 writev(5<{b}>, [{{iov_base="{one}", iov_len=2}}, {{iov_base="{two}", iov_len=2}}], 2) = 4',
        f'7 write(3<{b}>(deleted), "{two}", 2) = 2',
        "7 +++ exited with 0 +++",
    ]
    assert list(parse(lines, Path("/d"))) == [
        Operation("create", "a"),
        Operation("truncate", "a", place=0),
        Operation("write", "a", data=b"12", place=0),
        Operation("rename", "a", "b"),
        Operation("fsync", ""),
        Operation("write", "b", data=b"3", place=2),
        Operation("write", "b", data=b"34", place=0),
        Operation("create", "b"),
        Operation("write", "b", data=b"1234", place=None),
    ]
    with pytest.raises(RuntimeError, match="fallocate in b is not understood"):
        list(parse([f"7 fallocate(3<{b}>, 0, 0, 10) = 0"], Path("/d")))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_process_is_recorded(tmp_path: Path) -> None:
    def change() -> None:
        Path("old").mkdir()
        Path("old/file").write_bytes(b"12345")
        os.truncate("old/file", 3)
        os.rename("old", "new")
        with Path("new/file").open("ab") as file:
            file.write(b"!")
            file.flush()
            os.fsync(file.fileno())
        os.symlink("file", "new/link")
        shutil.rmtree("new")

    operations = record(change, tmp_path)
    assert [operation.kind for operation in operations] == [
        *("mkdir", "create", "truncate", "write", "truncate", "rename", "create", "write", "fsync"),
        *("symlink", "unlink", "unlink", "rmdir"),
    ]
    assert found(operations, "new/link") == {None, "file"}
    assert found(operations, "new/file") >= {None, b"123!", b"123"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_runs_survive_a_few_crashes_and_a_missing_fsync_is_noticed(tmp_path: Path) -> None:
    script = """
import os, sys
from automl_ext.training.files import checkpoint
from torture.__main__ import main
options = ["--commands", "a2c", "--out"]
code = main([*options, sys.argv[1], "--states", "15", "--ends", "2"])
checkpoint.fsync_path = lambda path: None
sys.exit(10 * code + main([*options, sys.argv[2], "--states", "25", "--ends", "0"]))
"""
    out = [tmp_path / name for name in ("right.json", "planted.json")]
    path = os.pathsep.join([str(ROOT / "tools"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, out)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    right, planted = (json.loads(file.read_text())["rows"][0] for file in out)
    assert (right["states"], right["faults"], right["ended"]) == (15, 0, 2)
    assert right["resumed"] > 0
    assert planted["faults"] > 0
