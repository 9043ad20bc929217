"""Load the compiled libraries, and select the backend.

``AUTOML_EXT_BACKEND`` is read once, at import:

- ``auto`` (default): compiled kernels where they exist, the PyTorch reference elsewhere. If the library is missing,
  the first eager call warns once;
- ``native``: a missing library or kernel is an error;
- ``reference``: PyTorch only.

``with automl_ext.backend("reference"):`` selects the backend for a block of code.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import forward_ad

BACKENDS = ("auto", "native", "reference")
OLDEST_TORCH = (2, 10)
REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps <path to the automl_ext source>"


class BackendError(ImportError):
    """The compiled library, or one of its kernels, is required but not available."""


def _check_backend(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def _path(name: str) -> str | None:
    """Return the path of a compiled library beside this file; None if it is missing."""
    here = pathlib.Path(__file__).parent
    return next((str(path) for ending in ("so", "pyd") for path in here.glob(f"{name}.*{ending}")), None)


def _load() -> tuple[bool, str | None, bool]:
    """Load the library of the ops and kernels, which works with every torch from 2.10 on.

    Returns:
        Whether it is loaded; if not, the reason; and whether a library exists but cannot be used.
    """
    global _functions
    path = _path("_kernels")
    if path is None:
        return False, "the compiled library is missing", False
    try:
        importlib.import_module("automl_ext._build")
    except ImportError:
        return False, "the compiled library has no build facts (automl_ext/_build.py is missing)", True
    running = torch.__version__
    if _minor(running) < OLDEST_TORCH:
        return False, f"the library needs torch 2.10 or newer but torch {running} is running", True
    try:
        _functions = ctypes.PyDLL(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: for example an op registered twice
        return False, f"the library fails to load under torch {running}: {error}", True
    return True, None, False


def functions() -> ctypes.PyDLL:
    """Return the functions of the compiled library other than ops, for ctypes. The library must be loaded."""
    assert _functions is not None
    return _functions


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _load_autograd() -> tuple[Any, str]:
    """Import the autograd library for the minor version of torch that is running.

    Returns:
        The module, None if there is none; and a description for :func:`build_info`.
    """
    running = "{}.{}".format(*_minor(torch.__version__))
    name = f"_autograd_{running.replace('.', '_')}"
    reason = f"no autograd library for torch {running}"
    if _path(name) is not None:
        x = torch.empty(0)
        address = ctypes.cast(functions().automl_ext_kernel, ctypes.c_void_p).value
        try:
            module = importlib.import_module(f"automl_ext.{name}")
            module.connect(address, x, x._cdata)
            return module, f"C++ for torch {running}"
        except (ImportError, OSError, RuntimeError) as error:
            reason = f"the autograd library for torch {running} fails to load: {error}"
    return None, f"Python, slower for small tensors ({reason})"


_backend: str = _check_backend(os.environ.get("AUTOML_EXT_BACKEND") or "auto", "AUTOML_EXT_BACKEND")
_functions: ctypes.PyDLL | None = None
_loaded, _why_not, _broken = _load()
autograd: Any
autograd, _autograd_in_use = _load_autograd() if _loaded else (None, "")
_devices: frozenset[str] = frozenset()
_warned = False

if _loaded:
    from automl_ext import _build  # type: ignore[attr-defined,unused-ignore]

    _devices = frozenset({"cpu", "meta"} | ({"cuda"} if _build.CUDA_VERSION else set()))
elif _backend == "native":
    raise BackendError(f"AUTOML_EXT_BACKEND=native, but {_why_not}. Rebuild: {REBUILD}")
elif _broken and _backend == "auto":
    warnings.warn(f"automl_ext: {_why_not}; falling back to PyTorch. Rebuild: {REBUILD}", stacklevel=2)
    _warned = True


def is_loaded() -> bool:
    """Return whether the compiled library is loaded."""
    return _loaded


def current_backend() -> str:
    """Return the selected backend: ``auto``, ``native`` or ``reference``."""
    return _backend


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Select the backend for a block of code: ``auto``, ``native`` or ``reference``.

    The selection affects all threads of the process. Do not enter the block from several threads at once.

    Raises:
        ValueError: the name is unknown.
        BackendError: ``native`` without the compiled library.
    """
    global _backend
    _check_backend(name, "backend")
    if name == "native" and not _loaded:
        raise BackendError(f"backend('native'): {_why_not}. Rebuild: {REBUILD}")
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


def why_not_native(device: torch.device) -> str | None:
    """Return why there is no compiled kernel for ``device``, and how to get one; None if there is one."""
    if not _loaded:
        return f"{_why_not}. Rebuild: {REBUILD}"
    if device.type in _devices:
        return None
    reason = f"the library was built without kernels for {device.type!r}"
    if device.type == "cuda":
        return f"{reason} ({_build.CUDA_DECISION}). Rebuild: AUTOML_EXT_CUDA=1 {REBUILD}"
    return f"{reason}. Rebuild: {REBUILD}"


def forward_mode() -> bool:
    """Return whether forward-mode differentiation is active: in ``forward_ad.dual_level`` or ``torch.func.jvp``."""
    return forward_ad._current_level >= 0


def use_native(x: torch.Tensor) -> bool:
    """Return whether the current backend uses a compiled kernel for tensors on ``x``'s device.

    The kernels have no forward-mode derivatives, and ``torch.onnx.export`` translates only PyTorch's own operations:
    there, all ops use the PyTorch reference.

    Raises:
        BackendError: the backend is ``native`` and there is no kernel for this device.
    """
    if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
        return False
    return _has_kernel(x)


def _has_kernel(x: torch.Tensor) -> bool:
    if _backend == "reference" or forward_ad._current_level >= 0:  # forward_mode(), inlined: each call pays for this
        return False
    if _loaded and x.device.type in _devices:
        # torch.library's gradients do not work inside of torch.func's transformations.
        return autograd is not None or torch._C._functorch.peek_interpreter_stack() is None
    if _backend == "native":
        raise BackendError(f"backend 'native': {why_not_native(x.device)}")
    # Not while tracing: a warning breaks the graph. (torch.compiler's decorators would import torch._dynamo.)
    if not _loaded and not torch.compiler.is_compiling() and not _warned:
        _warn_once()
    return False


def calls_directly(x: object) -> bool:
    """Return whether to call the function of :data:`autograd` for an op on x, before any checks.

    That function converts its arguments faster than torch.ops, and the kernels check them too. If it raises, the caller
    checks the arguments one by one, which gives a readable error. Subclasses of Tensor are excluded, because they may
    replace ops.
    """
    return (
        autograd is not None and type(x) in _PLAIN and not torch.compiler.is_compiling() and _has_kernel(x)  # type: ignore[arg-type]
    )


_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _warn_once() -> None:
    global _warned
    _warned = True
    warnings.warn(f"automl_ext: {_why_not}; falling back to PyTorch, which is slower. Rebuild: {REBUILD}", stacklevel=4)


def build_info() -> dict[str, str | None]:
    """Return facts about the build; an empty dict if the compiled library is missing.

    The facts are the versions of torch, CUDA and the compiler, which implementation of the gradients is in use, the GPU
    architectures, why CUDA was or was not built, and the CPU's instruction set in use.
    """
    if not _loaded:
        return {}
    text = [functions().automl_ext_instruction_sets, functions().automl_ext_instruction_set]
    for function in text:
        function.restype = ctypes.c_char_p
    instruction_sets, instruction_set = (function().decode() for function in text)
    return {
        "torch": _build.TORCH_VERSION,
        "autograd": _autograd_in_use,
        "cuda": _build.CUDA_VERSION,
        "cuda_archs": _build.CUDA_ARCHS,
        "cuda_decision": _build.CUDA_DECISION,
        "compiler": _build.COMPILER,
        "instruction_sets": instruction_sets,
        "instruction_set": instruction_set,
    }
