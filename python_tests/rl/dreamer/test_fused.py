"""Hand-written gradients compared with those of autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from automl_ext.rl.dreamer.actions import OneHot
from automl_ext.rl.dreamer.fused.mlp import MLP, ScalarHead
from automl_ext.rl.dreamer.fused.recurrence import imagined_step, observed_steps
from automl_ext.rl.dreamer.rssm import RSSM


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("grad_x", [False, True])
def test_mlp(grad_x: bool) -> None:
    torch.manual_seed(0)
    network, x = MLP(3, 5, 2, 4).double(), double(2, 6, 3).detach().requires_grad_(grad_x)
    reference = nn.Sequential(*(m for layer in network.linears for m in (layer, nn.ELU())))[:-1]
    actual, expected = network(x), reference(x)
    torch.testing.assert_close(actual, expected)
    inputs = [*network.parameters(), *([x] if grad_x else [])]
    torch.testing.assert_close(
        torch.autograd.grad(actual.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs)
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_scalar_head(layers: int) -> None:
    torch.manual_seed(0)
    head, x, factors = MLP(3, 5, layers, 1).double(), double(7, 3), torch.randn(7, dtype=torch.float64)
    parameters = list(head.parameters())
    expected = head(x).squeeze(-1)
    gradients = torch.autograd.grad(expected, (x, *parameters), factors)
    actual = ScalarHead(head, x)
    torch.testing.assert_close(actual.values, expected)
    torch.testing.assert_close(torch.autograd.grad(actual.values, x, factors)[0], gradients[0])
    assert all(p.grad is None for p in parameters)  # autograd does not compute them
    for scalar_head in (actual, ScalarHead(head, x.detach())):
        for p in parameters:
            p.grad = torch.ones_like(p)
        scalar_head.backward(factors)
        torch.testing.assert_close([p.grad - 1 for p in parameters], list(gradients[1:]))
    assert not scalar_head.values.requires_grad


def test_imagined_step() -> None:
    torch.manual_seed(0)
    rssm = RSSM(2, 5, deter=6, stoch=3, hidden=7).double()
    features, action, noise = double(4, 9), double(4, 2), double(4, 3).detach()
    deter, stoch = features.split([6, 3], 1)
    deter = rssm.step(deter, stoch, rssm.from_action(action))
    mean, std = rssm.prior(deter)
    expected = torch.cat([deter, mean + std * noise], 1)
    weights = rssm.imagination_weights()
    actual = imagined_step(weights, features, action, noise)
    torch.testing.assert_close(actual, expected)
    inputs = features, action
    torch.testing.assert_close(
        torch.autograd.grad(actual.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs)
    )
    actual = imagined_step(weights, features.detach(), action, noise)  # as in the first step, from a constant state
    torch.testing.assert_close(
        torch.autograd.grad(actual.sum(), action),
        torch.autograd.grad(imagined_step(weights, features, action, noise).sum(), action),
    )


def test_observed_steps() -> None:
    torch.manual_seed(0)
    rssm = RSSM(2, 5, deter=6, stoch=3, hidden=7).double()
    from_actions, from_embeddings, noise = double(5, 4, 7), double(5, 4, 7), double(5, 4, 3).detach()
    deter, stoch = rssm.initial(4)
    features, outs = [], []
    for from_action, from_embedding, eps in zip(from_actions, from_embeddings, noise, strict=True):
        deter = rssm.step(deter, stoch, from_action)
        outs.append(rssm.posterior_out(nn.functional.elu(rssm.from_deter(deter) + from_embedding)))
        mean, std = rssm.posterior(deter, from_embedding)
        stoch = mean + std * eps
        features.append(torch.cat([deter, stoch], 1))
    expected = torch.stack(features), torch.stack(outs)
    actual = observed_steps(rssm.observation_weights(), from_actions, from_embeddings, noise)
    torch.testing.assert_close(actual, expected)
    weights = rssm.from_stoch.weight, rssm.from_deter.weight, *rssm.posterior_out.parameters()
    inputs = from_actions, from_embeddings, *rssm.cell.parameters(), *weights
    for which in ([0], [1], [0, 1]):
        torch.testing.assert_close(
            torch.autograd.grad(sum(actual[i].sin().sum() for i in which), inputs, retain_graph=True),
            torch.autograd.grad(sum(expected[i].sin().sum() for i in which), inputs, retain_graph=True),
        )


def test_straight_through_gradient() -> None:
    torch.manual_seed(0)
    outputs, noise, factors = double(5, 3), double(5, 3).detach(), double(5, 3).detach()
    action, entropy = OneHot(type("Space", (), {"n": 3, "start": 0})).sample(outputs, noise)
    assert torch.equal(action, nn.functional.one_hot((outputs + noise).argmax(-1), 3).double())
    distribution = torch.distributions.Categorical(logits=outputs)
    torch.testing.assert_close(entropy, distribution.entropy())
    actual = (action * factors).sum() + entropy.sin().sum()
    expected = (distribution.probs * factors).sum() + distribution.entropy().sin().sum()
    torch.testing.assert_close(torch.autograd.grad(actual, outputs), torch.autograd.grad(expected, outputs))
