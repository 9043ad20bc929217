"""The Python blocks of docs/how-to/estimation.md, run in order."""

from __future__ import annotations

import re

import pytest
from paths import ROOT

TEXT = (ROOT / "docs/how-to/estimation.md").read_text()


def test_python_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/how-to/estimation.md", "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == 6
