"""What the tests of a GPU allow for errors of the noise."""

from __future__ import annotations

import torch
from noise_error import moved_by_noise_errors

from automl_ext.ops._gumbel_reference import perturbed


def test_twice_the_error_of_each_entry_and_none_of_integers() -> None:
    logits, seed = torch.linspace(-2, 3, 200).reshape(4, 50), torch.tensor(5)
    moved, index = moved_by_noise_errors(lambda x: [3 * x, x.argmax(-1)], logits, seed, -1)
    noise = perturbed(torch.zeros(4, 50, dtype=torch.float64), seed, -1)
    assert noise.abs().max() > 3
    torch.testing.assert_close(moved, 6e-6 * noise.abs().clamp(min=1), rtol=1e-6, atol=0)
    assert torch.equal(index, torch.zeros(4, dtype=torch.float64))


def test_signs_differ_and_what_is_no_number_counts_as_unmoved() -> None:
    logits = torch.zeros(2, 100)
    logits[1, 3] = float("nan")
    (moved,) = moved_by_noise_errors(lambda x: [x - x.mean(-1, keepdim=True)], logits, 7, -1)
    assert (moved[0] > 1.5e-6).all()  # of one sign alone they would nearly cancel
    assert (moved[1] == 0).all()
