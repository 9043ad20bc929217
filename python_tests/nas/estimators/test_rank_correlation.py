"""Rank correlations, compared with SciPy and with counting pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from automl_ext.training.rank_correlation import kendall, spearman


def tau_b_by_pairs(x: np.ndarray, y: np.ndarray) -> float:
    signs = [np.sign(v[:, None] - v[None, :]) for v in (x, y)]
    return float((signs[0] * signs[1]).sum() / np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum()))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("values", [2, 5, 1000])  # many, some and few ties
def test_kendall_equals_counting_pairs(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(values, size=57)
    y = rng.integers(values, size=57) + x * rng.integers(2)
    assert kendall(x, y) == pytest.approx(tau_b_by_pairs(x, y), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("values", [3, 40, 10**9])
def test_correlations_equal_scipy(seed: int, values: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="compares with SciPy")
    rng = np.random.default_rng(seed)
    x = rng.integers(values, size=300) / 7
    y = x + rng.integers(values, size=300)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_extreme_correlations() -> None:
    x = [0.1, 0.5, 0.2, 0.9]
    assert kendall(x, np.exp(x)) == spearman(x, np.exp(x)) == pytest.approx(1)
    assert kendall(x, np.negative(x)) == spearman(x, np.negative(x)) == pytest.approx(-1)
    assert math.isnan(kendall(x, [1, 1, 1, 1]))
    assert math.isnan(spearman([2, 2, 2, 2], x))


def test_minus_infinity_ranks_last() -> None:
    """Failed candidates have the score −inf."""
    assert kendall([-math.inf, 0.2, 0.3], [0.1, 0.5, 0.6]) == 1


@pytest.mark.parametrize("measure", [kendall, spearman])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2, 3], r"x, y: .*\(2,\) and \(3,\)"),
        ([1], [1], "at least two"),
        ([[1, 2]], [[1, 2]], "at least two"),
        ([1.0, math.nan], [1, 2], "x: expected scores without NaN, got 1"),
        ([1.0, 2.0], [math.nan, math.nan], "y: expected scores without NaN, got 2"),
    ],
)
def test_bad_input(measure: object, x: list, y: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(x, y)
