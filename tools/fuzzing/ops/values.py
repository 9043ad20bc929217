"""Make random tensors in unusual layouts, and values of wrong types, shapes and ranges."""

from __future__ import annotations

import decimal
import fractions
import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32,) * 5 + (torch.float64,) * 2 + (torch.bfloat16, torch.float16)
NUMBERS = (0, 1, -1, 2, 3, 0.5, -0.5, 1.5, 0.0, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf, True)
HUGE = (2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, -(10**400), 10**5000)


def not_a_tensor(rng: random.Random) -> Any:
    """Return a value that is invalid for most arguments."""
    made = (
        lambda: None,
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(HUGE),
        lambda: rng.choice(("", "x", "mean", "auto", "0", "1.0", "\ud800", "\x00", b"x")),
        lambda: rng.choice(([], (), {}, set(), [1.0], [[0.0, 1.0]], [None], {"a": 1}, range(3), [[], []])),
        lambda: rng.choice((1j, decimal.Decimal("0.5"), fractions.Fraction(1, 2), slice(None), Ellipsis)),
        lambda: rng.choice((object, object(), len, torch.float32, torch.device("cpu"), torch.Size([2]))),
        lambda: rng.choice((np.float64(0.5), np.float32(0.5), np.int64(1), np.bool_(True), np.float64("nan"))),
        lambda: rng.choice((np.zeros(3, np.float32), np.array(0.5), np.array(["a"]), np.array([None]))),
        lambda: rng.choice((torch.tensor(True), torch.tensor(1), torch.tensor(0.5), torch.tensor([]))),
        lambda: rng.choice((torch.tensor(math.nan), torch.tensor(-1), torch.tensor(2**62), torch.zeros(2, 0, 3))),
        lambda: torch.Generator(),
    )
    return rng.choice(made)()


def shape(rng: random.Random, dims: Sequence[int] = (1, 2, 2, 2, 3, 4), largest: int = 20) -> list[int]:
    sizes = [rng.choice((1, 2, 3, rng.randint(1, largest))) for _ in range(rng.choice(dims))]
    if sizes and rng.random() < 0.05:
        sizes[rng.randrange(len(sizes))] = rng.choice((64, 100, 1025, 3000))
    return sizes


def floats(rng: random.Random, size: Sequence[int], dtype: torch.dtype, *, wild: bool = True) -> Tensor:
    """Return normal random numbers of a random scale; with ``wild``, also ties, zeros, NaN, ±∞ and extreme scales."""
    generator = torch.Generator().manual_seed(rng.getrandbits(60))
    x = torch.randn(list(size), generator=generator, dtype=torch.float64) * rng.choice((1, 1, 1, 5, 30, 1e-3))
    if wild and x.numel():
        if rng.random() < 0.1:
            x = x.round()
        if rng.random() < 0.12:
            flat = x.view(-1)
            for _ in range(rng.choice((1, 1, 2, 5))):
                flat[rng.randrange(len(flat))] = rng.choice((math.nan, math.inf, -math.inf, -math.inf, 0.0, -0.0))
        if x.ndim and rng.random() < 0.03:
            x[rng.randrange(x.shape[0])] = rng.choice((-math.inf, 0.0, 7.0))
        if rng.random() < 0.08:
            x *= rng.choice((1e4, 1e7, 1e8, 1e-8, 1e30, 1e-40))
    return x.to(dtype)


def flags(rng: random.Random, size: Sequence[int], share: float) -> Tensor:
    generator = torch.Generator().manual_seed(rng.getrandbits(60))
    return torch.rand(list(size), generator=generator) < share


def laid_out(rng: random.Random, x: Tensor) -> Tensor:
    """Return the same values with other strides, offset, bits or class."""
    how = rng.randrange(16)
    if how == 0 and x.ndim >= 2:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how == 1 and x.ndim >= 1:
        return x.repeat_interleave(2, -1)[..., ::2]
    if how == 2:
        return x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    if how == 3 and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if how == 4 and x.dtype in (torch.float32, torch.float64):
        return torch.complex(torch.zeros_like(x), -x).conj().imag  # a view with the negative bit
    if how == 5 and x.ndim >= 2:
        order = rng.sample(range(x.ndim), x.ndim)
        back = [order.index(i) for i in range(x.ndim)]
        return x.permute(order).contiguous().permute(back)
    if how == 6 and x.is_floating_point():
        return torch.nn.Parameter(x.clone(), requires_grad=False)
    if how == 7 and x.ndim >= 1 and x.shape[0] > 0 and torch.equal(x[:1].expand_as(x), x):
        return x[:1].expand_as(x)
    if how == 8 and x.ndim >= 1:
        return torch.nn.functional.pad(x, (3, 2))[..., 3 : 3 + x.shape[-1]]
    return x


def odd_tensor(rng: random.Random, x: Tensor) -> Any:
    """Return a variant of ``x`` with another dtype, shape, layout, device or values."""
    other = (torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64, torch.uint8)
    made = (
        lambda: x.to(rng.choice(other)),
        lambda: x.to(torch.float8_e4m3fn) if x.is_floating_point() else x.int(),
        lambda: x.unsqueeze(rng.randint(0, x.ndim)),
        lambda: x.flatten(),
        lambda: x[..., :1] if x.ndim else x.reshape(1),
        lambda: x[:0] if x.ndim else x.reshape(1)[:0],
        lambda: x.new_zeros(rng.choice(((), (0,), (1,), (2, 0), (1, 1, 1, 1, 1), (7, 5)))),
        lambda: torch.cat([x, x]) if x.ndim else x.reshape(1),
        lambda: x.transpose(0, -1) if x.ndim >= 2 else x.reshape(1, -1),
        lambda: x.to("meta"),
        lambda: x.to_sparse() if x.ndim else x.to("meta"),
        lambda: _csr(x),
        lambda: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
        lambda: torch.nested.nested_tensor([torch.randn(2), torch.randn(3)]),
        lambda: x.cpu().float().numpy(),
        lambda: x.tolist(),
        lambda: torch.full_like(x, rng.choice((math.nan, math.inf, -math.inf, 1e30, -1e30))) if _float(x) else ~x,
        lambda: x * rng.choice((torch.finfo(x.dtype).max, torch.finfo(x.dtype).tiny)) if _float(x) else x,
        lambda: x.as_strided(x.shape, [0] * x.ndim) if x.numel() else x,
        lambda: x.clone().requires_grad_() if _float(x) else x,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about prototype features
        try:
            return rng.choice(made)()
        except (RuntimeError, NotImplementedError, TypeError):  # not every dtype has every layout
            return None


def _float(x: Tensor) -> bool:
    return x.dtype in FLOATS


def _csr(x: Tensor) -> Tensor:
    return x.to_sparse_csr() if x.ndim == 2 else x.to("meta")
