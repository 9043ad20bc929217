"""The updates and the initial weights of world model, policy and value network."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from dreamer_worlds import TINY, PointOnLine, point_on_line
from gymnasium import spaces
from torch import Tensor, nn

from automl_ext import rl
from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import NoEnvs
from automl_ext.rl.presets import preset
from automl_ext.rl.replay.sequences import Sequences


def without_envs(config: DreamerConfig, observations: spaces.Space, actions: spaces.Space) -> Dreamer:
    """Make an agent of these spaces, which learns but does not act."""
    return Dreamer(config, NoEnvs(observations, actions, 1))  # type: ignore[arg-type]


def test_behavior_gradient_changes_the_policy_and_not_the_model() -> None:
    agent = Dreamer(dataclasses.replace(TINY, env_id=point_on_line(True)))
    agent.iterate()
    start = torch.randn(7, agent.model.features)
    before = [x.clone() for x in (*agent.model.parameters(), *agent.actor.parameters())]
    agent.learn_behavior(start)
    after = [*agent.model.parameters(), *agent.actor.parameters()]
    changed = [not torch.equal(x, y) for x, y in zip(before, after, strict=True)]
    model_size = len(list(agent.model.parameters()))
    assert not any(changed[:model_size])
    assert all(changed[model_size:])
    assert agent.vectors[0].grad.eq(0).all()
    assert all(p.requires_grad for p in agent.model.parameters())


def test_imagination_starts_from_valid_nonterminal_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding and terminal states are skipped; all other states are used."""
    agent = Dreamer(dataclasses.replace(TINY, env_id=point_on_line(True)))
    valid = torch.tensor([[True, True], [True, True], [True, False]])
    terminated = torch.tensor([[False, False], [False, True], [False, False]])
    observations, actions = torch.randn(3, 2, 2), torch.randn(3, 2, 1)
    sequences = Sequences(observations, actions, torch.randn(3, 2), terminated, valid, valid)
    states: list[Tensor] = []
    learn_dynamics, learn_behavior = agent.learn_dynamics, agent.learn_behavior

    def dynamics(*args: Any) -> Any:
        features, metrics = learn_dynamics(*args)
        states.append(features)
        return features, metrics

    def behavior(start: Tensor) -> Any:
        states.append(start)
        return learn_behavior(start)

    monkeypatch.setattr(agent, "learn_dynamics", dynamics)
    monkeypatch.setattr(agent, "learn_behavior", behavior)
    assert all(x.isfinite() for x in agent.learn_from(sequences).values())
    features, start = states
    assert torch.equal(start, torch.stack([features[0, 0], features[0, 1], features[1, 0], features[2, 0]]))


def test_placeholder_rewards_are_not_learned() -> None:
    def reward_loss(rewards: Tensor) -> float:
        agent = without_envs(TINY, spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2))
        all_valid, has_reward = torch.ones(4, 2, dtype=torch.bool), torch.ones(4, 2, dtype=torch.bool)
        has_reward[0, 0] = False
        observations, actions = torch.ones(4, 2, 3), torch.zeros(4, 2, 2)
        sequences = Sequences(observations, actions, rewards, ~all_valid, all_valid, has_reward)
        return float(agent.learn_dynamics(sequences)[1]["reward_loss"])

    ones = torch.ones(4, 2)
    first, other = ones.clone(), ones.clone()
    first[0, 0], other[0, 1] = 5, 5
    assert reward_loss(first) == reward_loss(ones) != reward_loss(other)


def test_sizes_of_the_paper() -> None:
    """Numbers of parameters, counted by hand, and one update on a short sequence."""
    config = preset("paper", DreamerConfig())
    action_space = spaces.Box(-1, 1, (6,), np.float32)
    agent = without_envs(config, spaces.Box(0, 255, (64, 64, 3), np.uint8), action_space)

    def dense(*sizes: int) -> int:
        return sum((i + 1) * o for i, o in itertools.pairwise(sizes))

    def convolution(inputs: int, outputs: int, side: int) -> int:
        return inputs * outputs * side**2 + outputs

    encoder = sum(convolution(i, o, 4) for i, o in ((3, 32), (32, 64), (64, 128), (128, 256)))
    decoder = dense(230, 1024) + convolution(1024, 128, 5) + convolution(128, 64, 5)
    decoder += convolution(64, 32, 6) + convolution(32, 3, 6)
    gru = 3 * (200 * 200 + 200 * 200 + 2 * 200)
    rssm = dense(30 + 6, 200) + gru + dense(200, 200, 60) + dense(200 + 1024, 200, 60)
    reward = dense(230, 400, 400, 1)
    assert sum(p.numel() for p in agent.model.parameters()) == encoder + decoder + rssm + reward
    assert agent.vectors[1].numel() == dense(230, 400, 400, 400, 400, 12)
    assert agent.vectors[2].numel() == dense(230, 400, 400, 400, 1)
    sequences = Sequences(
        torch.randint(256, (3, 1, 64, 64, 3), dtype=torch.uint8),
        torch.rand(3, 1, 6),
        torch.rand(3, 1),
        torch.zeros(3, 1, dtype=torch.bool),
        torch.ones(3, 1, dtype=torch.bool),
        torch.ones(3, 1, dtype=torch.bool),
    )
    before = [vector.detach().clone() for vector in agent.vectors]
    measured = agent.learn_from(sequences)
    assert all(np.isfinite(float(x)) for x in measured.values())
    for vector, old, lr in zip(agent.vectors, before, (6e-4, 8e-5, 8e-5), strict=True):
        change = (vector.detach() - old).abs().max()
        assert change == pytest.approx(lr, rel=0.01)  # Adam's first step


def is_uniform(weight: Tensor, bound: float) -> bool:
    """Whether the weights fill [−bound, bound] evenly."""
    enough = 0.9 if weight.numel() > 30 else 0.5
    return enough * bound < weight.abs().max().item() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("images", [False, True])
def test_weights_are_those_of_keras(images: bool) -> None:
    config = dataclasses.replace(TINY, initialization="keras")
    agent = rl.make("dreamer", lambda: PointOnLine(continuous=True, images=images))
    agent = Dreamer(config, agent.envs)
    model = agent.model
    networks = (model, agent.actor, agent.value)
    layers = [m for n in networks for m in n.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) > 10
    for layer in layers:
        assert not layer.bias.any()
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        assert is_uniform(layer.weight, math.sqrt(6 / (fan_in + fan_out)))
    cell = model.rssm.cell
    assert is_uniform(cell.weight_ih, math.sqrt(6 / (16 + 3 * 16)))
    torch.testing.assert_close(cell.weight_hh.T @ cell.weight_hh, torch.eye(16), atol=1e-5, rtol=0)
    assert not cell.bias_ih.any()
    assert not cell.bias_hh.any()


def test_convolutions_keep_the_scale_of_their_inputs() -> None:
    """With initialization "he": of images with unit variance, and of the features from which images are decoded."""
    config = dataclasses.replace(TINY, depth=16)
    space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    model = without_envs(config, space, spaces.Discrete(2)).model
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 8
    assert not any(layer.bias.any() for layer in convolutions)
    embeddings = model.encode(torch.randn(50, 64, 64, 3))
    assert 0.5 < embeddings.square().mean().sqrt() < 2
    points = torch.randn(50, 32 * config.depth)
    images = model.decoder[1:](points)
    assert 0.5 < images.square().mean().sqrt() < 2

    plain = without_envs(dataclasses.replace(config, initialization="keras"), space, spaces.Discrete(2)).model
    assert plain.decoder[1:](points).square().mean().sqrt() < 0.1


def test_only_the_preset_of_the_paper_uses_them() -> None:
    paper = preset("paper", DreamerConfig())
    assert (paper.initialization, paper.mode_samples) == ("keras", 100)
    assert paper.env == EnvOptions(pixels=True, action_repeat=2)
    assert (DreamerConfig().initialization, preset("pixels", DreamerConfig()).initialization) == ("he", "he")
    assert DreamerConfig().mode_samples == 0
