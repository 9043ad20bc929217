"""Run a build command and show its progress, one line per compiled file.

    python tools/build_progress.py LOG COMMAND…

The whole output goes to the file LOG. If the command fails, the last lines of its output are printed. The exit code is
the command's.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SHOWN = re.compile(r"\s*(\[\d+/\d+\] \S+$|automl_ext: .*|Downloading \S+ \(.*\))")  # the first: a file, see setup.py
LAST_LINES = 40


def progress(line: str) -> str | None:
    """Return what to show of an output line; None: nothing."""
    shown = SHOWN.match(line)
    return shown[1] if shown else None


def main(argv: Sequence[str]) -> int:
    log, *command = argv
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    lines = []
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            file.flush()
            lines.append(line)
            text = progress(line)
            if text is not None:
                print(text, flush=True)
    if process.returncode:
        print(*lines[-LAST_LINES:], f"failed; the full output is in {log}", sep="", file=sys.stderr)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
