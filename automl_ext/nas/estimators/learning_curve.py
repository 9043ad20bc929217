"""Learning-curve extrapolation: predict the final score of a training, with its uncertainty, from the first epochs.

The model of a curve y(t) starts at s in the first epoch and converges to a, with one of the shapes φ below (φ(1) = 1,
φ(∞) = 0). A discrepancy w accounts for the error of the shape, and ε is noise:

    y(t) = a + (s − a)·φ(t) + w(log t) + ε,   w Brownian motion with variance κ² per unit of log t,
                                              ε ~ N(0, σ²(1 + (r/t)²))

    power      ((t + c)/(1 + c))^−d        pow4 of Domhan, Springenberg and Hutter (IJCAI 2015); pow3 if c = 0
    stretched  exp(−((t − 1)/u)^k)         Weibull in the same paper; exponential if k = 1
    hill       (1 + m^d)/(t^d + m^d)       slow start if m and d are large

A value r > 0 models trainings that are unsteady at first. The parameters of the shapes and of the noise (σ, r) lie on a
grid. At each grid point, a and s have a normal prior. The model is linear in them, so their posterior is normal, and
the evidence has a closed form (Rasmussen & Williams 2006, §2.7: Gaussian process with explicit basis functions). A
prediction is the mixture over all grid points, weighted by evidence. Nothing is optimized or sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


def spaced(low: float, high: float, count: int) -> list[float]:
    """Return ``count`` points with equal ratios, from ``low`` to ``high``."""
    return [low * (high / low) ** (i / (count - 1)) for i in range(count)]


# With a much coarser grid, no point fits a curve with little noise, and predictions are overconfident: their standard
# deviations are too small.
FAMILIES = {
    "power": [*product((0.0, 2.0, 8.0), spaced(0.1, 4.5, 14))],  # c, d
    "stretched": [*product(spaced(0.5, 100.0, 24), (0.5, 0.75, 1.0))],  # u, k
    "hill": [*product(spaced(1.0, 60.0, 12), (1.0, 2.0, 4.0))],  # m, d
}
NOISES = [*product(spaced(0.002, 0.1, 8), (0.0, 8.0, 30.0))]  # the grid of (σ, r)
KAPPA = 0.01  # standard deviation of the discrepancy w
PRIOR_MEAN, PRIOR_STD = (0.8, 0.4), (0.25, 0.3)  # of a and s; accuracies from 0 to 1


@dataclass(frozen=True)
class Prediction:
    """The predictive distribution of a future score: a mixture of normal distributions, truncated at 1."""

    weights: Tensor  # [n]
    means: Tensor  # [n]
    stds: Tensor  # [n]

    @property
    def mean(self) -> float:
        """The mean, at most 1."""
        return min(1.0, (self.weights * self.means).sum().item())

    def exceeds(self, value: float) -> float:
        """Return the probability of a score above ``value``; 0 from 1 on."""
        if value >= 1:
            return 0.0
        return (self.weights * torch.special.ndtr((self.means - value) / self.stds)).sum().item()

    def quantile(self, q: float) -> float:
        """Return the q-quantile of the score, at most 1.

        Raises:
            ValueError: ``q`` is not in (0, 1).
        """
        if not 0 < q < 1:
            raise ValueError(f"q: expected a number in (0, 1), got {q}")
        low, high = (self.means - 9 * self.stds).min().item(), (self.means + 9 * self.stds).max().item()
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.exceeds(middle) > 1 - q else (low, middle)
        return min(1.0, high)


@dataclass(frozen=True)
class LearningCurve:
    """The posterior given the scores of epochs 1 … T, for K shapes and S noises. Created by :func:`fit`."""

    weights: Tensor  # [K, S], posterior probabilities
    shifts: Tensor  # [K, S, 2], posterior mean of (a, s) minus PRIOR_MEAN
    covariances: Tensor  # [K, S, 2, 2], posterior covariance of (a, s)
    factors: Tensor  # [S, T, T], Cholesky factor L of the covariance of w + ε
    design: Tensor  # [K, S, T, 2], L⁻¹ times the coefficients of (a, s)
    residuals: Tensor  # [K, S, T], L⁻¹ times (scores − prior mean)

    def predict(self, epoch: float) -> Prediction:
        """Predict the score measured after ``epoch`` epochs, including its noise.

        Raises:
            ValueError: ``epoch`` is below 1.
        """
        if not epoch >= 1:
            raise ValueError(f"epoch: expected at least 1, got {epoch}")
        t, seen = float64([epoch]), torch.arange(1.0, self.factors.shape[-1] + 1, dtype=torch.float64)
        x = linear_part(t)[:, 0]  # [K, 2]
        k = whiten(self.factors, discrepancy(seen, t))[..., 0]  # [S, T]
        rest = x[:, None] - torch.einsum("st,kstp->ksp", k, self.design)
        means = (x @ float64(PRIOR_MEAN))[:, None] + (self.residuals * k).sum(-1) + (rest * self.shifts).sum(-1)
        variances = discrepancy(t, t)[0, 0] + noise_variances(t)[:, 0] - k.square().sum(-1)
        variances = variances + torch.einsum("ksp,kspq,ksq->ks", rest, self.covariances, rest)
        return Prediction(self.weights.flatten(), means.flatten(), variances.sqrt().flatten())

    @property
    def families(self) -> dict[str, float]:
        """The posterior probability of each family."""
        parts = self.weights.sum(1).split([len(grid) for grid in FAMILIES.values()])
        return {name: part.sum().item() for name, part in zip(FAMILIES, parts, strict=True)}


def fit(scores: Sequence[float]) -> LearningCurve:
    """Fit the model to the scores of the first epochs, which are accuracies from 0 to 1.

    Raises:
        ValueError: ``scores`` is empty, or a score is not in [0, 1].
    """
    if not len(scores):
        raise ValueError("scores: expected at least one, got none")
    for score in scores:
        if not 0 <= score <= 1:
            raise ValueError(f"scores: expected accuracies from 0 to 1, got {score}")
    t = torch.arange(1.0, len(scores) + 1, dtype=torch.float64)
    factors = torch.linalg.cholesky(discrepancy(t, t) + noise_variances(t).diag_embed())
    x, prior_std = linear_part(t), float64(PRIOR_STD)
    columns = whiten(factors, x.transpose(0, 1).flatten(1))  # [S, T, 2K]
    design = columns.unflatten(-1, (-1, 2)).permute(2, 0, 1, 3)
    residuals = whiten(factors, float64(scores)[:, None])[..., 0] - design @ float64(PRIOR_MEAN)

    precisions = (prior_std**-2).diag() + design.mT @ design
    covariances = torch.linalg.inv(precisions)
    projected = torch.einsum("kstp,kst->ksp", design, residuals)
    shifts = torch.einsum("kspq,ksq->ksp", covariances, projected)
    surprise = residuals.square().sum(-1) - (shifts * projected).sum(-1)
    volume = 2 * factors.diagonal(dim1=-2, dim2=-1).log().sum(-1) + torch.logdet(precisions)  # up to a constant
    log_prior = torch.cat([float64([-math.log(len(grid))] * len(grid)) for grid in FAMILIES.values()])
    # Accuracies are at most 1: weight each grid point by the posterior probability of a ≤ 1.
    possible = torch.special.log_ndtr((1 - PRIOR_MEAN[0] - shifts[..., 0]) / covariances[..., 0, 0].sqrt())
    log_weights = log_prior[:, None] - (surprise + volume) / 2 + possible
    weights = torch.softmax(log_weights.flatten(), 0).view_as(log_weights)
    return LearningCurve(weights, shifts, covariances, factors, design, residuals)


def shapes(t: Tensor) -> Tensor:
    """Compute φ for every point of FAMILIES at the epochs t [T] ≥ 1. Returns [K, T]."""
    (c, d), (u, k), (m, h) = (float64(grid).T.unsqueeze(-1) for grid in FAMILIES.values())
    power = ((t + c) / (1 + c)) ** -d
    stretched = torch.exp(-(((t - 1) / u) ** k))
    hill = (1 + m**h) / (t**h + m**h)
    return torch.cat([power, stretched, hill])


def linear_part(t: Tensor) -> Tensor:
    """Compute the coefficients of (a, s) at the epochs t [T]. Returns [K, T, 2]."""
    phi = shapes(t)
    return torch.stack([1 - phi, phi], dim=-1)


def discrepancy(t: Tensor, other: Tensor) -> Tensor:
    """Compute the covariance of w between the epochs t [T] and other [U]. Returns [T, U]."""
    return KAPPA**2 * torch.minimum(t[:, None].log(), other.log())


def noise_variances(t: Tensor) -> Tensor:
    """Compute the variance of ε for every noise at the epochs t [T]. Returns [S, T]."""
    sigma, r = float64(NOISES).T.unsqueeze(-1)
    return sigma**2 * (1 + (r / t) ** 2)


def whiten(factors: Tensor, columns: Tensor) -> Tensor:
    """Solve L x = columns for every Cholesky factor L in ``factors``."""
    return torch.linalg.solve_triangular(factors, columns, upper=False)


def float64(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
