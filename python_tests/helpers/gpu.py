"""The device of the tests marked `cuda`, and why they cannot run.

`AUTOML_EXT_TEST_GPU=cpu pytest -m cuda` rehearses them on the CPU: all but those that need a real GPU.
"""

from __future__ import annotations

import os

import pytest
import torch

from automl_ext import _native

GPU = os.environ.get("AUTOML_EXT_TEST_GPU", "cuda")
REHEARSAL = GPU == "cpu"


def why_no_gpu() -> str | None:
    """Return why the tests marked cuda cannot run here; None if they can."""
    if REHEARSAL:
        return None
    if torch.version.cuda is None:
        return "no GPU: torch is built without CUDA"
    if not torch.cuda.is_available():
        return "no GPU is found"
    if _native.current_backend() == "reference":
        return "the native library is not in use"
    return _native.why_not_native(torch.device(GPU))


def required() -> None:
    """Skip the file that calls this unless its tests can run: its hundreds of cases are then not even collected."""
    if reason := why_no_gpu():
        pytest.skip(reason, allow_module_level=True)
