"""tools/cuda_day.py: a part that fails or hangs ends alone, and results are written as they are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cuda_day
import pytest
from cuda_day import Day
from paths import ROOT

WITH_CHILD = "sleep 60 & echo $!; wait"  # the child ignores interrupts
# Measures rows 0 to 3 from the one in argv[2] on, and dies at row 1.
DIES = """
import json, os, sys
for row in range(int(sys.argv[2]), 4):
    print("measuring", row, flush=True)
    if row == 1:
        os._exit(7)
    open(sys.argv[1], "a").write(json.dumps({"part": "times", "row": str(row)}) + "\\n")
"""
BREAKS = """
import torch

def broken():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

def test_breaks(monkeypatch):
    torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, broken
    assert False, "the reason"

def test_after():
    assert not torch.cuda.is_initialized()
"""


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def logs(day: Day) -> dict[str, str]:
    with tarfile.open(day.out / "logs.tar") as tar:
        return {name: tar.extractfile(name).read().decode() for name in tar.getnames()}  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_process_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    day = Day(tmp_path)
    status, text = day.run("hangs", ["sh", "-c", WITH_CHILD], 0.5)
    assert status == "out of time"
    end = time.monotonic() + 10
    while is_alive(int(text)) and time.monotonic() < end:  # a busy machine kills it later
        time.sleep(0.02)
    assert not is_alive(int(text))
    assert day.run("fails", [sys.executable, "-c", "print('said'); exit(3)"], 60) == ("exit status 3", "said\n")
    assert sorted(logs(day)) == ["fails.log", "hangs.log"]
    assert logs(day)["fails.log"] == "said\n"
    assert [path.name for path in tmp_path.iterdir()] == ["logs.tar"]


def test_rows_after_one_that_dies_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = Day(tmp_path)
    day.record({"part": "times", "row": "of an earlier call"})
    monkeypatch.setattr(
        Day, "part", lambda self, name, skip: [sys.executable, "-c", DIES, tmp_path / "rows.jsonl", skip]
    )
    assert not cuda_day.times(day)
    *rows, end = day.rows("times")[1:]
    assert [row["row"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1]["failed"] == "exit status 7"
    assert end["status"] == "failed: 1"


def test_nothing_else_runs_without_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(cuda_day, "has_cuda", lambda: True)
    for name in cuda_day.PARTS:
        monkeypatch.setitem(cuda_day.PARTS, name, lambda day, name=name: ran.append(name) or name == "import")
    assert cuda_day.main([str(tmp_path)]) == 1
    assert ran == ["device"]
    assert cuda_day.main([str(tmp_path), "once", "bench"]) == 1
    assert ran == ["device", "once", "bench"]
    assert cuda_day.main([str(tmp_path), "import"]) == 0
    with pytest.raises(SystemExit):
        cuda_day.main([str(tmp_path), "benhc"])


@pytest.mark.parametrize("packed", [False, True])
def test_objects_built_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    built, root = tmp_path / "built/automl_ext", tmp_path / "root"
    for folder in (built, root / "automl_ext"):
        folder.mkdir(parents=True)
    for name in ("_kernels.abi3.so", "_build.py", "__init__.py"):
        (built / name).write_text("CUDA_VERSION = '13.0'")
    source = tmp_path / "built"
    if packed:
        source = tmp_path / "objects.tar.gz"
        with tarfile.open(source, "w:gz") as tar:
            tar.add(built, "automl_ext")
    monkeypatch.setattr(cuda_day, "ROOT", root)
    assert not cuda_day.has_cuda()
    cuda_day.take_objects(source)
    assert sorted(path.name for path in (root / "automl_ext").iterdir()) == ["_build.py", "_kernels.abi3.so"]
    assert cuda_day.has_cuda()


def test_results_of_tests_are_read_from_the_log() -> None:
    text = "[gw0] [  1%] PASSED a.py::test_b[(7, 5003)] \n[gw1] [  2%] FAILED a.py::test_c \n[gw1] node down\n"
    assert cuda_day.RESULT.findall(text) == [("PASSED", "a.py::test_b[(7, 5003)]"), ("FAILED", "a.py::test_c")]


@pytest.mark.slow
def test_a_worker_with_a_broken_context_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text(BREAKS)
    command = [sys.executable, "-m", "pytest", "-v", "-n", "1", "-p", "fresh_worker", "--rootdir", tmp_path, tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "python_tests/helpers"), "PYTEST_ADDOPTS": ""}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    shown = process.stdout + process.stderr
    assert "1 failed, 1 passed" in process.stdout, shown
    assert "the reason" in shown
    assert [result for result, _ in cuda_day.RESULT.findall(process.stdout)] == ["FAILED", "PASSED"]


@pytest.mark.slow
def test_parts_run_on_the_cpu(tmp_path: Path) -> None:
    """`make cuda-test` runs them on a GPU."""
    command = [sys.executable, ROOT / "tools/cuda_day.py", tmp_path, "device", "import", "times"]
    environment = os.environ | {"AUTOML_EXT_TEST_GPU": "cpu"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert all(row["rehearsal"] for row in rows)
    measured = {row["row"]: row for row in rows if "row" in row}
    assert measured["entmax15 (64, 32000)"]["read"] == 15
    assert measured["mixed_op (8, 1048576), backward"]["microseconds"] > 0
    assert not any("failed" in row for row in rows)
