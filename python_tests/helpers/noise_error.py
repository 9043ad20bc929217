"""What an error of Gumbel noise makes of an op's results.

Between devices the noise may differ by 1e-6·max(1, |g|), a dozen roundings of float32 where |g| is large: results of
two devices are as far apart as their formulas make of that. On one CPU it is good to 2 ulp, and no allowance is made.
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
    """Twice the most by which each of results(logits), computed in float64, moves with errors in the noise.

    Noise is added to logits, so its error is put there: once of one sign, then of random ones. Twice, as a few
    draws need not meet the worst. 0 for results that are NaN or integers.
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
