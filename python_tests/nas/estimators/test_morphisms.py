"""Net2Wider and Net2Deeper preserve the function, and the new networks can be trained."""

from __future__ import annotations

import copy
from collections import OrderedDict
from random import Random

import pytest
import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.morphisms import net2deeper, net2wider
from automl_ext.nas.estimators.wider_cells import widen_cells
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.operations import ReluConvBN, ResidualBlock

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def conv_net(norm: bool, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    def block(c_in: int, c_out: int, kernel: int) -> list[nn.Module]:
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=not norm)
        return [conv, *([nn.BatchNorm2d(c_out)] if norm else []), activation()]

    return nn.Sequential(
        *block(2, 5, 3), nn.MaxPool2d(2), *block(5, 6, 1), nn.Flatten(), nn.Linear(96, 7), activation(), nn.Linear(7, 3)
    )


def settled(network: nn.Module, dtype: torch.dtype, x: Tensor, batches: int = 5) -> nn.Module:
    """Return the network in evaluation mode, with non-trivial statistics, scales and shifts in its batch norms."""
    network.to(dtype).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(batches):
        network(x + 0.1 * torch.randn_like(x))
    return network.eval()


def images(dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(9, 2, 8, 8, dtype=dtype)


def distance(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return (a(x) - b(x)).abs().max().item()


def layers(network: nn.Module) -> list[str]:
    return [name for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


@DTYPES
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("which", [0, 1, 2])  # followed by a convolution, by a Flatten, by a linear layer
def test_wider_keeps_the_function(dtype: torch.dtype, norm: bool, which: int) -> None:
    x = images(dtype)
    network = settled(conv_net(norm), dtype, x)
    layer = layers(network)[which]
    before = copy.deepcopy(network.state_dict())
    wider = net2wider(network, layer, 17, generator=torch.Generator().manual_seed(1))
    assert wider.get_submodule(layer).weight.shape[0] == 17
    assert distance(network, wider, x) < TOLERANCE[dtype]
    assert network(x).std() > 0.01
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert {p.dtype for p in wider.parameters()} == {dtype}


@DTYPES
def test_wider_keeps_the_function_in_training_mode(dtype: torch.dtype) -> None:
    """Copies of a channel have the same batch statistics."""
    x = images(dtype)
    network = settled(conv_net(True), dtype, x).train()
    wider = net2wider(network, "0", 11)
    assert wider.training
    assert distance(network, wider, x) < TOLERANCE[dtype]


@pytest.mark.parametrize("activation", [nn.GELU, nn.Tanh, nn.SiLU, nn.LeakyReLU, nn.Sigmoid])
def test_wider_with_other_activations(activation: type[nn.Module]) -> None:
    x = images(torch.float64)
    network = settled(conv_net(True, activation), torch.float64, x)
    assert distance(network, net2wider(network, "0", 8), x) < 1e-12


def test_wider_of_nested_blocks_with_names() -> None:
    blocks = {"first": ReluConvBN(2, 4, 3), "second": ReluConvBN(4, 6, 3), "pool": nn.AdaptiveAvgPool2d(1)}
    x = images(torch.float64)
    network = settled(nn.Sequential(OrderedDict(**blocks, flat=nn.Flatten(), out=nn.Linear(6, 3))), torch.float64, x)
    for layer in ("first.1", "second.1"):
        wider = net2wider(network, layer, 9)
        assert distance(network, wider, x) < 1e-12
    deeper = net2deeper(network, "first.1")
    assert distance(network, deeper, x) < 1e-12
    assert [name for name, _ in deeper.named_children()] == [*blocks, "flat", "out"]
    assert [name for name, _ in deeper.second.named_children()] == ["0", "1", "2", "3"]
    named = net2deeper(network, "out")
    assert [name for name, _ in named.named_children()] == [*blocks, "flat", "out", "out_deeper"]
    assert distance(network, named, x) < 1e-12


def test_wider_through_the_batch_norm_of_flattened_features() -> None:
    x = images(torch.float64)
    parts = [nn.Conv2d(2, 3, 3), nn.Flatten(), nn.BatchNorm1d(108), nn.Dropout(), nn.Linear(108, 3)]
    network = settled(nn.Sequential(*parts), torch.float64, x)
    wider = net2wider(network, "0", 5)
    assert distance(network, wider, x) < 1e-12
    assert wider[2].num_features == 180


def test_wider_linear_layer_of_tokens() -> None:
    """Flattened tokens have one feature of a unit per token."""
    x = torch.randn(7, 3, 5, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()
    assert distance(network, net2wider(network, "0", 6), x) < 1e-12


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_noise_separates_copies(noise: float) -> None:
    """Without noise, copies receive equal gradients and stay equal during training."""
    x, labels = images(torch.float64), torch.arange(9) % 3
    network = settled(conv_net(True), torch.float64, x)
    wider = net2wider(network, "0", 6, noise=noise, generator=torch.Generator().manual_seed(0)).train()
    original = (wider[0].weight[:5] - wider[0].weight[5]).abs().flatten(1).sum(1).argmin()
    assert (distance(network, wider.eval(), x) > 1e-6) == (noise > 0)
    loss_before = train(wider, x, labels, steps=1)
    loss = train(wider, x, labels, steps=20)
    assert loss < 0.5 * loss_before
    apart = (wider[0].weight[5] - wider[0].weight[original]).abs().max().item()
    assert (apart > 1e-3) if noise else (apart < 1e-12)
    assert not torch.equal(wider[0].weight[original], network[0].weight[original])


def train(network: nn.Module, x: Tensor, labels: Tensor, steps: int) -> float:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("calibrated", [False, True])
def test_deeper_keeps_the_function(norm: bool, which: int, calibrated: bool) -> None:
    dtype = torch.float64 if (norm + which + calibrated) % 2 else torch.float32  # each with all pairs of the others
    x = images(dtype)
    network = settled(conv_net(norm), dtype, x)
    before = copy.deepcopy(network.state_dict())
    deeper = net2deeper(network, layers(network)[which], images=x if calibrated else None)
    assert len(layers(deeper)) == 5
    assert distance(network, deeper, x) < TOLERANCE[dtype]
    assert {p.dtype for p in deeper.parameters()} == {dtype}
    assert not any(module.training for module in deeper.modules())
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())


def test_deeper_inserts_the_same_kind_of_block() -> None:
    network = conv_net(True)
    added = net2deeper(network, "0")[3]
    assert [type(m) for m in added] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert added[0].kernel_size == (3, 3)
    assert [type(m) for m in net2deeper(network, "8")[10]] == [nn.Linear, nn.ReLU]
    assert [type(m) for m in net2deeper(network, "10")[11]] == [nn.Linear]


def test_deeper_with_images_keeps_the_function_in_training_mode() -> None:
    x = images(torch.float64)
    network = settled(conv_net(True), torch.float64, x, batches=60)
    calibrated, not_calibrated = (net2deeper(network, "0", images=seen) for seen in (x, None))
    network.train()
    scale = network(x).std().item()
    assert distance(network, calibrated.train(), x) < 0.3 * distance(network, not_calibrated.train(), x)
    assert distance(network, not_calibrated, x) > 0.1 * scale


@pytest.mark.parametrize(("layer", "before"), [("0", 2), ("3", 6)])  # number of modules before the block
def test_deeper_with_images_and_shared_or_inplace_modules(layer: str, before: int) -> None:
    x, relu = images(torch.float64), nn.ReLU()
    parts = [nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), relu, nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4), relu]
    if layer == "0":  # the block is inserted after the batch norm, on whose output the ReLU works in place
        parts[2] = nn.Sequential(nn.Dropout(0.0), nn.ReLU(inplace=True))
    network = settled(nn.Sequential(*parts, nn.Flatten(), nn.Linear(64, 3)), torch.float64, x)
    norm = net2deeper(network, layer, images=x)[before][1]
    with torch.no_grad():
        expected = network[:before](x).mean((0, 2, 3))
    assert torch.allclose(norm.running_mean, expected)


def test_the_inserted_layer_is_trained() -> None:
    x, labels = images(torch.float64), torch.arange(9) % 3
    deeper = net2deeper(settled(conv_net(True), torch.float64, x), "0")
    start = deeper[3][0].weight.detach().clone()
    loss_before = train(deeper, x, labels, steps=1)
    assert train(deeper, x, labels, steps=20) < 0.5 * loss_before
    assert (deeper[3][0].weight - start).abs().max() > 1e-3


@pytest.mark.parametrize("kernel", [1, 2, 3, (1, 4)])
def test_deeper_with_every_kernel_size(kernel: int) -> None:
    x = images(torch.float64)
    network = nn.Sequential(nn.Conv2d(2, 4, kernel, stride=2), nn.ReLU6(), nn.Flatten(), nn.LazyLinear(3)).double()
    network(x)
    assert distance(network, net2deeper(network, "0"), x) < 1e-12


def test_a_shared_activation() -> None:
    x, relu = torch.randn(5, 3, dtype=torch.float64), nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 5), relu, nn.Linear(5, 2)).double()
    for layer in ("0", "2"):
        assert distance(network, net2wider(network, layer, 8), x) < 1e-12
        assert distance(network, net2deeper(network, layer), x) < 1e-12


def test_repeated_morphisms() -> None:
    x = images(torch.float64)
    network = settled(conv_net(True), torch.float64, x)
    morphed = network
    for step in range(4):
        morphed = net2wider(morphed, layers(morphed)[step], 12 + step)
        morphed = net2deeper(morphed, layers(morphed)[step + 1], images=x)
    assert distance(network, morphed, x) < 1e-12
    assert distance(network, copy.deepcopy(morphed), x) < 1e-12


@DTYPES
@pytest.mark.parametrize("seed", range(4))
def test_wider_cells_keep_the_function(dtype: torch.dtype, seed: int) -> None:
    x = images(dtype)
    space = NASBench201()
    shape = {"in_channels": 2, "num_classes": 3, "cells": 2}
    genotype = space.random(Random(seed))
    network = settled(space.build(genotype, channels=4, **shape), dtype, x)
    wider = widen_cells(network, 7, generator=torch.Generator().manual_seed(seed))
    assert distance(network, wider, x) < TOLERANCE[dtype]
    assert distance(network.train(), wider.train(), x) < TOLERANCE[dtype]
    assert network(x).std() > 0.01
    built = space.build(genotype, channels=7, **shape)
    assert {k: v.shape for k, v in built.state_dict().items()} == {k: v.shape for k, v in wider.state_dict().items()}


def test_wider_cells_with_noise_are_trained() -> None:
    x, labels = images(torch.float64), torch.arange(9) % 3
    space = NASBench201()
    genotype = space.decode([3, 1, 2, 4, 1, 3])
    network = settled(space.build(genotype, in_channels=2, num_classes=3, channels=3, cells=1), torch.float64, x)
    wider = widen_cells(network, 4, noise=0.01, generator=torch.Generator().manual_seed(0))
    assert 1e-6 < distance(network, wider, x) < 1
    loss_before = train(wider, x, labels, steps=1)
    assert train(wider, x, labels, steps=20) < 0.5 * loss_before


def sequential(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), *between, nn.Conv2d(4, 3, 3))


class Backwards(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(-1))


SHARED = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("network", "layer", "width", "message"),
    [
        (sequential(), "5", 8, "layer: expected one of 0, 1, got '5'"),
        (sequential(nn.ReLU()), "1", 8, "layer: expected a convolution or a linear layer, got '1', a ReLU"),
        (sequential(), "1", 8, "layer: expected a layer followed by another one, got the last layer"),
        (sequential(), "0", 3, "width: expected at least 4, the width of layer '0', got 3"),
        (
            sequential(ResidualBlock(4, 4)),
            "0",
            8,
            "1: ResidualBlock is not supported between layer '0' and the next one",
        ),
        (sequential(nn.GroupNorm(2, 4)), "0", 8, "1: GroupNorm is not supported"),
        (sequential(nn.Softmax(1)), "0", 8, "1: Softmax is not supported"),
        (sequential(nn.ConvTranspose2d(4, 4, 3)), "0", 8, "1: ConvTranspose2d is not supported"),
        (sequential(nn.Conv2d(4, 4, 3, groups=2)), "0", 8, "1: expected a convolution with groups=1, got groups=2"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3)), "0", 8, "0: expected a convolution with gr"),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(4, 3)), "0", 8, "1: expected to read the 4 units of layer '0'"),
        (nn.Sequential(nn.Linear(2, 4), nn.MaxPool1d(2), nn.Linear(2, 3)), "0", 8, "1: MaxPool1d is not supported"),
        (ResidualBlock(4, 4), "branch.0", 8, "network: expected a plain nn.Sequential, got ResidualBlock"),
        (Backwards(nn.Linear(2, 4), nn.Linear(4, 2)), "0", 8, "network: expected a plain nn.Sequential, got Backwards"),
        (nn.Sequential(nn.Linear(2, 2), SHARED, SHARED), "0", 8, "network: expected every module with weights once"),
    ],
)
def test_net2wider_invalid_arguments(network: nn.Module, layer: str, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net2wider(network, layer, width)


def test_other_invalid_arguments() -> None:
    with pytest.raises(ValueError, match="1: expected ReLU or ReLU6, which are idempotent, got Tanh"):
        net2deeper(sequential(nn.Tanh()), "0")
    with pytest.raises(ValueError, match="layer: expected a convolution or a linear layer, got '1', a ReLU"):
        net2deeper(sequential(nn.ReLU()), "1")
    with pytest.raises(ValueError, match="noise: expected at least 0, got -1"):
        net2wider(sequential(), "0", 8, noise=-1)
    space = NASBench201()
    shape = {"in_channels": 2, "num_classes": 3, "channels": 4, "cells": 1}
    network = space.build(space.decode([3] * 6), **shape)
    with pytest.raises(ValueError, match="channels: expected at least 4, the width of the network, got 3"):
        widen_cells(network, 3)
    with pytest.raises(ValueError, match="noise: expected at least 0, got nan"):
        widen_cells(network, 8, noise=float("nan"))
    with pytest.raises(ValueError, match=r"network: expected a network of NASBench201.*got NASBench201Supernet"):
        widen_cells(space.build_supernet(**shape, form="darts"), 8)
    with pytest.raises(ValueError, match=r"network: expected a network of NASBench201.*got Network"):
        widen_cells(space.build_supernet(**shape, form="darts").network, 8)
