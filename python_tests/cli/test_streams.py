"""What commands write to standard output and error: closed pipes, long values."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LONG = "x" * 5000


@pytest.mark.parametrize("arguments", [["--help"], ["tune"]])
def test_a_closed_pipe_ends_a_command_silently(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)  # as `head` does
    with os.fdopen(write, "w") as pipe:
        script = Path(sys.executable).with_name("automl-ext")
        done = subprocess.run([script, *arguments], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("option", ["--preset", "--device", "--out", "--lr", "--body", "unknown option", "no option"])
def test_long_values_are_cut_in_messages(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"unknown option": [f"--{LONG}"], "no option": [LONG]}.get(option, [option, LONG])
    code, _, error = command("train", "a2c", *arguments, "--total-steps", 1)
    assert code == 2
    printed = "".join(error.replace("│", "").split())
    assert "x" * 150 in printed
    assert len(printed) < 1500
