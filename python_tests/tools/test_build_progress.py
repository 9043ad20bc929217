"""tools/build_progress.py: it shows compiled files, keeps the whole output, and passes on the exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import build_progress
import pytest

NINJA = "  [2/58] csrc/entmax/entmax_cpu.cpp"


def test_a_compiled_file_is_one_short_line() -> None:
    assert build_progress.progress(NINJA) == "[2/58] csrc/entmax/entmax_cpu.cpp"
    assert build_progress.progress("  [1/1] c++ -shared a.o b.o -o _C.so") is None
    assert build_progress.progress("  automl_ext: CUDA: no: torch is a CPU build") == (
        "automl_ext: CUDA: no: torch is a CPU build"
    )
    assert (
        build_progress.progress("  Downloading torch-2.13.0.whl (190.0 MB)")
        == "Downloading torch-2.13.0.whl (190.0 MB)"
    )
    assert build_progress.progress("  running build_ext") is None


@pytest.mark.parametrize("code", [0, 3])
def test_output_log_and_exit_code(code: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "new/build.log"
    program = f"import sys; print('first'); print({NINJA!r}); print('why', file=sys.stderr); sys.exit({code})"
    assert build_progress.main([str(log), sys.executable, "-u", "-c", program]) == code
    assert log.read_text() == f"first\n{NINJA}\nwhy\n"
    out, err = capfd.readouterr()
    assert out == "[2/58] csrc/entmax/entmax_cpu.cpp\n"
    assert ("why" in err and str(log) in err) == bool(code)
