"""Seeds, and random states as tensors and plain Python, which checkpoints can hold."""

from __future__ import annotations

import hashlib
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from automl_ext.training.checks import check_seed

if TYPE_CHECKING:
    import numpy


def seed_everything(seed: int) -> None:
    """Seed Python's ``random``, torch on every device, and NumPy's global generator if NumPy is imported.

    Raises:
        ValueError: ``seed`` is not an integer in [0, 2³²), NumPy's range.
    """
    check_seed(seed)
    seed = int(seed)  # not NumPy's, which random.seed refuses
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, from which initial weights come, and restore its state after the block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


STATE_BYTES = frozenset({5056, 16})  # of torch's generators on a CPU and on a GPU


class _Generator(torch.Generator):
    """A generator that also takes the state of one on another kind of device."""

    def set_state(self, state: torch.Tensor) -> torch.Generator:
        """Restore a state. That of another kind of device, whose stream cannot go on here, seeds this generator.

        Raises:
            RuntimeError: ``state`` is of neither kind.
        """
        if state.numel() not in STATE_BYTES - {self.get_state().numel()}:
            return super().set_state(state)
        digest = hashlib.sha256(bytes(state.tolist())).digest()
        return self.manual_seed(int.from_bytes(digest[:8], "little") >> 2)


def generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a new torch generator with a seed. Its state for a checkpoint is ``get_state()``, a tensor.

    A generator on a GPU takes a state of one on the CPU, and the reverse, but then draws other numbers.
    """
    return _Generator(device).manual_seed(seed)


def draw_seed(rng: torch.Generator) -> int:
    """Draw a seed in [0, 2⁶²) from a generator on the CPU, so that it is the same for every device."""
    return int(torch.randint(2**62, (), generator=rng))


def derived_seed(*numbers: int) -> int:
    """Derive a seed in [0, 2³⁰) from non-negative integers. Different integers give unrelated seeds.

    Zeros at the end have no effect, because NumPy pads the integers with zeros: ``derived_seed(5)`` equals
    ``derived_seed(5, 0)``. So streams that must differ are numbered from 1, or have equally many integers.

    The range leaves room for seeds counted up from it, one per environment, within 31 bits.
    """
    import numpy

    return int(numpy.random.SeedSequence(numbers).generate_state(1)[0]) >> 2


def rng_state() -> dict[str, Any]:
    """Return the states of the global generators: torch (CPU, GPUs in use), Python's ``random``, NumPy's legacy one."""
    numpy_state = None
    if "numpy" in sys.modules:
        numpy_state = _plain(sys.modules["numpy"].random.get_state(legacy=False))
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else [],
        "python": random.getstate(),
        "numpy": numpy_state,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the states that :func:`rng_state` returned.

    With another number of GPUs, those that exist in both get their states, and a warning says so.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if state["cuda"] and len(state["cuda"]) != gpus:
        warnings.warn(
            f"the random state was saved with {len(state['cuda'])} GPUs, here there are {gpus}: "
            "the result is not that of the uninterrupted run, bit for bit",
            stacklevel=2,
        )
    torch.set_rng_state(state["torch"])
    for device, saved in enumerate(state["cuda"][:gpus]):
        torch.cuda.set_rng_state(saved, device)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if state["numpy"] is not None:
        import numpy

        numpy.random.set_state(state["numpy"])


def numpy_generator_state(rng: numpy.random.Generator) -> dict[str, Any]:
    """Return ``rng.bit_generator.state`` with its arrays as lists, as ``torch.load(weights_only=True)`` requires."""
    return _plain(rng.bit_generator.state)


def set_numpy_generator_state(rng: numpy.random.Generator, state: dict[str, Any]) -> None:
    """Restore the state that :func:`numpy_generator_state` returned.

    Raises:
        ValueError: the state belongs to another kind of bit generator.
    """
    kind = type(rng.bit_generator).__name__
    if state["bit_generator"] != kind:
        raise ValueError(f"state: expected one of {kind}, got one of {state['bit_generator']}")
    rng.bit_generator.state = _arrays(state)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value  # NumPy arrays and scalars


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        import numpy

        return numpy.array(value, dtype=numpy.uint64)
    return value
