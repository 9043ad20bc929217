"""The Python blocks of README and the how-to pages work. `make first-hour` runs the commands of README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from paths import ROOT

PYTHON = re.compile(r"```python\n(?! )(.*?)```", re.DOTALL)  # an indented block is a part of another file
# Tested elsewhere: test_fitting.py, test_estimators_page.py, test_extending.py, test_source.py, test_migrating.py,
# test_language_models.py.
# Tutorials run in `make docs`.
ELSEWHERE = {"images.md", "estimation.md", "extending.md", "extending-nas.md", "language-models.md", "migrating.md"}
PAGES = [ROOT / "README.md"] + [
    page for page in sorted(ROOT.glob("docs/**/*.md")) if PYTHON.search(page.read_text()) and page.name not in ELSEWHERE
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings("error::DeprecationWarning:__main__")
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in one namespace: later blocks use the names of earlier ones."""
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(PYTHON.findall(page.read_text())), page.name, "exec"), {"__name__": "__main__"})
