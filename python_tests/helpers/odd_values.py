"""Values that most arguments of most ops refuse."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

NUMBERS = (0, 1, -1, 2, 3, 0.5, -0.5, 1.5, -0.0, 5e-324, 1e308, math.nan, math.inf, -math.inf, True)
HUGE = (2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, -(10**400), -(10**5000))
DTYPES = (torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)


class UnprintableError(Exception):
    pass


class Unprintable:
    def __repr__(self) -> str:
        raise UnprintableError


def odd_values(x: Tensor) -> list[object]:
    """Return values that at least one op refuses, among them tensors and lists of tensors in the shape of ``x``."""
    texts: list[object] = [None, "", "mean", "1.0", "\ud800", "\x00", "x" * 10_000, b"x"]
    others: list[object] = [[], [1.0], [None], list(range(100_000)), (1, 2), {"a": 1}, {1}, 1j, Decimal("0.5")]
    objects: list[object] = [object(), Unprintable(), int, len, torch.float32, torch.Generator(), torch.nn.Identity()]
    objects += [Fraction(1, 2), slice(None), Ellipsis, torch.device("cpu"), torch.Size([2])]
    arrays: list[object] = [np.zeros((4, 3), np.float32), np.array(0.5), np.array(["a"]), np.array([None])]
    arrays += [np.float32(0.5), np.float64(0.5), np.int64(1), np.bool_(True)]
    tensors: list[object] = []
    for shape in ((4, 3), (4,), (3,), (2,), (2, 2), (), (1,), (0,), (4, 0), (4, 3, 2)):
        tensors += [torch.zeros(shape).to(dtype) for dtype in DTYPES]
        for dtype in (torch.float32, torch.int64, torch.bool):
            zeros = torch.zeros(shape, dtype=dtype)
            tensors += [zeros.to("meta"), zeros.to_sparse()]
    tensors += [torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), x.to_mkldnn(), -torch.ones(4)]
    tensors += [torch.tensor(math.nan), torch.tensor(-1.0), torch.tensor(10**12), torch.zeros(4, 3).requires_grad_()]
    lists: list[object] = [
        [x, x],
        [x, 3.0],
        [None] * 3,
        [x, None, x.to_sparse()],
        [x, None, x.half()],
        [x, None, x[:2]],
    ]
    return [*NUMBERS, *HUGE, *texts, *others, *objects, *arrays, *tensors, *lists]
