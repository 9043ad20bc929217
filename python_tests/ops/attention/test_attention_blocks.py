"""The composition of entmax15_attention in blocks of queries, as on other devices than a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import automl_ext
from automl_ext.ops import attention

L, S = 50, 40


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest new tensor."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.numel())
        return result


def problem() -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = ((2, 4, L, 3), (2, 2, S, 3), (2, 2, S, 5))
    return [torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_() for shape in shapes]


def masks() -> list[tuple[Tensor | None, bool]]:
    g = torch.Generator().manual_seed(1)
    return [
        (None, False),
        (None, True),
        (torch.rand(L, S, generator=g) < 0.7, False),
        (torch.rand(2, 1, 1, S, generator=g) < 0.7, False),
        (torch.randn(4, L, S, generator=g, dtype=torch.float64), False),
        (torch.randn(S, generator=g, dtype=torch.float64), False),
    ]


@pytest.mark.parametrize("case", range(len(masks())))
def test_blocks_equal_the_whole(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (mask, is_causal), inputs = masks()[case], problem()
    whole = attention.attention_reference(*inputs, mask, is_causal, 0.5)
    expected = torch.autograd.grad(whole.sin().sum(), inputs, create_graph=True)
    monkeypatch.setattr(attention, "MOST_SCORES", 8 * S * 7)  # blocks of 7 queries
    blocks = attention.attention_in_blocks(*inputs, mask, is_causal, 0.5)
    torch.testing.assert_close(blocks, whole)
    torch.testing.assert_close(torch.autograd.grad(blocks.sin().sum(), inputs), expected)


def test_gradients_may_be_taken_with_another_backend_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = problem()
    monkeypatch.setattr(attention, "MOST_SCORES", 8 * S * 7)
    with automl_ext.backend("reference"):
        blocks = attention.attention_in_blocks(*inputs, None, False, 0.5)
        expected = torch.autograd.grad(blocks.sin().sum(), inputs, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(blocks.sin().sum(), inputs), expected)


def test_memory_is_linear_in_the_number_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, block = problem(), 8 * S * 7
    monkeypatch.setattr(attention, "MOST_SCORES", block)
    with Largest() as largest:
        attention.attention_in_blocks(*inputs, None, False, 0.5).sum().backward()
    assert largest.elements <= block < 8 * L * S
