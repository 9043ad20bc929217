"""The RSSM, imagined trajectories and the losses."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from automl_ext.rl.dreamer import DreamerConfig
from automl_ext.rl.dreamer.actions import actions_of
from automl_ext.rl.dreamer.dreamer import actor_loss, imagine, imagined_returns, value_loss
from automl_ext.rl.dreamer.world_model import (
    RSSM,
    Normal,
    Observed,
    WorldModel,
    image_decoder,
    kl_divergence,
    masked_mean,
    model_loss,
)
from automl_ext.rl.replay.sequences import Sequences


def test_rssm_observe_equals_single_steps() -> None:
    torch.manual_seed(0)
    rssm = RSSM(2, 5, deter=6, stoch=3, hidden=7)
    embeddings, actions, noise = torch.randn(4, 2, 5), torch.randn(4, 2, 2), torch.randn(4, 2, 3)
    observed = rssm.observe(embeddings, actions, noise)
    assert observed.features.shape == (4, 2, 9)
    assert [x.shape for x in (*observed.posterior, *observed.prior)] == [(4, 2, 3)] * 4
    deter, stoch = rssm.initial(2)
    for t in range(4):
        x = torch.nn.functional.elu(rssm.input(torch.cat([stoch, actions[t]], 1)))
        deter = rssm.cell(x, deter)
        mean, raw = torch.nn.Sequential(*rssm.posterior_mlp)(torch.cat([deter, embeddings[t]], 1)).chunk(2, -1)
        std = torch.nn.functional.softplus(raw) + 0.1
        stoch = mean + std * noise[t]
        torch.testing.assert_close(observed.posterior.std[t], std)
        torch.testing.assert_close(observed.features[t], torch.cat([deter, stoch], -1))
        torch.testing.assert_close(observed.prior.mean[t], rssm.prior(deter).mean)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])
def test_gradient_of_imagined_trajectories_reaches_the_actions(space: gymnasium.Space) -> None:
    """Continuous actions: equal to finite differences of a policy's bias. Discrete actions: nonzero."""
    torch.manual_seed(0)
    actions = actions_of(space)
    rssm = RSSM(actions.size, 5, deter=6, stoch=3, hidden=7).double().requires_grad_(False)
    bias = torch.zeros(actions.outputs, dtype=torch.float64, requires_grad=True)
    start = torch.randn(4, 9, dtype=torch.float64)

    def total(bias: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        features, entropy = imagine(rssm, lambda x: bias.expand(len(x), -1), actions, start, 5, generator)
        assert features.shape == (6, 4, 9)
        assert entropy.shape == (5, 4)
        assert torch.equal(features[0], start)
        return features.sin().sum()

    if isinstance(space, spaces.Box):
        assert torch.autograd.gradcheck(total, (bias,))
    else:
        (gradient,) = torch.autograd.grad(total(bias), bias)
        assert gradient.abs().min() > 0
        assert gradient.sum().abs() < 1e-9  # adding a constant to all logits does not change a softmax


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])
def test_the_actor_has_no_gradient_through_the_states_that_it_reads(space: gymnasium.Space) -> None:
    """Its gradient equals that of a policy that reads the same states as constants."""
    torch.manual_seed(0)
    actions = actions_of(space)
    rssm = RSSM(actions.size, 5, deter=6, stoch=3, hidden=7).double().requires_grad_(False)
    weight = torch.randn(9, actions.outputs, dtype=torch.float64, requires_grad=True)
    start, seen = torch.randn(4, 9, dtype=torch.float64), list[Tensor]()

    def gradient(actor: Callable[[Tensor], Tensor]) -> Tensor:
        features, entropy = imagine(rssm, actor, actions, start, 5, torch.Generator().manual_seed(1))
        return torch.autograd.grad(features.sin().sum() + entropy.sum(), weight)[0]

    def reading(state: Tensor) -> Tensor:
        seen.append(state.detach().clone())
        return state @ weight

    found = gradient(reading)
    assert found.abs().min() > 0
    constants = iter(seen)
    torch.testing.assert_close(found, gradient(lambda _: next(constants) @ weight))


def test_kl_divergence_and_masked_mean() -> None:
    p = Normal(torch.randn(5, 3), torch.rand(5, 3) + 0.1)
    q = Normal(torch.randn(5, 3), torch.rand(5, 3) + 0.1)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(*p), torch.distributions.Normal(*q)).sum(-1)
    torch.testing.assert_close(kl_divergence(p, q), kl)
    valid = torch.tensor([[True, True], [True, False]])
    assert masked_mean(torch.tensor([[1.0, 2.0], [3.0, 99.0]]), valid) == 2


def test_model_loss_is_the_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    decoded, rewards, logits = torch.randn(3, 2, 4), torch.randn(3, 2, 1), torch.randn(3, 2, 1)
    predictors: Any = SimpleNamespace(
        observation_std=0.5, decode=lambda x: decoded, reward=lambda x: rewards, continues=lambda x: logits
    )
    mean = torch.randn(3, 2, 5, requires_grad=True)
    posterior, prior = Normal(mean, torch.rand(3, 2, 5) + 0.1), Normal(torch.randn(3, 2, 5), torch.rand(3, 2, 5) + 0.1)
    states = Observed(torch.zeros(3, 2, 9), posterior, prior)
    valid = torch.tensor([[True, True], [True, True], [True, False]])
    has_reward, terminated = valid.clone(), torch.zeros(3, 2, dtype=torch.bool)
    has_reward[0, 0], terminated[1, 1] = False, True
    observations, received = torch.randn(3, 2, 4), torch.randn(3, 2)
    sequences = Sequences(observations, torch.zeros(3, 2, 1), received, terminated, valid, has_reward)
    scales = {"reward_scale": 2.0, "kl_scale": 3.0, "continue_scale": 4.0}
    config = DreamerConfig(**scales)
    loss, terms = model_loss(predictors, states, observations, sequences, config)

    of_observation = -torch.distributions.Normal(decoded, 0.5).log_prob(observations).sum(-1)
    of_observation += 4 * torch.distributions.Normal(0.0, 0.5).log_prob(torch.tensor(0.0))  # the constant
    of_reward = 0.5 * (rewards[..., 0] - 2 * received) ** 2
    of_continuation = -torch.distributions.Bernoulli(logits=logits[..., 0]).log_prob((~terminated).float())
    expected = {
        "observation_loss": of_observation[valid].mean(),
        "reward_loss": of_reward[has_reward].mean(),
        "kl": kl_divergence(posterior, prior)[valid].mean(),
        "continue_loss": of_continuation[valid].mean(),
    }
    torch.testing.assert_close(terms, {name: x.detach() for name, x in expected.items()})
    total = expected["observation_loss"] + expected["reward_loss"] + 3 * expected["kl"] + 4 * expected["continue_loss"]
    torch.testing.assert_close(loss, total)

    for free_nats, learns in ((terms["kl"].item() - 0.1, True), (terms["kl"].item() + 0.1, False)):
        config = DreamerConfig(**scales, free_nats=free_nats)
        loss, terms = model_loss(predictors, states, observations, sequences, config)
        assert torch.autograd.grad(loss, mean)[0].any() == learns
        torch.testing.assert_close(loss, total + (0 if learns else 0.3))


def plain_decoder(decoder: nn.Sequential) -> nn.Sequential:
    """Return the layers of Hafner et al. 2019, appendix A, with the parameters of a decoder."""
    layers: list[nn.Module] = [nn.Linear(decoder[0].in_features, decoder[0].out_features), decoder[1]]
    for layer in decoder[2:]:
        if isinstance(layer, nn.ConvTranspose2d):
            size = layer.kernel_size
            layers.append(nn.ConvTranspose2d(layer.in_channels, layer.out_channels, size, stride=2))
        else:
            layers.append(nn.ReLU())
    plain = nn.Sequential(*layers).to(decoder[0].weight.dtype)
    plain.load_state_dict(decoder.state_dict())
    return plain


@pytest.mark.parametrize("channels", [1, 3])
def test_decoder_equals_transposed_convolutions(channels: int) -> None:
    """Images and all gradients."""
    torch.manual_seed(0)
    decoder = image_decoder(5, channels, 2).double()
    plain = plain_decoder(decoder)
    found = []
    for network in (decoder, plain):
        features = torch.linspace(-2, 2, 15, dtype=torch.float64).view(3, 5).requires_grad_()
        images = network(features)
        gradients = torch.autograd.grad(images.sin().sum(), [features, *network.parameters()])
        found.append((images, *gradients))
    assert found[0][0].shape == (3, channels, 64, 64)
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y)


def test_loss_of_images_equals_the_plain_formula() -> None:
    """The loss and its gradient for every parameter, computed by torch's layers and distributions."""
    torch.manual_seed(0)
    config = DreamerConfig(
        deter=6, stoch=3, hidden=7, units=8, depth=2, free_nats=0.0, kl_scale=0.1, normalize_images=False
    )
    model = WorldModel(spaces.Box(0, 255, (64, 64, 3), np.uint8), 2, config)
    images = torch.randint(256, (4, 2, 64, 64, 3), dtype=torch.uint8)
    actions, noise, rewards = torch.rand(4, 2, 2), torch.randn(4, 2, 3), torch.randn(4, 2)
    valid = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    terminated, has_reward = torch.zeros(4, 2, dtype=torch.bool), valid.clone()
    terminated[2, 1], has_reward[0] = True, False
    sequences = Sequences(images, actions, rewards, terminated, valid, has_reward)

    prepared = model.prepare(images)
    states = model.rssm.observe(model.encode(prepared), actions, noise)
    loss, _ = model_loss(model, states, prepared, sequences, config)
    gradients = torch.autograd.grad(loss, list(model.parameters()))

    scaled = images.float() / 255 - 0.5
    convolutions = nn.Sequential(*list(model.encoder)[1:])
    embeddings = convolutions(scaled.flatten(0, 1).movedim(3, 1).contiguous()).view(4, 2, -1)
    states = model.rssm.observe(embeddings, actions, noise)
    plain = plain_decoder(model.decoder)
    for x, y in zip(plain.parameters(), model.decoder.parameters(), strict=True):
        x.data = y.data
    decoded = plain(states.features.flatten(0, 1)).movedim(1, 3).view(scaled.shape)

    def mean(x: Tensor, where: Tensor) -> Tensor:
        return x[where].mean()

    posterior, prior = (torch.distributions.Normal(*x) for x in (states.posterior, states.prior))
    logits = model.continues(states.features).squeeze(-1)
    expected = mean(0.5 * (decoded - scaled).square().sum((2, 3, 4)), valid)
    expected = expected + mean(0.5 * (model.reward(states.features).squeeze(-1) - rewards).square(), has_reward)
    expected = expected + 0.1 * mean(torch.distributions.kl_divergence(posterior, prior).sum(-1), valid)
    goes_on = torch.distributions.Bernoulli(logits=logits).log_prob((~terminated).float())
    expected = expected - 10 * mean(goes_on, valid)
    torch.testing.assert_close(loss, expected)
    decoder = iter(plain.parameters())
    own = [next(decoder) if name.startswith("decoder") else p for name, p in model.named_parameters()]
    for x, y in zip(gradients, torch.autograd.grad(expected, own), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_imagined_returns_end_with_the_episode() -> None:
    rewards, values = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    continues = torch.tensor([[1.0], [0.0], [1.0]], requires_grad=True)
    returns, weights = imagined_returns(rewards, values, continues, 0.5, 1.0)
    assert returns.flatten().tolist() == [1 + 0.5 * 2, 2, 4 + 0.5 * 30]
    assert weights.flatten().tolist() == [1, 0.5, 0]
    returns[0].sum().backward()
    assert continues.grad.flatten().tolist() == [0.5 * 2, 0.5 * 0.5 * (4 + 0.5 * 30), 0]
    assert imagined_returns(rewards, values, None, 0.5, 0.0)[0].flatten().tolist() == [6, 12, 19]


def test_losses_of_policy_and_value() -> None:
    returns, entropy = torch.tensor([[2.0, 4.0]], requires_grad=True), torch.tensor([[0.5, 1.5]])
    weights, values = torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 6.0]], requires_grad=True)
    loss = actor_loss(returns, entropy, weights, 0.1)
    assert loss.item() == pytest.approx(-(2.05 + 0.5 * 4.15) / 2)  # the policy ascends returns and entropy
    assert torch.autograd.grad(loss, returns)[0].tolist() == [[-0.5, -0.25]]
    loss = value_loss(values, returns, weights)
    assert loss.item() == pytest.approx((0.5 * 1 + 0.5 * 0.5 * 4) / 2)
    of_values, of_returns = torch.autograd.grad(loss, (values, returns), allow_unused=True)
    assert of_values.tolist() == [[-0.5, 0.5]]
    assert of_returns is None
