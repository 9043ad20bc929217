"""The effect of errors of Gumbel noise on the results of an op.

The noise of two devices may differ by 1e-6·max(1, |g|), and the results differ accordingly. On one CPU the error of the
noise is at most 2 ulp, and no allowance is made.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from automl_ext.ops._gumbel_reference import perturbed

NOISE_ERROR = 1e-6  # times max(1, |g|)
RANDOM_SIGNS = 4


def moved_by_noise_errors(
    results: Callable[[Tensor], list[Tensor]], logits: Tensor, seed: int | Tensor, dim: int
) -> list[Tensor]:
    """Return twice the largest change of each of results(logits), in float64, under errors of the noise.

    The error of the noise is added to the logits, with equal signs and then with random signs. The factor of two is for
    the worst case, which a few samples may miss. The change is 0 for NaN and integer results.
    """
    logits = logits.detach().cpu().double()
    noise = perturbed(torch.zeros_like(logits), torch.as_tensor(seed).cpu(), dim)
    error = NOISE_ERROR * noise.abs().clamp(min=1)
    generator = torch.Generator().manual_seed(0)
    signs = [torch.ones_like(error)]
    signs += [2.0 * torch.randint(2, error.shape, generator=generator) - 1 for _ in range(RANDOM_SIGNS)]
    exact = results(logits)
    most = [torch.zeros(y.shape, dtype=torch.float64) for y in exact]
    for sign in signs:
        for i, y in enumerate(results(logits + sign * error)):
            if y.is_floating_point():
                most[i] = most[i].maximum(2 * (y - exact[i]).abs().double().nan_to_num())
    return most
