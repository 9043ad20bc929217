"""Argument checks shared by the ops. Every error names the argument, the expected value and the given value."""

from __future__ import annotations

import functools
import math
import operator
import reprlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INT_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_KEYS = torch._C._TorchDispatchModeKey
TRACING_MODES = (_KEYS.FAKE, _KEYS.PROXY, _KEYS.FUNCTIONAL)  # tensors have no values in them
NO_FLOAT64 = ("mps",)  # device types without float64: Apple's GPUs

MESSAGE_LIMIT = 80  # largest number of characters of a value in an error message
_REPR = reprlib.Repr()  # formats only the first few elements of a container
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = MESSAGE_LIMIT


def shown(value: object) -> str:
    """Return ``repr(value)`` in one line of at most MESSAGE_LIMIT characters."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # raised for an int of more than 4300 digits
        text = "a number too long to print"
    text = " ".join(text.split())  # a NumPy array's repr has several lines
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."


def describe(value: object) -> str:
    """Return the type and value of an argument for an error message."""
    if isinstance(value, Tensor):
        layout = "" if is_dense(value) else f"{str(value.layout).removeprefix('torch.')} "
        return f"{layout}{str(value.dtype).removeprefix('torch.')} tensor of shape {_shape_text(value)}"
    return f"{type(value).__name__} {shown(value)}"


def _shape_text(x: Tensor) -> str:
    return "nested" if x.is_nested else str(tuple(x.shape))


def is_dense(x: Tensor) -> bool:
    """Return whether x is an ordinary strided tensor: not sparse, nested or of a custom layout."""
    return x.layout is torch.strided and not x.is_nested


def readable_values(x: Tensor) -> Tensor | None:
    """Return the values of x for a check, or None if there are none (a trace), or not without a GPU synchronization."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return None
    if any(torch._C._get_dispatch_mode(key) is not None for key in TRACING_MODES):
        return None
    values = torch.func.debug_unwrap(x.detach())
    return values if type(values).__torch_dispatch__ is Tensor.__torch_dispatch__ else None  # not a FakeTensor


def broadcasts(x: Tensor, shape: Sequence[int]) -> bool:
    """Return whether x can be expanded to ``shape``."""
    pairs = zip(reversed(x.shape), reversed(shape), strict=False)
    return x.ndim <= len(shape) and all(given in (1, wanted) for given, wanted in pairs)


def is_sequence(value: object) -> bool:
    """Return whether ``list(value)`` works; iterating a 0-dim, sparse or nested tensor or a 0-dim array raises."""
    if isinstance(value, Tensor) and not is_dense(value):
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


def most_precise(x: Tensor) -> Tensor:
    """Return x in float64, or in float32 on a device without float64."""
    return x.float() if x.device.type in NO_FLOAT64 else x.double()


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the compute dtype: float32 for half precision, else the dtype of x."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def wide(x: Tensor) -> Tensor:
    """Return x in its compute dtype."""
    return x.to(compute_dtype(x))


def autocast_enabled(x: Tensor) -> bool:
    """Return whether autocast is enabled for x's device; PyTorch's query raises for the meta device."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def promoted(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Under autocast, return the float tensors in one dtype, and other objects unchanged; else return ``given``."""
    floats = [x for x in given if isinstance(x, Tensor) and x.is_floating_point()]
    if not floats or not autocast_enabled(floats[0]):
        return given
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in floats))
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in given)


def wrong_device(x: Tensor, name: str, op: str, like: Tensor) -> ValueError:
    """Return the error for an x on another device than ``like``, with the call that fixes it."""
    fix = f"{name}.to({str(like.device)!r})"
    return ValueError(f"{op}: {name}: expected a tensor on {like.device}, got one on {x.device}; use {fix}")


def wrong_type(x: object, name: str, op: str, dtype: torch.dtype, like: str = "") -> TypeError:
    """Return the error for an x that is not a dense tensor of ``dtype``."""
    dense = "dense " if isinstance(x, Tensor) and not is_dense(x) else ""
    hint = f"; use {name}.bool()" if dtype == torch.bool and isinstance(x, Tensor) and x.dtype != dtype else ""
    expected = f"{dense}{str(dtype).removeprefix('torch.')} tensor{like}"
    return TypeError(f"{op}: {name}: expected a {expected}, got {describe(x)}{hint}")


def check_float_tensor(value: object, name: str, op: str) -> None:
    """Raise TypeError unless ``value`` is a dense tensor of one of FLOAT_DTYPES."""
    if not isinstance(value, Tensor) or value.dtype not in FLOAT_DTYPES or not is_dense(value):
        dense = "dense " if isinstance(value, Tensor) and not is_dense(value) else ""
        raise TypeError(
            f"{op}: {name}: expected a {dense}float64, float32, bfloat16 or float16 tensor, got {describe(value)}"
        )


def check_bool(value: object, name: str, op: str) -> None:
    """Raise TypeError unless ``value`` is a bool."""
    if type(value) is not bool:
        raise TypeError(f"{op}: {name}: expected a bool, got {describe(value)}")


def python_number(value: Any) -> Any:
    """Return a number of NumPy as one of Python, and other values unchanged."""
    if isinstance(value, (int, float)):
        return value
    numpy = sys.modules.get("numpy")  # the ops work without it
    return value.item() if numpy is not None and isinstance(value, (numpy.integer, numpy.floating)) else value


def check_dim(dim: object, ndim: int, op: str, name: str = "dim") -> int:
    """Return ``dim`` as a non-negative index. A 0-dimensional tensor has one dim, as in torch.softmax."""
    dim = python_number(dim)
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"{op}: {name}: expected an int, got {describe(dim)}")
    ndim = max(ndim, 1)
    if not -ndim <= dim < ndim:
        raise IndexError(f"{op}: {name}: expected a value in [{-ndim}, {ndim - 1}], got {shown(dim)}")
    return dim % ndim


def check_number(value: object, name: str, op: str, low: float, high: float, *, above: bool = False) -> float:
    """Return ``value`` as a float; it must be finite and in [low, high], or in (low, high] with ``above``."""
    value = python_number(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected a float, got {describe(value)}")
    # torch.compile does not support math.isfinite, and an int above the largest float cannot be converted.
    if not (low <= value <= high and abs(value) <= sys.float_info.max) or (above and value == low):
        raise ValueError(f"{op}: {name}: expected a number in {interval(low, high, above)}, got {shown(value)}")
    return float(value)


def check_count(value: object, name: str, op: str) -> int:
    """Return ``value`` as a Python int; it must be an integer (NumPy's included) of at least 1."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except (TypeError, RuntimeError):  # RuntimeError: a tensor without values
        raise TypeError(f"{op}: {name}: expected an int, got {describe(value)}") from None
    if number < 1:
        raise ValueError(f"{op}: {name}: expected at least 1, got {shown(number)}")
    return number


def interval(low: float, high: float, above: bool = False) -> str:
    """Return the text of [low, high], or of (low, high] with ``above``; an infinite end is open."""
    start = "(" if above or low == -math.inf else "["
    return f"{start}{low:g}, {high:g}{')' if high == math.inf else ']'}"


def check_clip(value: object, name: str, op: str) -> float:
    """Return ``value`` as a float; it must be positive. Infinity means no clipping."""
    value = python_number(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{op}: {name}: expected a float, got {describe(value)}")
    if not value > 0 or (isinstance(value, int) and value > sys.float_info.max):
        raise ValueError(f"{op}: {name}: expected a positive number (inf: no clipping), got {shown(value)}")
    return float(value)
