"""The Python blocks of README and the how-to pages work. `make first-hour` runs the commands of README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Tested elsewhere: test_estimators_page.py, test_extending.py, test_source.py, test_migrating.py. Tutorials run in
# `make docs`.
ELSEWHERE = {"nas-estimation.md", "extending.md", "extending-nas.md", "migrating.md"}
PAGES = [ROOT / "README.md"] + [
    page for page in sorted(ROOT.glob("docs/*.md")) if PYTHON.search(page.read_text()) and page.name not in ELSEWHERE
]


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks(page: Path, tmp_path: Path) -> None:
    """One process per page: later blocks use the names of earlier ones."""
    code = "\n".join(PYTHON.findall(page.read_text()))
    done = run(["-W", "error::DeprecationWarning:__main__", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr


def test_it_has_enough_examples() -> None:
    assert len(PYTHON.findall(README)) >= 4
    assert {page.name for page in PAGES} >= {"README.md", "rl.md", "nas-search.md", "rl-offline.md", "rl-tabular.md"}
    assert "make test" in README
