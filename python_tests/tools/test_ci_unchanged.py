""".ci/unchanged: a part of CI is left out only if nothing that it depends on has changed since it passed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from paths import ROOT


def test_a_part_runs_again_after_a_change(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/unchanged", tmp_path / ".ci")
    for name in ("csrc/a.cuh", "cpp_tests/test.cpp", "setup.py", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("build/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)

    def unchanged(*arguments: str, **variables: str) -> int:
        command = [sys.executable, ".ci/unchanged", *arguments]
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **variables}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode

    parts = ("cuda-build", "sanitizers")
    assert [unchanged(part) for part in parts] == [1, 1]
    assert [unchanged("--record", part) for part in parts] == [0, 0]
    (tmp_path / "csrc/build").mkdir()
    (tmp_path / "csrc/build/ignored").touch()
    (tmp_path / "python_tests").mkdir()
    (tmp_path / "python_tests/other.py").touch()
    assert [unchanged(part) for part in parts] == [0, 0]
    assert [unchanged(part, CXX=sys.executable) for part in parts] == [1, 1]  # another compiler
    assert [unchanged(part, XDG_CACHE_HOME=str(tmp_path / "fresh")) for part in parts] == [1, 1]  # another machine
    (tmp_path / "cpp_tests/test.cpp").write_text("changed")
    assert [unchanged(part) for part in parts] == [0, 1]
    (tmp_path / "csrc/new.cuh").touch()
    assert [unchanged(part) for part in parts] == [1, 1]
    assert unchanged("--record", "cuda-build") == 0
    (tmp_path / "csrc/new.cuh").rename(tmp_path / "csrc/other.cuh")
    assert [unchanged(part) for part in parts] == [1, 1]
    assert unchanged("docs") == unchanged() == 1
