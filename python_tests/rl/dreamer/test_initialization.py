"""Initial weights of Dreamer as in Keras, compared with their definitions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from dreamer_worlds import TINY, PointOnLine
from torch import Tensor, nn

from automl_ext import rl
from automl_ext.rl.dreamer import Dreamer, DreamerConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.presets import preset


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


def test_only_the_preset_of_the_paper_uses_them() -> None:
    paper = preset("paper", DreamerConfig())
    assert (paper.initialization, paper.mode_samples) == ("keras", 100)
    assert paper.env == EnvOptions(pixels=True, action_repeat=2)
    assert (DreamerConfig().initialization, preset("pixels", DreamerConfig()).initialization) == ("torch", "torch")
    assert DreamerConfig().mode_samples == 0
