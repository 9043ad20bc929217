"""Operations of the spaces: gradients compared with float64 for oneDNN's AVX2 kernels, and strided 1×1 convolutions."""

from __future__ import annotations

import json
from random import Random

import fresh_python
import pytest
import torch
from torch import nn

from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.operations import Conv1x1, FactorizedReduction
from automl_ext.nas.spaces.registry import SPACES

# ONEDNN_MAX_CPU_ISA is read once per process, so the sweep runs in a separate interpreter.
SWEEP = """
import copy, itertools, json
import torch
from torch import nn
from automl_ext.nas.spaces import darts_space as darts
from automl_ext.nas.spaces import nasbench201
from automl_ext.nas.spaces import renas_space
from automl_ext.nas.spaces.cell_network import FixedReductionCell, Place
from automl_ext.nas.spaces.operations import FactorizedReduction, ResidualBlock, make_operation

NAMES = {*nasbench201.OPERATIONS, *darts.OPERATIONS, *renas_space.OPERATIONS} - {"none"}
BLOCKS = {name: lambda c, stride, name=name: make_operation(name, c, stride=stride) for name in sorted(NAMES)}
HALVING = {
    "wider": lambda c, _: FactorizedReduction(c, 2 * c + 1),
    "narrower": lambda c, _: FactorizedReduction(2 * c, c),
    "residual": lambda c, _: ResidualBlock(c, 2 * c),
    "fixed": lambda c, _: FixedReductionCell(Place(c, c, c, True, False)).convolutions[0],
}

def gradients(module, x):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y))
    return [x.grad, *(p.grad for p in module.parameters())]

def draw(module, c):
    # Rounding must not change the sign of a ReLU's input: draw inputs that keep all of them away from 0.
    nearest = []
    hooks = [m.register_forward_hook(lambda m, i, o: nearest.append(i[0].abs().min()))
             for m in module.modules() if isinstance(m, nn.ReLU)]
    while True:
        nearest.clear()
        x = torch.randn(6, c, 8, 8)
        module(x.double())
        if all(value > 1e-5 for value in nearest):
            break
    for hook in hooks:
        hook.remove()
    return x

torch.set_num_threads(1)
torch.manual_seed(0)
wrong, count = [], 0
cases = [*itertools.product(BLOCKS, (1, 2)), *itertools.product(HALVING, (2,))]
for (name, stride), c in itertools.product(cases, (1, 2, 3, 5, 7, 8, 9, 16, 17)):
    module = (BLOCKS | HALVING)[name](c, stride)
    exact = copy.deepcopy(module).double()
    x = draw(exact, 2 * c if name == "narrower" else c)
    exact.zero_grad()
    expected = gradients(exact, x.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        module.zero_grad()
        found = gradients(module, torch.empty_like(x, memory_format=layout).copy_(x))
        count += 1
        for a, b in zip(found, expected):
            if not (a - b).abs().max() <= 1e-4 * (1 + b.abs().max()):
                wrong.append([name, stride, c, str(layout), (a - b).abs().max().item(), b.abs().max().item()])
print(json.dumps([count, wrong]))
"""


@pytest.mark.slow
def test_gradients_are_correct_with_avx2_kernels() -> None:
    """oneDNN's strided 1×1 convolution writes out of bounds: wrong gradients, a crash or a hang."""
    process = fresh_python.start(SWEEP, ONEDNN_MAX_CPU_ISA="AVX2")  # oneDNN reads it once, perhaps when torch loads
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    count, wrong = json.loads(out)
    assert count == 9 * 2 * (11 * 2 + 4)  # channels × layouts × (operations × 2 strides + blocks)
    assert wrong == []


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_conv1x1_equals_a_strided_convolution(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = Conv1x1(9, 5, stride=2).double()
    torch.manual_seed(0)
    plain = nn.Conv2d(9, 5, 1, stride=2, bias=False).double()
    assert ours.state_dict().keys() == plain.state_dict().keys()  # so that checkpoints are compatible
    assert torch.equal(ours.weight, plain.weight)
    x = torch.randn(3, 9, *size, dtype=torch.float64, requires_grad=True)
    y = ours(x)
    torch.testing.assert_close(y, plain(x))
    gradient = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, ours.weight], gradient)
    for a, b in zip(found, torch.autograd.grad(plain(x), [x, plain.weight], gradient), strict=True):
        torch.testing.assert_close(a, b)


def test_spaces_contain_no_strided_1x1_convolution() -> None:
    """Check all networks and supernets."""
    shape = {"in_channels": 1, "num_classes": 2, "channels": 2, "cells": 1}
    networks = []
    for name in SPACES:
        space = spaces.space(name)
        networks.append(space.build(space.random(Random(0)), **shape))
        if name not in ("renas", "convnet"):
            networks.append(space.build_supernet(**shape, form="darts"))
    found = [m for network in networks for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert any(isinstance(m, Conv1x1) and m.subsampling == 2 for m in found)
    assert not [m for m in found if m.kernel_size == (1, 1) and m.stride != (1, 1)]


def test_factorized_reduction_of_one_channel() -> None:
    y = FactorizedReduction(1, 1)(torch.randn(2, 1, 5, 5))
    assert y.shape == (2, 1, 3, 3)
