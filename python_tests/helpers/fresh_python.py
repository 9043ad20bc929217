"""Run code in a new interpreter, to test choices made once per process: backend, instruction set, imports."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import automl_ext

# An editable install adds a finder that would fill what a copied package lacks from the original.
_NO_EDITABLE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
PACKAGE = pathlib.Path(automl_ext.__file__).parent


def start(code: str, root: pathlib.Path = PACKAGE.parent, **environment: str) -> subprocess.Popen:
    """Start `python -c code` with root/automl_ext as the package; AUTOML_EXT_* variables are unset unless given."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AUTOML_EXT_")}
    env |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", _NO_EDITABLE + code],
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(code: str, root: pathlib.Path = PACKAGE.parent, **environment: str) -> tuple[int, str, str]:
    """Run the code. Return (exit code, stdout, stderr)."""
    process = start(code, root, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def facts(code: str, root: pathlib.Path = PACKAGE.parent, **environment: str) -> Any:
    """Run the code. Return the JSON value that it printed."""
    status, out, err = run(code, root, **environment)
    assert status == 0, err
    return json.loads(out)
