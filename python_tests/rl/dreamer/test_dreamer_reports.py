"""Reports of Dreamer runs: imagined episodes and learning curves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from dreamer_worlds import TINY, point_on_line

from automl_ext.rl import A2C, A2CConfig
from automl_ext.rl.dreamer import Dreamer
from automl_ext.rl.loop.loop import train
from automl_ext.rl.loop.train_config import envs_of
from automl_ext.rl.reports.evaluate_run import evaluate_run
from automl_ext.rl.reports.imagination import Dream, draw_dream, dream
from automl_ext.rl.reports.plot import plot_runs


def test_imagined_episode_has_the_length_of_the_real_one(tmp_path: Path) -> None:
    for images in (False, True):
        config = dataclasses.replace(TINY, env_id=point_on_line(True, images))
        agent = Dreamer(config)
        result = dream(agent, envs_of(config, 1, 0), context=4)
        assert result.context == 4
        assert len(result.real) == len(result.imagined) == len(result.imagined_rewards) == 11
        assert result.real_rewards[1:].any()
        assert result.real.shape == result.imagined.shape
        draw_dream(result, tmp_path / "dream.png")
        assert (tmp_path / "dream.png").stat().st_size > 2000
    cut = dream(agent, envs_of(config, 1, 0), context=50, steps=3)
    assert len(cut.real) == cut.context == 4


@pytest.mark.slow
def test_runs_of_several_algorithms_are_plotted(tmp_path: Path) -> None:
    train(Dreamer, TINY, tmp_path / "dreamer")
    settings = {"total_steps": 200, "eval_every": 100, "eval_episodes": 1, "final_episodes": 1}
    train(A2C, A2CConfig(**settings), tmp_path / "a2c")
    written = plot_runs([tmp_path / "dreamer", tmp_path / "a2c"], tmp_path)
    assert [path.name for path in written] == ["curves.png", "imagined.png", "curves.png", "learning.png"]
    assert evaluate_run(tmp_path / "dreamer", 2)["policy"] == "best"


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_images_of_any_number_of_channels_are_drawn(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).uniform(-0.5, 0.5, (12, 8, 8, channels)).astype(np.float32)
    rewards = np.zeros(12, np.float32)
    draw_dream(Dream(5, images, images, rewards, rewards), tmp_path / "dream.png")
    assert (tmp_path / "dream.png").stat().st_size > 1000
