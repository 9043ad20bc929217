"""Selection of a torch device by its name, and copies to it that the CPU does not wait for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from automl_ext.training.errors import UserError


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device can multiply matrices of bfloat16 itself. It may still be slower than with float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


ALIGNMENT = 16  # bytes, of each tensor in the buffer of `send`


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy CPU tensors to ``device``, all in one copy from pinned memory, for which the CPU does not wait.

    Tensors that are there already, or go to the CPU, are returned as they are.
    """
    if device.type == "cpu" or all(x.device.type == device.type for x in tensors):
        return list(tensors)
    starts = [0, *accumulate(-(-x.nbytes // ALIGNMENT) * ALIGNMENT for x in tensors)]
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")

    def part(whole: Tensor, i: int) -> Tensor:
        x = tensors[i]
        return whole[starts[i] : starts[i] + x.nbytes].view(x.dtype).view(x.shape)

    for i, x in enumerate(tensors):
        part(buffer, i).copy_(x)
    there = buffer.to(device, non_blocking=True)
    return [part(there, i) for i in range(len(tensors))]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device for ``auto`` (a GPU if there is one, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    A GPU is initialized here, so that an unusable one fails at the start. Call this before
    :meth:`Run.open <automl_ext.training.run.Run.open>`, which records the GPU's name.

    With several ranks, ``auto`` and ``cuda`` are the GPU whose number is the rank's on its machine.

    Raises:
        UserError: the name is unknown, or there is no such GPU.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"unknown device {name!r}: expected auto, cpu, cuda or cuda:N")
    available = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        reason = "sees no GPU" if torch.version.cuda else "is built without CUDA"
        raise UserError(f"device {name!r}: torch {torch.__version__} {reason}; use cpu or auto")
    from automl_ext.training import ranks  # only a GPU depends on them

    if ranks.count() > 1:
        if name not in ("auto", "cuda"):
            raise UserError(f"device: expected auto, cuda or cpu with several processes, got {name}")
        if ranks.local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"torchrun: expected at most one process for each of the {torch.cuda.device_count()} GPUs; "
                "use --nproc-per-node gpu, or --device cpu"
            )
        torch.cuda.set_device(ranks.local_rank())
    device = torch.device("cuda" if name == "auto" else name)
    if (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r}: there are {torch.cuda.device_count()} GPUs, counted from cuda:0")
    torch.cuda.init()
    return device
