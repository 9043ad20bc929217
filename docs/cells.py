"""What a tutorial's hidden first cell imports: commands that print for a reader, and end the build where they fail."""

from __future__ import annotations

import os
import subprocess

from IPython.core.magic import register_cell_magic

os.environ.pop("FORCE_COLOR", None)  # set by the kernel
os.environ["COLUMNS"] = "100"


@register_cell_magic
def bash(line: str, cell: str) -> None:
    """``%%bash``, in place of IPython's, which breaks lines of output and overlooks all failures but the last."""
    done = subprocess.run(["bash", "-e", "-c", cell], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    print(done.stdout, end="")
