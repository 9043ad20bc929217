"""Ctrl-C ends the installed script at any moment, without a traceback; tools/interrupts.py tries many moments."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import interrupts
import pytest

# Modules that are interrupted while they are imported, and turn the KeyboardInterrupt into another error.
INTERRUPTED = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except BaseException:
    raise ImportError("cannot load module more than once per process")
"""


@pytest.mark.parametrize("moment", [0.3, pytest.param(1.0, marks=pytest.mark.slow), 3.0])
def test_commands_are_interrupted_at_any_moment(tmp_path: Path, moment: float) -> None:
    end, right = interrupts.interrupted("train a2c --total-steps 10000000", moment, True, tmp_path)
    assert right, end
    assert end != "ended before the interrupt"


def test_an_interrupt_while_torch_is_imported_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(INTERRUPTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert interrupts.interrupted("doctor", 30.0, False, tmp_path) == ("killed by SIGINT", True)


@pytest.mark.slow
def test_an_interrupt_during_a_later_import_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(INTERRUPTED)
    code = (
        "import signal; from automl_ext.training.ctrl_c import interrupt, interruptible\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "with interruptible():\n"
        "    assert signal.getsignal(signal.SIGINT) is interrupt\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt: print('raised', flush=True)\n"
        "    import library\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "raised\n", "")
