"""The RSSM, imagined trajectories and the losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
import gymnasium
from gymnasium import spaces

from automl_ext.rl.dreamer import losses as L
from automl_ext.rl.dreamer.actions import actions_of
from automl_ext.rl.dreamer.imagination import imagine
from automl_ext.rl.dreamer.rssm import RSSM, Normal


def test_rssm_observe_equals_single_steps() -> None:
    torch.manual_seed(0)
    rssm = RSSM(2, 5, deter=6, stoch=3, hidden=7)
    embeddings, actions, noise = torch.randn(4, 2, 5), torch.randn(4, 2, 2), torch.randn(4, 2, 3)
    unrolled = rssm.observe(embeddings, actions, noise)
    assert unrolled.features.shape == (4, 2, 9)
    assert [x.shape for x in (*unrolled.posterior, *unrolled.prior)] == [(4, 2, 3)] * 4
    deter, stoch = rssm.initial(2)
    for t in range(4):
        x = torch.nn.functional.elu(rssm.from_stoch(stoch) + rssm.from_action(actions[t]))
        deter = rssm.cell(x, deter)
        hidden = torch.nn.functional.elu(rssm.from_deter(deter) + rssm.from_embedding(embeddings[t]))
        mean, raw = rssm.posterior_out(hidden).chunk(2, -1)
        std = torch.nn.functional.softplus(raw) + 0.1
        stoch = mean + std * noise[t]
        torch.testing.assert_close(unrolled.posterior.std[t], std)
        torch.testing.assert_close(unrolled.features[t], torch.cat([deter, stoch], -1))
        torch.testing.assert_close(unrolled.prior.mean[t], rssm.prior(deter).mean)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])
def test_gradient_of_imagined_trajectories_reaches_the_actions(space: gymnasium.Space) -> None:
    """Continuous actions: equal to finite differences of a policy's bias. Discrete actions: nonzero."""
    torch.manual_seed(0)
    actions = actions_of(space)
    rssm = RSSM(actions.size, 5, deter=6, stoch=3, hidden=7).double().requires_grad_(False)
    bias = torch.zeros(actions.outputs, dtype=torch.float64, requires_grad=True)
    start = torch.randn(4, 9, dtype=torch.float64)
    noise = actions.noise((5, 4), torch.Generator().manual_seed(1)).double()
    state_noise = torch.randn(5, 4, 3, dtype=torch.float64)

    def total(bias: torch.Tensor) -> torch.Tensor:
        imagined = imagine(rssm, lambda x: bias.expand(len(x), -1), actions, start, noise, state_noise)
        assert [f.shape for f in imagined.features] == [(4, 9)] * 6
        assert imagined.entropy.shape == (5, 4)
        return sum(f.sin().sum() for f in imagined.features)

    if isinstance(space, spaces.Box):
        assert torch.autograd.gradcheck(total, (bias,))
    else:
        (gradient,) = torch.autograd.grad(total(bias), bias)
        assert gradient.abs().min() > 0
        assert gradient.sum().abs() < 1e-9  # adding a constant to all logits does not change a softmax


def test_losses() -> None:
    p = Normal(torch.randn(5, 3), torch.rand(5, 3) + 0.1)
    q = Normal(torch.randn(5, 3), torch.rand(5, 3) + 0.1)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(*p), torch.distributions.Normal(*q)).sum(-1)
    torch.testing.assert_close(L.kl_divergence(p, q), kl)
    few, many = torch.tensor(2.0, requires_grad=True), torch.tensor(4.0, requires_grad=True)
    (L.free_nats_loss(few, 3.0) + L.free_nats_loss(many, 3.0)).backward()
    assert (few.grad, many.grad) == (0, 1)
    terminated = torch.tensor([True, False])
    confident = L.continue_loss(torch.tensor([-9.0, 9.0]), terminated)
    assert confident.max() < 1e-3 < 8 < L.continue_loss(torch.tensor([9.0, -9.0]), terminated).min()
    valid = torch.tensor([[True, True], [True, False]])
    assert L.masked_mean(torch.tensor([[1.0, 2.0], [3.0, 99.0]]), valid) == 2


def test_imagined_returns_end_with_the_episode() -> None:
    rewards, values = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    continues = torch.tensor([[1.0], [0.0], [1.0]], requires_grad=True)
    returns, weights = L.imagined_returns(rewards, values, continues, 0.5, 1.0)
    assert returns.flatten().tolist() == [1 + 0.5 * 2, 2, 4 + 0.5 * 30]
    assert weights.flatten().tolist() == [1, 0.5, 0]
    returns[0].sum().backward()
    assert continues.grad.flatten().tolist() == [0.5 * 2, 0.5 * 0.5 * (4 + 0.5 * 30), 0]
    assert L.imagined_returns(rewards, values, None, 0.5, 0.0)[0].flatten().tolist() == [6, 12, 19]
