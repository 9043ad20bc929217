"""Rendered images of any form become uint8 [height, width, 3], for observations of pixels and for videos."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from automl_ext.rl import make_envs
from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.envs.guard import EnvError, rgb
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.wrappers import averaged
from automl_ext.rl.reports.video import record
from automl_ext.training.errors import UserError

FORMS = [  # value of a white pixel, shape of the image, and dtype
    (255, (4, 6, 3), np.uint8),
    (255, (4, 6), np.uint8),
    (255, (4, 6, 1), np.uint8),
    (255, (4, 6, 4), np.uint8),
    (255, (4, 6, 3), np.int64),
    (300, (4, 6, 3), np.int64),
    (1.0, (4, 6, 3), np.float32),
    (255.0, (4, 6, 3), np.float64),
    (True, (4, 6), np.bool_),
]


@pytest.mark.parametrize(("white", "shape", "dtype"), FORMS)
def test_images_become_bytes_in_three_channels(white: Any, shape: tuple[int, ...], dtype: Any) -> None:
    image = np.zeros(shape, dtype)
    image[:2] = white
    found = rgb(image, "here")
    assert (found.shape, found.dtype) == ((4, 6, 3), np.uint8)
    assert np.unique(found[:2]).tolist() == [255]
    assert np.unique(found[2:]).tolist() == [0]


@pytest.mark.parametrize("image", [None, "image", np.zeros(3), np.zeros((0, 4, 3)), np.zeros((4, 4, 2))])
def test_other_results_are_refused(image: Any) -> None:
    with pytest.raises(EnvError, match=r"^here: render\(\) must return an image \[height, width, 3\], got "):
        rgb(image, "here")


class Painted(gymnasium.Env[Any, Any]):
    """Renders ``image``; in the second step one of twice the height."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    image = np.zeros((8, 8, 3))
    grows = False

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.steps = render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(1, np.float32), 0.0, self.steps == 3, False, {}

    def render(self) -> Any:
        return np.repeat(self.image, 2, axis=0) if self.grows and self.steps else self.image


class Half(Painted):
    """Like MinAtar: floats in [0, 1]."""

    image = np.full((8, 8, 3), 0.5, np.float32)


class Long(Painted):
    """Seven steps, with a reward of 2 each."""

    def step(self, action: Any) -> Any:
        observation, _, _, truncated, info = super().step(action)
        return observation, 2.0, self.steps == 7, truncated, info


class Growing(Painted):
    grows = True


def test_pixels_of_float_images() -> None:
    envs = make_envs(env_id_of(Half), 1, 0, EnvOptions(pixels=True))
    assert envs.observations.shape == (1, 64, 64, 3)
    assert np.unique(envs.observations).tolist() == [128]


@pytest.mark.parametrize("size", [(400, 600), (240, 320), (210, 160), (65, 67), (64, 64), (40, 200)])
def test_pixels_are_averages_of_areas(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for given in (image, image.swapaxes(0, 1)):  # rendered images are often transposed in memory
        channels_first = torch.from_numpy(given.copy()).permute(2, 0, 1).float()
        expected = torch.nn.functional.adaptive_avg_pool2d(channels_first, 64).permute(1, 2, 0).round().byte().numpy()
        assert np.array_equal(averaged(given), expected)


def test_a_film_has_the_colors_of_the_images() -> None:
    film = record(lambda x: np.zeros(len(x), int), make_envs(env_id_of(Half), 1, 0, render=True))
    assert {(frame.shape, int(frame.min()), int(frame.max())) for frame in film.frames} == {((200, 200, 3), 128, 128)}


def test_a_film_of_several_tasks_is_of_the_first_one() -> None:
    """The second task ends first."""
    envs = make_envs(f"{env_id_of(Long)},{env_id_of(Half)}", 1, 0, EnvOptions(), render=True)
    film = record(lambda observations: np.zeros(len(observations), int), envs)
    assert (len(film.frames), film.episode_return, film.cut) == (7, 14.0, False)


def test_images_that_change_their_size_are_refused() -> None:
    envs = make_envs(env_id_of(Growing), 1, 0, render=True)
    with pytest.raises(UserError, match=r"images of one size, got \[200, 200, 3\] and "):
        record(lambda x: np.zeros(len(x), int), envs)
