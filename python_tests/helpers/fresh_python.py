"""Run code in a new process, to test choices made once per process: backend, instruction set, imports.

The import of torch takes seconds. So :func:`run` forks a process that has imported torch and nothing else. Only what
must not find torch loaded, or needs its process at once, takes :func:`start`, a new interpreter.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import automl_ext

# An editable install adds a finder that would fill what a copied package lacks from the original.
_NO_EDITABLE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
PACKAGE = pathlib.Path(automl_ext.__file__).parent
SECONDS = 300  # the longest time that code may take

# Forks once per line of standard input, a job, and prints the exit code of the fork.
_SERVER = f"""
import atexit, json, os, signal
import torch

for line in sys.stdin:
    job = json.loads(line)
    if (child := os.fork()) == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()  # the tests have ended
signal.alarm({SECONDS})
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, path in enumerate(job["output"], 1):
    os.dup2(os.open(path, os.O_WRONLY), number)
os.environ.clear()
os.environ.update(job["environment"])
os.chdir(job["root"])
sys.path.insert(0, job["root"])
try:
    exec(compile(job["code"], "<string>", "exec"))
except SystemExit as end:
    if type(end.code) not in (int, type(None)):
        raise
    status = end.code or 0
else:
    status = 0
atexit._run_exitfuncs()
for stream in filter(None, (sys.stdout, sys.stderr)):
    stream.flush()
os._exit(status & 0xFF)  # to free what torch has imported takes half a second
"""


def _environment(root: pathlib.Path, **given: str) -> dict[str, str]:
    """Return the environment of a process; AUTOML_EXT_* variables are unset unless given."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AUTOML_EXT_")}
    return env | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **given}


def start(code: str, root: pathlib.Path = PACKAGE.parent, **environment: str) -> subprocess.Popen[str]:
    """Start ``python -c code`` with root/automl_ext as the package and these variables of the environment."""
    return subprocess.Popen(
        [sys.executable, "-c", _NO_EDITABLE + code],
        cwd=root,
        env=_environment(root, **environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@functools.cache
def _server() -> subprocess.Popen[str]:
    return start(_SERVER, pathlib.Path(tempfile.gettempdir()))


def run(code: str, root: pathlib.Path = PACKAGE.parent, **environment: str) -> tuple[int, str, str]:
    """Run code as :func:`start` does, in a process that has torch loaded. Return (exit code, stdout, stderr)."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with (
        tempfile.NamedTemporaryFile("r", encoding="utf-8") as out,
        tempfile.NamedTemporaryFile("r", encoding="utf-8") as err,
    ):
        job = {"code": code, "root": str(root), "environment": _environment(root, **environment)}
        server.stdin.write(json.dumps(job | {"output": [out.name, err.name]}) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return status, out.read(), err.read()


def facts(code: str, root: pathlib.Path = PACKAGE.parent, **environment: str) -> Any:
    """Run the code. Return the JSON value that it printed."""
    status, out, err = run(code, root, **environment)
    assert status == 0, err
    return json.loads(out)
