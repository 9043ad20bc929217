"""The commands of docs/how-to/tables.md run, with a small budget, after the block that writes their files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

PAGE = (ROOT / "docs/how-to/tables.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("automl-ext")
]


@pytest.mark.slow
def test_the_commands_run(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(COMMANDS) == 4
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {})
    for line in COMMANDS:
        code, _, errors = command(
            *shlex.split(line.replace("--minutes 1", "--minutes 0.05").replace("--trials 10", "--trials 2"))[1:]
        )
        assert code == 0, errors
    for written in ("runs/tumors/report.html", "predictions.csv", "runs/tuned/result.json", "lightgbm.csv"):
        assert (tmp_path / written).is_file()
