"""Observations normalised by running statistics, as a layer."""

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
from gymnasium import spaces

from automl_ext.rl.networks import Body, RunningNorm
from automl_ext.training.errors import UserError

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def test_statistics_are_those_of_all_batches_together() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1000, 3)) * [1e-3, 1, 1e4] + [1e3, -1, 1e6]).astype(np.float32)
    norm = RunningNorm((3,))
    for part in np.split(x, [1, 8, 8, 500]):  # one of them empty
        norm.update(torch.from_numpy(part))
    wide = x.astype(np.float64)
    torch.testing.assert_close(norm.mean.numpy(), wide.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.variance.numpy(), wide.var(0), rtol=1e-9, atol=0)
    y = norm(torch.from_numpy(x))
    assert y.dtype == torch.float32
    assert y[:, 1:].mean(0).abs().max() < 1e-2
    assert (y[:, 1:].std(0) - 1).abs().max() < 1e-2


def test_leading_dimensions_are_one_batch_and_the_rest_is_clipped() -> None:
    x = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0))
    one, two = RunningNorm((3,)), RunningNorm((3,))
    one.update(x)
    two.update(x.reshape(35, 3))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one(x).reshape(35, 3), two(x.reshape(35, 3)))
    assert one(torch.full((1, 3), 1e9)).tolist() == [[10.0] * 3]
    assert RunningNorm((3,))(torch.tensor([[0.5, 20.0, -20.0]])).tolist() == [[0.5, 10.0, -10.0]]


def test_a_constant_observation_stays_finite() -> None:
    norm = RunningNorm((1,))
    norm.update(torch.full((10, 1), 3.0))
    assert norm(torch.full((2, 1), 3.0)).tolist() == [[0.0], [0.0]]


def test_body_normalises_first_and_its_state_holds_the_statistics() -> None:
    body, plain = Body(SPACE, (4,), normalize=True), Body(SPACE, (4,))
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)) * 5 + 2
    assert plain.norm is None
    before = body(x)
    body.norm.update(x)
    assert not torch.equal(body(x), before)
    plain[0].load_state_dict(body[1].state_dict())
    torch.testing.assert_close(body(x), plain((x - x.mean(0)) / x.std(0, correction=0)))
    other = Body(SPACE, (4,), normalize=True)
    other.load_state_dict(body.state_dict())
    assert torch.equal(other(x), body(x))
    assert not any(p.requires_grad for p in body.norm.buffers())


def test_images_are_not_normalised() -> None:
    with pytest.raises(UserError, match="only vectors are normalised"):
        Body(spaces.Box(0, 255, (4, 84, 84), np.uint8), normalize=True)
