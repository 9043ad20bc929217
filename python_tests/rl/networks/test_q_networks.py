"""Q-networks, compared with their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from automl_ext.ops.networks import FusedMLP
from automl_ext.rl.networks.parameters import flatten_parameters
from automl_ext.rl.networks.q_network import DuelingHead, NoisyLinear, QNetwork, resample

SPACE = Box(-1, 1, (3,), np.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noisy_linear_equals_its_formula() -> None:
    layer = NoisyLinear(5, 4, sigma=0.5)
    assert torch.allclose(layer.weight_sigma, torch.full((4, 5), 0.5 / math.sqrt(5)))
    assert layer.weight.abs().max() <= 1 / math.sqrt(5)
    resample([layer], generator())
    x = torch.randn(3, 5, generator=generator(1))
    for row, out in zip(x, layer(x), strict=True):
        for j in range(4):
            weights = [
                layer.weight[j, i] + layer.weight_sigma[j, i] * layer.noise_out[j] * layer.noise_in[i] for i in range(5)
            ]
            expected = sum(w * v for w, v in zip(weights, row, strict=True))
            assert out[j].item() == pytest.approx(
                (expected + layer.bias[j] + layer.bias_sigma[j] * layer.noise_out[j]).item(), abs=1e-5
            )
    out = layer(x)
    layer.noise_in, layer.noise_out = layer.noise_in.expand(3, -1), layer.noise_out.expand(3, -1)
    torch.testing.assert_close(layer(x), out)
    layer.eval()
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_noise_of_each_row() -> None:
    layer = NoisyLinear(5, 4)
    resample([layer], generator(), rows=3)
    x = torch.randn(1, 5, generator=generator(1))
    out = layer(x.expand(3, -1))
    noise_in, noise_out = layer.noise_in, layer.noise_out
    assert (noise_in.shape, noise_out.shape) == ((3, 5), (3, 4))
    for row in range(3):
        layer.noise_in, layer.noise_out = noise_in[row], noise_out[row]
        torch.testing.assert_close(out[row : row + 1], layer(x))
    assert not torch.allclose(out[0], out[1], atol=1e-3)


def test_noise_scale_and_reproducibility() -> None:
    layer = NoisyLinear(4_000, 4)
    resample([layer], generator(3))
    noise = layer.noise_in.clone()
    assert noise.mean().abs() < 0.05
    assert noise.square().mean() == pytest.approx(math.sqrt(2 / math.pi), abs=0.05)  # E f(ε)² = E|ε|
    resample([layer], generator(3))
    assert torch.equal(layer.noise_in, noise)
    resample([layer], generator(4))
    assert not torch.equal(layer.noise_in, noise)


@pytest.mark.parametrize("atoms", [None, 7])
def test_dueling_is_value_plus_centered_advantage(atoms: int | None) -> None:
    network = QNetwork(SPACE, 4, (6, 8), dueling=True, atoms=atoms)
    x = torch.randn(5, 3, generator=generator())
    head = network.head
    features = torch.relu(head.hidden(network.body(x)))
    value = head.value(features[:, :4])
    advantage = head.advantage(features[:, 4:]).reshape(5, 4, -1)
    out = network(x).reshape(5, 4, -1)
    torch.testing.assert_close(out.mean(1), value)
    torch.testing.assert_close(out[:, 0] - out[:, 1], advantage[:, 0] - advantage[:, 1])


def test_q_of_distributions_is_their_mean() -> None:
    network = QNetwork(SPACE, 2, (4,), atoms=5, v_min=-2, v_max=2)
    logits = torch.randn(3, 2, 5, generator=generator())
    probs = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = sum(probs[..., i] * z for i, z in enumerate((-2, -1, 0, 1, 2)))
    torch.testing.assert_close(network.q(logits, torch.zeros(3, 4)), expected)


def test_flat_parameters_share_memory_with_the_module() -> None:
    network = QNetwork(SPACE, 2, (4,))
    before = [p.clone() for p in network.parameters()]
    flat = flatten_parameters(network)
    assert all(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))
    with torch.no_grad():
        flat.add_(1.0)
    assert all(torch.equal(p + 1, q) for p, q in zip(before, network.parameters(), strict=True))
    network.load_state_dict({name: torch.zeros_like(p) for name, p in network.state_dict().items()})
    assert not flat.any()


def test_empty_hidden_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden"):
        QNetwork(SPACE, 2, ())


@pytest.mark.parametrize("atoms", [None, 5])
def test_a_plain_perceptron_is_one_op_with_the_values_of_its_layers(atoms: int | None) -> None:
    network = QNetwork(SPACE, 4, (8, 6), atoms=atoms)
    assert isinstance(network.head, FusedMLP)
    assert not list(network.body.parameters())
    x = torch.randn(7, 3, generator=generator())
    first, second, last = (layer for layer in network.head if isinstance(layer, torch.nn.Linear))
    expected = last(second(first(x).relu()).relu())
    torch.testing.assert_close(network(x).flatten(1), expected)


@pytest.mark.parametrize("switch", [{"dueling": True}, {"noisy": True}, {"layer_norm": True}])
def test_other_heads_are_modules(switch: dict[str, bool]) -> None:
    network = QNetwork(SPACE, 4, (8, 6), **switch)
    assert isinstance(network.head, DuelingHead)
    assert (network.head.value is None) == ("dueling" not in switch)
    assert len(network.body.linear) == 1
