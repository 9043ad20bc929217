"""Training-free scores against literal implementations of their formulas, on a small network."""

from __future__ import annotations

import itertools
import math
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.nas.estimators.training_free.passes import NotScorableError, observe
from automl_ext.nas.estimators.training_free.scores import RANK, SCORES, Subject, score_network
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.nas.spaces.operations import FactorizedReduction
from automl_ext.nas.spaces.registry import SPACES
from automl_ext.training.seeding import generator

IMAGES = torch.randn(6, 2, 6, 6, generator=generator(1))


def conv_bn_relu(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())


def small(seed: int = 0) -> nn.Sequential:
    """Three blocks with feature maps, the last of which halves the image, and a linear layer."""
    torch.manual_seed(seed)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    blocks = [conv_bn_relu(2, 3), conv_bn_relu(3, 3), conv_bn_relu(3, 4, stride=2)]
    return nn.Sequential(*blocks, nn.Sequential(*head))


def value(name: str, network: nn.Module) -> float:
    return SCORES[name](Subject(network, IMAGES))


def states(network: nn.Sequential, images: Tensor) -> list[list[bool]]:
    """Return which ReLU units are on, per image."""
    found: list[list[bool]] = [[] for _ in images]
    x = images
    for block in network[:3]:
        x = block(x)
        for n, values in enumerate(x.flatten(1).tolist()):
            found[n] += [value > 0 for value in values]
    return found


def test_naswot() -> None:
    codes = states(small().train(), IMAGES)
    kernel = np.array([[sum(a == b for a, b in zip(x, y, strict=True)) for y in codes] for x in codes], dtype=float)
    assert value("naswot", small()) == pytest.approx(math.log(abs(np.linalg.det(kernel))), rel=1e-6)


def test_synflow() -> None:
    """R is linear in each weight, so θ·∂R/∂θ is what R loses when the weight is set to 0."""
    layers = [module for module in small().modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    linear = nn.Sequential(*layers[:3], nn.AdaptiveAvgPool2d(1), nn.Flatten(), layers[3]).double()
    for p in linear.parameters():
        p.data.abs_()
    ones = torch.ones(1, 2, 6, 6, dtype=torch.float64)
    whole, flow = linear(ones).sum().item(), 0.0
    for layer in layers:
        flat = layer.weight.data.view(-1)
        for i in range(len(flat)):
            kept, flat[i] = flat[i].item(), 0.0
            flow += whole - linear(ones).sum().item()
            flat[i] = kept
    assert value("synflow", small()) == pytest.approx(math.log(flow), rel=1e-6)


def test_az_nas() -> None:
    network, x, entropies = small().train(), IMAGES, []
    for block in network[:3]:
        x = x.detach()
        output = block(x)
        pixels = output.detach().permute(0, 2, 3, 1).reshape(-1, output.shape[1]).double().numpy()
        eigenvalues = np.clip(np.linalg.eigvalsh(np.cov(pixels.T)), 0, None)
        share = eigenvalues / eigenvalues.sum()
        entropies.append(-sum(p * math.log(p + 1e-8) for p in share))
        x = output
    least = min(b - a for a, b in itertools.pairwise(entropies))
    assert value("expressivity", small()) == pytest.approx(sum(entropies), rel=1e-5)
    assert value("progressivity", small()) == pytest.approx(least, rel=1e-4)


def test_meco() -> None:
    network, total, x = small().train(), 0.0, IMAGES
    for block in network[:3]:
        channels = block[0](x)[0].detach().flatten(1).double().numpy()
        total += np.linalg.eigvalsh(np.corrcoef(channels))[0]
        x = block(x)
    assert value("meco", small()) == pytest.approx(total, rel=1e-4)


def test_size() -> None:
    convolutions = 36 * 2 * 3 * 9 + 36 * 3 * 3 * 9 + 9 * 3 * 4 * 9
    assert value("multiply_adds", small()) == convolutions + 4 * 3
    assert value("parameters", small()) == (2 * 27 + 3 + 6) + (3 * 27 + 3 + 6) + (3 * 36 + 4 + 8) + (4 * 3 + 3)


def test_equal_seeds_give_equal_scores_and_the_network_does_not_change() -> None:
    network = small().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = score_network(network, IMAGES, SCORES)
    assert score_network(network, IMAGES, SCORES) == first
    assert list(first) == list(SCORES)
    assert all(math.isfinite(value) for value in first.values())
    assert {name for name, value in score_network(small(1), IMAGES, SCORES).items() if value == first[name]} == {
        "parameters",
        "multiply_adds",
    }
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in SCORES if name != "parameters"])
def test_nan_is_refused(name: str) -> None:
    network = small()
    network[1][0].weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(NotScorableError, match=r"not finite|got nan"):
        value(name, network)


class Constant(nn.Module):
    """Ignores the images."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.logits(torch.ones(len(x), 1)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("naswot", "two images switch on the same ReLUs"),
        ("meco", "expected a convolution with two channels that vary"),
        ("progressivity", "expected at least two blocks with feature maps, got 0"),
    ],
)
def test_a_network_that_ignores_the_images_is_refused(name: str, message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(NotScorableError, match=message):
        value(name, Constant())


def test_a_network_without_relu_is_refused_by_naswot_only() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NotScorableError, match="no ReLU"):
        value("naswot", network)
    scores = score_network(network, IMAGES, SCORES)
    assert scores["naswot"] == -math.inf
    assert {name for name, value in scores.items() if not math.isfinite(value)} == {"naswot"}


def test_relus_that_are_functions_count() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(FactorizedReduction(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert [tuple(output.shape) for output in observe(network, IMAGES).relus] == [(6, 2, 6, 6)]


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"names: expected some of parameters, .*, got 'accuracy'"):
        score_network(small(), IMAGES, ["accuracy"])


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_all_scores(name: str, size: int) -> None:
    space = SPACES[name]()
    images = torch.randn(6, 1, size, size, generator=generator(0))
    torch.manual_seed(0)
    genotype = space.random(Random(3))
    network = space.build(genotype, in_channels=1, num_classes=3, channels=4, cells=1)
    scores = score_network(network, images, SCORES)
    assert {score for score, value in scores.items() if not math.isfinite(value)} == set()


def test_a_disconnected_cell_is_not_scorable() -> None:
    torch.manual_seed(0)
    network = NASBench201().build(Genotype(("none",) * 6), in_channels=2, num_classes=3, channels=4, cells=1)
    scores = score_network(network, IMAGES, RANK)
    assert -math.inf in scores.values()
