"""A safe reader of untrusted pickles that contain plain Python and NumPy numbers.

``pickle.load`` executes code that the file names. Here a file may only name the entries of ``GLOBALS``. None of them is
a NumPy object, because a forged state of a real ``numpy.dtype`` corrupts memory. Dtypes come from a fixed list, scalars
become Python numbers, and arrays become instances of :class:`Array`, whose sizes have been checked. Strings that Python
2 wrote become str, byte by byte (Latin-1), and are also accepted as the data of a number or an array.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict, defaultdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SCALARS = {name: np.dtype(f"<{name}") for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}
SCALARS["b1"] = np.dtype(bool)
MAX_DIMS = 8


class Reader(Protocol):
    """A binary file, as :class:`pickle.Unpickler` uses it."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self, size: int = -1, /) -> bytes: ...

    def peek(self, n: int = 0, /) -> bytes: ...


class _Dtype:
    """A dtype of ``SCALARS``. The state in the pickle must equal the expected one and is otherwise ignored."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        order = "<" if SCALARS[self.name].itemsize > 1 else "|"
        if state != (3, order, None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError(f"it contains a dtype {self.name} with an unexpected state")

    def decode(self, data: Any, count: int) -> Any:
        dtype = SCALARS[self.name]
        if type(data) is str:  # Python 2
            data = data.encode("latin-1")
        if type(data) is not bytes or len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"the size of {count} numbers of dtype {self.name} does not match")
        return np.frombuffer(data, dtype)


class Array:
    """The replacement for an array, which is its attribute ``values``."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise pickle.UnpicklingError("it contains an array with an unexpected state")
        _, shape, dtype, fortran, data = state
        sizes = type(shape) is tuple and 0 < len(shape) <= MAX_DIMS and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or type(dtype) is not _Dtype or fortran not in (False, True):
            raise pickle.UnpicklingError("it contains an array with an unexpected state")
        values = dtype.decode(data, math.prod(shape))
        self.values = values.reshape(shape, order="F" if fortran else "C")


# These are instances without attributes instead of functions, because a pickle can set attributes of globals.
class _MakeDtype:
    __slots__ = ()

    def __call__(self, name: Any, *_: Any) -> _Dtype:
        if type(name) is not str or name not in SCALARS:
            raise pickle.UnpicklingError("it contains a dtype that is not a plain number")
        return _Dtype(name)


class _MakeScalar:
    __slots__ = ()

    def __call__(self, dtype: Any, data: Any = b"") -> Any:
        if type(dtype) is not _Dtype:
            raise pickle.UnpicklingError("it contains a scalar without a dtype")
        return dtype.decode(data, 1)[0].item()


class _MakeArray:
    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> Array:
        if type(kind) is not _ArrayKind or shape != (0,) or code not in (b"b", "b"):
            raise pickle.UnpicklingError("it contains an array that was not written by NumPy")
        return Array()


class _ArrayKind:
    """The replacement for the class numpy.ndarray, an argument of _reconstruct. It cannot be called."""

    __slots__ = ()


GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "set"): set,
    ("numpy", "dtype"): _MakeDtype(),
    ("numpy", "ndarray"): _ArrayKind(),
    **{(f"numpy.{core}.multiarray", "scalar"): _MakeScalar() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _MakeArray() for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in GLOBALS:
            raise pickle.UnpicklingError(f"it contains {module[:100]}.{name[:100]}, which is not data")
        return GLOBALS[module, name]


class _Limited:
    """A reader of at most ``limit`` bytes. Sizes declared in the pickle are checked before memory is allocated."""

    def __init__(self, file: Reader, limit: int) -> None:
        self.file, self.left = file, limit

    def read(self, size: int = -1, /) -> bytes:
        return self._count(self.file.read(self._allowed(size)))

    def readline(self, size: int = -1, /) -> bytes:
        return self._count(self.file.readline(self.left + 1))

    def peek(self, size: int = 0, /) -> bytes:  # without peek, the unpickler calls read once per opcode
        return self.file.peek(size)[: self.left + 1]

    def _allowed(self, size: int) -> int:
        if size > self.left:
            raise pickle.UnpicklingError("it declares or unpacks to more data than a file of this kind can contain")
        return size if size >= 0 else self.left + 1

    def _count(self, data: bytes) -> bytes:
        self._allowed(len(data))
        self.left -= len(data)
        return data


def load_data(file: Reader, limit: int) -> Any:
    """Read one pickle of plain Python and NumPy numbers.

    Raises:
        pickle.UnpicklingError: the pickle is damaged, larger than ``limit``, or contains other objects.
        OSError: reading fails.
    """
    try:
        return _Unpickler(_Limited(file, limit), encoding="latin-1").load()
    except (OSError, pickle.UnpicklingError):
        raise
    except MemoryError:
        raise pickle.UnpicklingError("it needs more than the free memory") from None
    except Exception as error:  # a wrong sequence of opcodes raises errors of many types
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
