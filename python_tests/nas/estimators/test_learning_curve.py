"""Learning curves: the posterior, and the calibration of predictions."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from automl_ext.nas.estimators import learning_curve
from automl_ext.nas.estimators.learning_curve import FAMILIES, NOISES, Prediction, fit, shapes

EPOCHS = 30


def curve(family: str, rng: np.random.Generator) -> np.ndarray:
    """Return a noiseless curve [EPOCHS] that is not on the grid; "log" belongs to none of the families."""
    t = np.arange(1, EPOCHS + 1.0)
    a = rng.uniform(0.5, 0.97)
    s = rng.uniform(0.1, a - 0.05)
    if family == "power":
        phi = t ** -rng.uniform(0.4, 1.5)
    elif family == "exponential":
        phi = np.exp(-(t - 1) / np.exp(rng.uniform(np.log(1.5), np.log(20))))
    else:
        phi = 1 - np.log(t) / np.log(EPOCHS * rng.uniform(1, 5))
    return a + (s - a) * phi


def observe(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sigma = np.exp(rng.uniform(np.log(0.004), np.log(0.03)))
    return np.clip(y + sigma * rng.standard_normal(len(y)), 0, 1)


@pytest.mark.parametrize("family", ["power", "exponential", "log"])
def test_intervals_are_calibrated(family: str) -> None:
    """Coverage of 90 % intervals for the last of 30 scores, after 10 and 20 epochs of 40 curves each."""
    rng = np.random.default_rng(1)
    held = []
    for seen in [10, 20] * 40:
        y = observe(curve(family, rng), rng)
        prediction = fit(y[:seen].tolist()).predict(EPOCHS)
        held.append(prediction.quantile(0.05) <= y[-1] <= prediction.quantile(0.95))
    assert 0.85 <= np.mean(held) <= 0.96


def test_intervals_shrink_with_more_epochs() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for seen in (3, 6, 12, 24):
        total = 0.0
        for seed in range(20):
            y = observe(curve("power", np.random.default_rng(seed)), rng)
            prediction = fit(y[:seen].tolist()).predict(EPOCHS)
            total += prediction.quantile(0.95) - prediction.quantile(0.05)
        widths.append(total)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 4


def test_posterior_equals_the_conditional_normal() -> None:
    """At one grid point, the observed and the future score are jointly normal. Condition explicitly."""
    scores, epoch = [0.3, 0.5, 0.55, 0.61], 9.0
    t = torch.tensor([1.0, 2, 3, 4, epoch], dtype=torch.float64)
    fitted = fit(scores)
    prediction = fitted.predict(epoch)
    phi = shapes(t)
    prior = torch.tensor(learning_curve.PRIOR_STD, dtype=torch.float64) ** 2
    log_evidence = torch.zeros(len(phi), len(NOISES), dtype=torch.float64)
    for k in (0, 17, 50, 80):
        x = torch.stack([1 - phi[k], phi[k]], 1)
        mean = x @ torch.tensor(learning_curve.PRIOR_MEAN, dtype=torch.float64)
        for j, (sigma, r) in enumerate(NOISES):
            covariance = x @ prior.diag() @ x.T + (sigma**2 * (1 + (r / t) ** 2)).diag()
            covariance += learning_curve.KAPPA**2 * torch.minimum(t.log()[:, None], t.log())
            seen, coming = covariance[:4, :4], covariance[4, :4]
            surprise = torch.tensor(scores, dtype=torch.float64) - mean[:4]
            expected = mean[4] + coming @ torch.linalg.solve(seen, surprise)
            variance = covariance[4, 4] - coming @ torch.linalg.solve(seen, coming)
            i = k * len(NOISES) + j
            assert prediction.means[i].item() == pytest.approx(expected.item(), abs=1e-9)
            assert prediction.stds[i].item() == pytest.approx(variance.sqrt().item(), rel=1e-6)
            log_evidence[k, j] = -(surprise @ torch.linalg.solve(seen, surprise) + torch.logdet(seen)) / 2
    # The weights also contain the posterior probability of a ≤ 1.
    low = torch.special.ndtr((0.2 - fitted.shifts[..., 0]) / fitted.covariances[..., 0, 0].sqrt()).log()
    for k, other in ((0, 17), (50, 80)):  # within one family, equally probable a priori
        expected = log_evidence[k] + low[k] - log_evidence[other] - low[other]
        unsteady = torch.tensor([sigma > 0.02 for sigma, _ in NOISES])  # the other weights are close to 0
        ratio = fitted.weights[k].log() - fitted.weights[other].log()
        torch.testing.assert_close(ratio[unsteady], expected[unsteady])


def test_shapes_decrease_from_one_to_zero() -> None:
    phi = shapes(torch.tensor([1.0, 2, 5, 50, 1e30], dtype=torch.float64))
    assert phi.shape == (sum(map(len, FAMILIES.values())), 5)
    assert torch.allclose(phi[:, 0], torch.ones(len(phi), dtype=torch.float64))
    assert (phi.diff(dim=1) <= 0).all()
    assert (phi[:, -1] < 2e-3).all()


def test_the_true_family_is_the_most_probable() -> None:
    t = torch.arange(1.0, 41)
    for family, phi in {
        "power": t**-0.7,
        "stretched": torch.exp(-(t - 1) / 6),
        "hill": (1 + 15.0**4) / (t**4 + 15.0**4),
    }.items():
        found = fit((0.9 - 0.7 * phi).clamp(0, 1).tolist()).families
        assert max(found, key=found.__getitem__) == family
        assert sum(found.values()) == pytest.approx(1)


def test_quantiles_and_probabilities_agree() -> None:
    prediction = Prediction(*torch.tensor([[0.3, 0.7], [0.5, 0.6], [0.05, 0.1]], dtype=torch.float64))
    for q in (0.01, 0.05, 0.5, 0.9):
        assert prediction.exceeds(prediction.quantile(q)) == pytest.approx(1 - q, abs=1e-9)
    normal = Prediction(*torch.tensor([[1.0], [0.5], [0.1]], dtype=torch.float64))
    assert normal.quantile(0.975) == pytest.approx(0.695996, abs=1e-6)
    assert normal.mean == 0.5
    high = Prediction(*torch.tensor([[1.0], [0.99], [0.1]], dtype=torch.float64))
    assert high.quantile(0.9) == 1.0
    assert high.exceeds(1.0) == 0.0


def test_200_epochs_are_fitted_in_seconds() -> None:
    y = 0.9 - 0.6 * np.arange(1, 201.0) ** -0.6
    start = time.process_time()
    assert fit(y.tolist()).predict(200).mean == pytest.approx(y[-1], abs=0.01)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("scores", [[0.5], [0.1] * 5, [1.0] * 8, [0.0] * 8, [0.9, 0.5, 0.1, 0.0]])
def test_unusual_curves_give_finite_predictions(scores: list[float]) -> None:
    prediction = fit(scores).predict(50)
    low, high = prediction.quantile(0.05), prediction.quantile(0.95)
    assert math.isfinite(low)
    assert low < high <= 1
    assert 0 <= prediction.exceeds(0.5) <= 1


@pytest.mark.parametrize("scores", [[63.4, 70.1], [0.5, math.nan], [-0.1], [math.inf]])
def test_scores_outside_0_and_1_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="scores: expected accuracies from 0 to 1, got"):
        fit(scores)


def test_other_invalid_arguments() -> None:
    with pytest.raises(ValueError, match="scores: expected at least one, got none"):
        fit([])
    with pytest.raises(ValueError, match="epoch: expected at least 1, got 0"):
        fit([0.5]).predict(0)
    with pytest.raises(ValueError, match=r"q: expected a number in \(0, 1\), got 1"):
        fit([0.5]).predict(3).quantile(1)
