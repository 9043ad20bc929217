"""The environment of a run, and the check whether a checkpoint can be resumed in the current environment."""

from __future__ import annotations

import datetime
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from automl_ext import __version__, _native, build_info
from automl_ext.training import ranks
from automl_ext.training.config import check_options, check_same, increased
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

# A checkpoint can be resumed if these facts differ, but numbers may then differ in the last bit.
MAY_DIFFER = {
    "automl_ext": "automl_ext version",
    "backend": "backend",
    "instruction_set": "CPU instruction set",
    "cpu": "CPU",
    "gpu": "GPU",
}


def environment() -> dict[str, Any]:
    """Return the content of ``environment.json``: versions, build, threads, hardware, command line and UTC time."""
    info = build_info()
    native = _native.is_loaded() and _native.current_backend() != "reference"
    return {
        "automl_ext": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "build_info": info,
        "backend": "native" if native else "reference",
        "instruction_set": info.get("instruction_set") if native else None,
        "threads": torch.get_num_threads(),
        "ranks": ranks.count(),
        "cpu": cpu_name(),
        # Only where choose_device has initialized the GPU: reading its name would allocate memory on it.
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_initialized() else None,
        "platform": platform.platform(),
        "command_line": list(sys.argv),
        "time_started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def cpu_name() -> str:
    """Return the processor's model name, or its architecture where the system does not report one."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def check_compatible(name: str, stored: dict[str, Any], given: dict[str, Any], config: Any) -> None:
    """Check that a run resumed from a checkpoint will give the result of the uninterrupted run.

    An option that the stored configuration lacks is new in this version. It is compared as if its default had been
    stored. The default of a new option must therefore keep the former behavior.

    Args:
        name: the name of the checkpoint, for messages.
        stored, given: ``algorithm``, ``config`` and ``environment``, in dicts.
        config: the dataclass of ``given["config"]``.

    Raises:
        UserError: the algorithm, torch's minor version, a number of threads or of ranks, or the configuration
            differs; the message says what to set. Or the stored configuration has an option that this version does not
            have; the message names the version that wrote it.
    """
    if stored["algorithm"] != given["algorithm"]:
        raise UserError(
            f"{name} belongs to algorithm {stored['algorithm']!r}, not {given['algorithm']!r}: "
            f"resume it with {stored['algorithm']!r} or choose another --out"
        )
    was, now = stored["environment"], given["environment"]
    check_options(name, stored["config"], given["config"], was.get("automl_ext"))
    if not isinstance(was.get("torch"), str) or not all(type(was.get(key)) is int for key in ("threads", "ranks")):
        raise UserError(f"{name}: its environment lacks torch's version or the number of threads or ranks")
    if was["torch"].split(".")[:2] != now["torch"].split(".")[:2]:
        minor = ".".join(was["torch"].split(".")[:2])
        raise UserError(
            f"{name} was made with torch {was['torch']}, this is torch {now['torch']}: install torch {minor}"
        )
    if was["threads"] != now["threads"]:
        raise UserError(
            f"{name} was made with {was['threads']} threads, now there are {now['threads']}: "
            f"set OMP_NUM_THREADS={was['threads']} (or call torch.set_num_threads({was['threads']}))"
        )
    threads = now.get("worker_threads")
    if (before := was.get("worker_threads", threads)) != threads:
        raise UserError(
            f"{name} was made with {short(before)} threads per process, now there are {threads}: "
            "the threads are divided among the --workers, resume it with as many as before"
        )
    if was["ranks"] != now["ranks"]:
        raise UserError(
            f"{name} was made by {was['ranks']} processes, now there are {now['ranks']}: use torchrun with as many"
        )
    check_same(name, stored["config"], config, increased(stored["config"], config))
    for key, label in MAY_DIFFER.items():
        if was.get(key) != now[key]:
            warnings.warn(
                f"{name} was made with {label} {was.get(key) or 'none'}, now it is {now[key] or 'none'}: "
                "the result may differ from the uninterrupted one in the last bits",
                stacklevel=5,
            )
