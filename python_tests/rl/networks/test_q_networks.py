"""Q-networks and the losses of Q-learning, compared with their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.dqn.learner import QLearner
from automl_ext.rl.dqn.losses import categorical_loss, q_loss, q_loss_gradient
from automl_ext.rl.networks.mlp_gradient import MLPGradient
from automl_ext.rl.networks.parameters import flatten_parameters
from automl_ext.rl.networks.q_network import NoisyLinear, QNetwork, resample
from automl_ext.rl.replay.uniform import Batch

SPACE = Box(-1, 1, (3,), np.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(n: int) -> Batch:
    g = generator(7)
    terminated = torch.arange(n) % 3 == 0
    return Batch(
        observations=torch.randn(n, 3, generator=g),
        actions=torch.randint(4, (n,), generator=g),
        returns=torch.randn(n, generator=g),
        next_observations=torch.randn(n, 3, generator=g),
        discounts=torch.where(terminated, 0.0, torch.rand(n, generator=g)),
        terminated=terminated,
        weights=torch.rand(n, generator=g),
        indices=torch.arange(n),
    )


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
    features = torch.relu(network.hidden(network.body(x)))
    value = network.value(features[:, :4])
    advantage = network.advantage(features[:, 4:]).reshape(5, 4, -1)
    out = network(x).reshape(5, 4, -1)
    torch.testing.assert_close(out.mean(1), value)
    torch.testing.assert_close(out[:, 0] - out[:, 1], advantage[:, 0] - advantage[:, 1])


def test_q_of_distributions_is_their_mean() -> None:
    network = QNetwork(SPACE, 2, (4,), atoms=5, v_min=-2, v_max=2)
    logits = torch.randn(3, 2, 5, generator=generator())
    probs = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = sum(probs[..., i] * z for i, z in enumerate((-2, -1, 0, 1, 2)))
    torch.testing.assert_close(network.q(logits), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_q_loss_equals_its_formula(weighted: bool) -> None:
    batch = batch_of(9)
    q = 2 * torch.randn(9, 4, generator=generator())
    loss, errors = q_loss(q, batch.actions, batch.returns, batch.weights if weighted else None)
    total = 0.0
    for i in range(9):
        delta = abs(q[i, batch.actions[i]].item() - batch.returns[i].item())
        assert errors[i].item() == pytest.approx(delta, abs=1e-6)
        huber = 0.5 * delta**2 if delta < 1 else delta - 0.5
        total += huber * (batch.weights[i].item() if weighted else 1.0)
    assert loss.item() == pytest.approx(total / 9, rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_categorical_loss_is_a_divergence(weighted: bool) -> None:
    batch = batch_of(6)
    logits = torch.randn(6, 4, 5, generator=generator(), requires_grad=True)
    targets = torch.randn(6, 5, generator=generator(1)).softmax(-1)
    targets[0] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])  # 0 log 0 is 0
    loss, errors = categorical_loss(logits, batch.actions, targets, batch.weights if weighted else None)
    total = 0.0
    for i in range(6):
        p = logits[i, batch.actions[i]].softmax(-1)
        kl = sum(t * (math.log(t) - math.log(x)) for t, x in zip(targets[i].tolist(), p.tolist(), strict=True) if t > 0)
        assert errors[i].item() == pytest.approx(kl, abs=1e-5)
        total += kl * (batch.weights[i].item() if weighted else 1.0)
    assert loss.item() == pytest.approx(total / 6, rel=1e-4)
    loss.backward()
    others = torch.ones(6, 4, dtype=torch.bool).scatter(1, batch.actions[:, None], False)
    assert (logits.grad[others] == 0).all()


@pytest.mark.parametrize("double", [False, True])
def test_targets_equal_their_formula(double: bool) -> None:
    """The two networks differ, so that using the wrong network for a value or a choice is detected."""
    learner = QLearner(DQNConfig(hidden=(16,), double=double), SPACE, 4, (0, 1))
    other = QLearner(DQNConfig(hidden=(16,)), SPACE, 4, (2, 3))
    learner.target.load_state_dict(other.online.state_dict())
    batch = batch_of(60)
    with torch.no_grad():
        online, target = learner.online(batch.next_observations), learner.target(batch.next_observations)
    assert (online.argmax(1) != target.argmax(1)).any()
    for i, y in enumerate(learner.targets(batch).tolist()):
        best = (online if double else target)[i].argmax()
        expected = batch.returns[i] + (0 if batch.terminated[i] else batch.discounts[i] * target[i, best])
        assert y == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_distributional_targets_keep_their_mass_and_mean(double: bool) -> None:
    config = DQNConfig(hidden=(16,), double=double, distributional=True, v_min=-20, v_max=20)
    learner, other = QLearner(config, SPACE, 4, (0, 1)), QLearner(config, SPACE, 4, (2, 3))
    learner.target.load_state_dict(other.online.state_dict())
    batch = batch_of(60)
    batch.discounts *= 0.8  # all targets are within the range of the atoms
    with torch.no_grad():
        online = learner.online.q(learner.online(batch.next_observations))
        target = learner.target.q(learner.target(batch.next_observations))
    targets = learner.targets(batch)
    torch.testing.assert_close(targets.sum(1), torch.ones(60))
    best = (online if double else target).argmax(1, keepdim=True)
    expected = batch.returns + batch.discounts * target.gather(1, best).squeeze(1)
    torch.testing.assert_close(targets @ learner.online.support, expected, atol=1e-4, rtol=1e-4)


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


def test_gradient_is_clipped_to_its_norm() -> None:
    for largest, clipped in ((1e-3, True), (1e9, False)):
        learner = QLearner(DQNConfig(hidden=(8,), max_grad_norm=largest), SPACE, 4, (0, 1))
        batch = batch_of(8)
        loss, _ = q_loss(learner.online(batch.observations), batch.actions, batch.returns)
        norm = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(learner.online.parameters()))]).norm()
        learner.step(batch.observations, batch.actions, batch.returns, None)
        assert learner._weights.grad.norm().item() == pytest.approx(largest if clipped else norm.item(), rel=1e-2)


def test_empty_hidden_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden"):
        QNetwork(SPACE, 2, ())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hidden", [(8,), (16, 8), (8, 8, 8)])
def test_mlp_gradient_equals_autograd(hidden: tuple[int, ...], weighted: bool) -> None:
    network = QNetwork(SPACE, 4, hidden)
    flat = flatten_parameters(network)
    batch, gradient = batch_of(50), torch.full_like(flat, math.nan)
    targets, weights = 2 * batch.returns, batch.weights if weighted else None
    loss, errors = q_loss(network(batch.observations), batch.actions, targets, weights)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(network.parameters()))])

    mlp = MLPGradient(network.chain(), gradient)
    out = mlp.forward(batch.observations)
    torch.testing.assert_close(out, network(batch.observations))
    loss_again, errors_again, of_out = q_loss_gradient(out, batch.actions, targets, weights)
    mlp.backward(of_out)
    torch.testing.assert_close(loss_again, loss)
    torch.testing.assert_close(errors_again, errors)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_only_plain_networks_are_chains() -> None:
    assert len(QNetwork(SPACE, 4, (8, 8)).chain()) == 3
    for switch in ({"dueling": True}, {"noisy": True}, {"atoms": 5}):
        assert QNetwork(SPACE, 4, (8, 8), **switch).chain() is None
    assert QNetwork(Box(0, 1, (10, 10, 4), bool), 4, (8,)).chain() is None
    assert QNetwork(Box(0, 255, (3,), np.uint8), 4, (8,)).chain() is None
