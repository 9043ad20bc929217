"""The allowance of the GPU tests for errors of the noise."""

from __future__ import annotations

import torch
from noise_error import moved_by_noise_errors

from automl_ext.ops._gumbel_reference import perturbed


def test_allowance_is_twice_the_error_and_zero_for_integers() -> None:
    logits, seed = torch.linspace(-2, 3, 200).reshape(4, 50), torch.tensor(5)
    moved, index = moved_by_noise_errors(lambda x: [3 * x, x.argmax(-1)], logits, seed, -1)
    noise = perturbed(torch.zeros(4, 50, dtype=torch.float64), seed, -1)
    assert noise.abs().max() > 3
    torch.testing.assert_close(moved, 6e-6 * noise.abs().clamp(min=1), rtol=1e-6, atol=0)
    assert torch.equal(index, torch.zeros(4, dtype=torch.float64))


def test_signs_are_random_and_nan_counts_as_unchanged() -> None:
    logits = torch.zeros(2, 100)
    logits[1, 3] = float("nan")
    (moved,) = moved_by_noise_errors(lambda x: [x - x.mean(-1, keepdim=True)], logits, 7, -1)
    assert (moved[0] > 1.5e-6).all()  # errors of equal signs would nearly cancel
    assert (moved[1] == 0).all()
