"""The Python cells of the tutorial on agents run; its shell cells are commands that other tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from paths import ROOT

CELL = re.compile(r"```\{code-cell\} ipython3\n(.*?)```", re.DOTALL)


def test_step_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs/tutorials/train-agents.md").read_text().split("## Step 4")[1]
    cells = CELL.findall(section)
    assert len(cells) == 2
    names: dict[str, object] = {"__name__": "tutorial"}
    for cell in cells:
        exec(cell, names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2] == "[1 1 0 0]"  # as the text says
    assert (tmp_path / "line.pt").exists()
