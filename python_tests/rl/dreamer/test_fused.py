"""Gradients that are written out, against those of autograd."""

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


@pytest.mark.parametrize("of_x", [False, True])
def test_mlp(of_x: bool) -> None:
    torch.manual_seed(0)
    network, x = MLP(3, 5, 2, 4).double(), double(2, 6, 3).detach().requires_grad_(of_x)
    plain = nn.Sequential(*(m for layer in network.linears for m in (layer, nn.ELU())))[:-1]
    own, expected = network(x), plain(x)
    torch.testing.assert_close(own, expected)
    inputs = [*network.parameters(), *([x] if of_x else [])]
    torch.testing.assert_close(
        torch.autograd.grad(own.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs)
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_a_scalar_of_rows(layers: int) -> None:
    torch.manual_seed(0)
    head, x, factors = MLP(3, 5, layers, 1).double(), double(7, 3), torch.randn(7, dtype=torch.float64)
    parameters = list(head.parameters())
    expected = head(x).squeeze(-1)
    wanted = torch.autograd.grad(expected, (x, *parameters), factors)
    own = ScalarHead(head, x)
    torch.testing.assert_close(own.values, expected)
    torch.testing.assert_close(torch.autograd.grad(own.values, x, factors)[0], wanted[0])
    assert all(p.grad is None for p in parameters)  # not by autograd
    for one in (own, ScalarHead(head, x.detach())):
        for p in parameters:
            p.grad = torch.ones_like(p)
        one.backward(factors)
        torch.testing.assert_close([p.grad - 1 for p in parameters], list(wanted[1:]))
    assert not one.values.requires_grad


def test_an_imagined_step() -> None:
    torch.manual_seed(0)
    rssm = RSSM(2, 5, deter=6, stoch=3, hidden=7).double()
    features, action, noise = double(4, 9), double(4, 2), double(4, 3).detach()
    deter, stoch = features.split([6, 3], 1)
    deter = rssm.step(deter, stoch, rssm.from_action(action))
    mean, std = rssm.prior(deter)
    expected = torch.cat([deter, mean + std * noise], 1)
    weights = rssm.imagination_weights()
    own = imagined_step(weights, features, action, noise)
    torch.testing.assert_close(own, expected)
    inputs = features, action
    torch.testing.assert_close(
        torch.autograd.grad(own.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs)
    )
    own = imagined_step(weights, features.detach(), action, noise)  # as from the first state
    torch.testing.assert_close(
        torch.autograd.grad(own.sum(), action),
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
    own = observed_steps(rssm.observation_weights(), from_actions, from_embeddings, noise)
    torch.testing.assert_close(own, expected)
    weights = rssm.from_stoch.weight, rssm.from_deter.weight, *rssm.posterior_out.parameters()
    inputs = from_actions, from_embeddings, *rssm.cell.parameters(), *weights
    for which in ([0], [1], [0, 1]):
        torch.testing.assert_close(
            torch.autograd.grad(sum(own[i].sin().sum() for i in which), inputs, retain_graph=True),
            torch.autograd.grad(sum(expected[i].sin().sum() for i in which), inputs, retain_graph=True),
        )


def test_straight_through() -> None:
    torch.manual_seed(0)
    outputs, noise, factors = double(5, 3), double(5, 3).detach(), double(5, 3).detach()
    action, entropy = OneHot(type("Space", (), {"n": 3, "start": 0})).sample(outputs, noise)
    assert torch.equal(action, nn.functional.one_hot((outputs + noise).argmax(-1), 3).double())
    distribution = torch.distributions.Categorical(logits=outputs)
    torch.testing.assert_close(entropy, distribution.entropy())
    own = (action * factors).sum() + entropy.sin().sum()
    expected = (distribution.probs * factors).sum() + distribution.entropy().sin().sum()
    torch.testing.assert_close(torch.autograd.grad(own, outputs), torch.autograd.grad(expected, outputs))
