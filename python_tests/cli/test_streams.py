"""What commands write to standard output and error: closed streams and pipes, narrow terminals, long values."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fresh_python
import pytest

from automl_ext.training.progress import Progress, say

LONG = "x" * 5000


def entered(arguments: list[str], before: str = "", **environment: str) -> tuple[int, str, str]:
    """Run the console script's function in a process of its own, which ends after a minute at the latest."""
    code = (
        f"import os, signal, sys\nfrom automl_ext_cli.entry import main\nsignal.alarm(60)\n{before}\n"
        f"try: code = main({arguments!r})\nexcept SystemExit as end: code = end.code\n"
        "os.write(2, b'noise')\nsys.exit(code)\n"
    )
    return fresh_python.run(code, **environment)


def test_a_closed_pipe_ends_a_command_silently() -> None:
    read, write = os.pipe()
    os.close(read)  # as `head` does
    with os.fdopen(write, "w") as pipe:
        script = Path(sys.executable).with_name("automl-ext")
        done = subprocess.run([script, "--help"], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
    close = "read, write = os.pipe(); os.close(read); os.dup2(write, 1); os.close(write)"
    assert entered(["tune", "--help"], close) == (128 + signal.SIGPIPE, "", "noise")  # printed after torch is loaded


@pytest.mark.parametrize(
    ("closed", "arguments"),
    [((2,), ["train", "a2c"]), ((1,), ["train", "a2c", "--help"]), ((0, 1, 2), ["train", "a2c", "--json"])],
)
def test_a_closed_stream_does_not_stop_a_command(closed: tuple[int, ...], arguments: list[str], tmp_path: Path) -> None:
    """Its descriptor must not become that of a file of the run, to which libraries in C would print."""
    small = ["--total-steps", "16", "--eval-episodes", "1", "--final-episodes", "1", "--eval-max-steps", "2"]
    streams = ("stdin", "stdout", "stderr")
    before = "\n".join(f"os.close({number}); sys.{streams[number]} = None" for number in closed)
    status, out, _ = entered([*arguments, *small, "--out", str(tmp_path / "run")], before)
    assert status == 0
    assert ("finished" in out) == (closed == (2,))
    if "--help" not in arguments:
        lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        assert ["eval_return" in json.loads(line) for line in lines] == [True]


def test_progress_without_standard_error_prints_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(1, "train") as progress:
        progress.report(1, {"loss": 0.5})
        say("continues")
    assert capsys.readouterr().out == ""


def test_help_has_an_end_in_the_narrowest_terminal() -> None:
    status, out, _ = entered(["eval", "--help"], COLUMNS="1")
    assert (status, "--episodes" in out) == (0, True)


@pytest.mark.parametrize("arguments", [[], ["tune"]])
def test_the_usage_of_no_command_goes_to_standard_error(
    arguments: list[str], command: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = command(*arguments)
    assert (code, out, err.partition(" COMMAND")[0].partition(" tune")[0]) == (2, "", "usage: automl-ext")


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


@pytest.mark.parametrize("kind", ["__del__", "callback"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_where_python_ignores_exceptions(kind: str, number: signal.Signals) -> None:
    """A run that went on would print a traceback and its result."""
    code = f"""
import signal, weakref
from automl_ext.training.ctrl_c import interruptible, sigterm_as_ctrl_c

class Thing:
    if {kind == "__del__"}:
        def __del__(self):
            signal.raise_signal({int(number)})
            "here the handler runs".upper()

thing = Thing()
if {kind == "callback"}:
    weakref.finalize(thing, signal.raise_signal, {int(number)})
signal.signal(signal.SIGINT, signal.SIG_DFL)
with interruptible(), sigterm_as_ctrl_c():
    del thing
    print("goes on")
"""
    assert fresh_python.run(code) == (-number, "", "")
