"""Adam and clipping in NumPy, compared with torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from automl_ext.rl.networks import numpy_adam


def test_steps_equal_those_of_torch_and_share_their_state() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(500, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [torch.optim.Adam([p], 1e-2, eps=1e-5, fused=True) for p in (ours, theirs)]
    for i in range(40):
        gradient = torch.randn(500, generator=generator) * 10.0 ** (i % 4 - 3)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - i / 50)
        numpy_adam.step(optimizers[0], ours) if i % 10 < 8 else optimizers[0].step()
        optimizers[1].step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    found, expected = (optimizer.state_dict()["state"][0] for optimizer in optimizers)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("limit", [0.5, 100.0, math.inf])
def test_clipping_equals_that_of_torch(limit: float) -> None:
    gradient = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    expected = torch.nn.Parameter(torch.zeros(50))
    expected.grad = torch.from_numpy(gradient.copy())
    norm = torch.nn.utils.clip_grad_norm_([expected], limit)
    assert numpy_adam.clip_norm(gradient, limit) == pytest.approx(norm.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, expected.grad.numpy(), rtol=1e-5)
