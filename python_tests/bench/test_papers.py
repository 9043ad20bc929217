"""``benchmarks/papers.py``: its commands are those of scripts that exist, with options that these have."""

from __future__ import annotations

import runpy
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_commands_have_scripts_and_options() -> None:
    for command in runpy.run_path(str(ROOT / "benchmarks/papers.py"))["COMMANDS"].values():
        script, *words = shlex.split(command)
        text = (ROOT / script).read_text()
        for word in words:
            assert not word.startswith("--") or f'add_argument("{word}"' in text, (script, word)
