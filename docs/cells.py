"""Cell magics for the tutorials, imported by their hidden first cell. They stop the build at errors."""

from __future__ import annotations

import os
import subprocess

from IPython.core.magic import register_cell_magic

os.environ.pop("FORCE_COLOR", None)  # set by the kernel
os.environ["COLUMNS"] = "100"


@register_cell_magic
def bash(line: str, cell: str) -> None:
    """Replace IPython's ``%%bash``, which breaks output lines and ignores all failures except the last."""
    done = subprocess.run(["bash", "-e", "-c", cell], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    print(done.stdout, end="")
