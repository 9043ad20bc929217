"""The action distributions of Dreamer."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.nn import functional as F

from automl_ext.rl.dreamer.actions import OneHot, TanhNormal, actions_of
from automl_ext.training.errors import UserError


@pytest.mark.parametrize(
    "space", [spaces.MultiDiscrete([2, 2]), spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(0, 3, (1,), np.int64)]
)
def test_unsupported_action_spaces_are_refused(space: gymnasium.Space) -> None:
    with pytest.raises(UserError, match="dreamer bounded Box of floats"):
        actions_of(space)


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        (spaces.Discrete(3, start=4), [[0, 0, 1], [1, 0, 0]], [6, 4]),
        (spaces.Box(np.float32([-2, 0]), np.float32([2, 1])), [[0, 0], [1, -1]], [[0, 0.5], [2, 0]]),
    ],
)
def test_actions_are_mapped_to_the_action_space(space: gymnasium.Space, actions: list, expected: list) -> None:
    distribution = actions_of(space)
    to_env = distribution.to_env(torch.tensor(actions, dtype=torch.float32))
    assert to_env.tolist() == expected
    assert all(space.contains(a) for a in to_env)
    random = distribution.random(50, torch.Generator().manual_seed(0))
    assert all(space.contains(a) for a in distribution.to_env(random))
    noisy = distribution.explore(random, 0.5, torch.Generator().manual_seed(0))
    assert (noisy != random).any(1).any()
    assert all(space.contains(a) for a in distribution.to_env(noisy))


def test_the_amount_of_exploration() -> None:
    generator = torch.Generator().manual_seed(0)
    discrete, box = actions_of(spaces.Discrete(4)), actions_of(spaces.Box(-1, 1, (2,), np.float32))
    actions = torch.eye(4)[torch.zeros(10_000, dtype=torch.long)]
    changed = (discrete.explore(actions, 0.2, generator) != actions).any(1).float().mean().item()
    assert changed == pytest.approx(0.2 * 3 / 4, abs=0.01)  # a quarter of the random actions are the same ones
    noise = box.explore(torch.zeros(10_000, 2), 0.2, generator)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.2, abs=0.01)


def test_the_likeliest_of_the_samples_is_the_mode() -> None:
    distribution = actions_of(spaces.Box(-1, 1, (2,), np.float32), mode_samples=100)
    assert isinstance(distribution, TanhNormal)
    outputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)) * 3
    outputs[:3, 2:] -= 12  # narrow distributions
    found = distribution.mode(outputs)
    mean, std = 5 * (outputs[:, :2] / 5).tanh(), F.softplus(outputs[:, 2:] + math.log(math.expm1(5.0))) + 1e-4
    normal = torch.distributions.Normal(mean.double(), std.double())
    x = mean + std * distribution.mode_noise
    log_cosh = torch.logaddexp(x.double(), -x.double()) - math.log(2)
    log_probs = (normal.log_prob(x.double()) + 2 * log_cosh).sum(-1)  # [100, 6]; 1 − tanh² x = 1 / cosh² x
    expected = torch.stack([x[best, i].tanh() for i, best in enumerate(log_probs.argmax(0))])
    torch.testing.assert_close(found, expected)
    assert torch.equal(distribution.mode(outputs), found)
    torch.testing.assert_close(distribution.mode(outputs[2:4]), found[2:4])  # whatever the rest of the batch is

    means = actions_of(spaces.Box(-1, 1, (2,), np.float32)).mode(outputs)
    torch.testing.assert_close(means, mean.tanh())
    assert (found[:3] - means[:3]).abs().max() < 0.1
    assert found[3:].abs().mean() > means[3:].abs().mean()  # the tanh of a wide normal has its modes near −1 and 1


def test_discrete_actions_are_sampled_with_straight_through_gradients() -> None:
    distribution = OneHot(spaces.Discrete(3))
    torch.manual_seed(0)
    outputs = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(5, 3, dtype=torch.float64)
    action, entropy = distribution.sample(outputs, torch.Generator().manual_seed(1))
    assert torch.equal(action.detach(), F.one_hot(action.argmax(-1), 3).double())
    categorical = torch.distributions.Categorical(logits=outputs)
    torch.testing.assert_close(entropy, categorical.entropy())
    actual = (action * factors).sum() + entropy.sin().sum()
    expected = (categorical.probs * factors).sum() + categorical.entropy().sin().sum()
    torch.testing.assert_close(torch.autograd.grad(actual, outputs), torch.autograd.grad(expected, outputs))

    many, _ = distribution.sample(outputs.detach()[:1].expand(20_000, -1), torch.Generator().manual_seed(2))
    torch.testing.assert_close(many.mean(0), outputs[0].softmax(-1).detach(), atol=0.015, rtol=0)  # 4 standard errors


def test_entropy_of_continuous_actions_is_the_negative_log_density() -> None:
    distribution = actions_of(spaces.Box(-1, 1, (2,), np.float32))
    torch.manual_seed(0)
    outputs = torch.randn(6, 4, dtype=torch.float64) - torch.tensor([0, 0, 5, 5])
    actions, entropy = distribution.sample(outputs, torch.Generator().manual_seed(1))
    mean, std = 5 * (outputs[:, :2] / 5).tanh(), F.softplus(outputs[:, 2:] + math.log(math.expm1(5.0))) + 1e-4
    normal = torch.distributions.Normal(mean, std)
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.transforms.TanhTransform())
    torch.testing.assert_close(entropy, -squashed.log_prob(actions).sum(-1))
