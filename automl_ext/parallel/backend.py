"""The interface between :class:`~automl_ext.parallel.jobs.Jobs` and a place where calls run; calls in this process."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor

Death = Literal["process", "node"]


class Backend(Protocol):
    """A place where calls of one function run. Arguments and results are pickled, tensors by value."""

    def start(self, call: bytes) -> Any:
        """Start a call with the pickled arguments. Return its handle."""
        ...

    def wait(self, handles: Sequence[Any], block: bool) -> list[bool]:
        """Return for each call whether it has ended: with a result, with an exception, or because it was lost.

        Args:
            handles: the calls.
            block: wait until at least one call has ended.
        """
        ...

    def lost(self, handle: Any) -> Death | None:
        """Return what died, "process" or "node", if the result of an ended call is lost for that reason; else None."""
        ...

    def result(self, handle: Any) -> Any:
        """Return the result of a finished call, or raise the exception that the function raised."""
        ...

    def close(self) -> None:
        """Stop the calls that have not finished, and free everything."""
        ...


class InProcess:
    """A :class:`Backend` in this process: calls run one after the other, each when its result is read."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def start(self, call: bytes) -> bytes:
        return call

    def wait(self, handles: Sequence[bytes], block: bool) -> list[bool]:
        return [True] * len(handles)

    def lost(self, handle: bytes) -> None:
        return None

    def result(self, handle: bytes) -> Any:
        return self.function(*pickle.loads(handle))

    def close(self) -> None:
        pass


class _Pickler(pickle.Pickler):
    """Moves tensors to the CPU."""

    proto = pickle.HIGHEST_PROTOCOL

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_cuda:
            return value.cpu().__reduce_ex__(self.proto)
        return NotImplemented


def dumps_result(value: Any) -> bytes:
    """Pickle a result, tensors on the CPU and by value: the receiving machine may have no GPU.

    ``torch.multiprocessing`` would share tensors through files that vanish with their process.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, _Pickler.proto).dump(value)
    return buffer.getvalue()
