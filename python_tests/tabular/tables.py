"""Small tables for tests of automl_ext.tabular."""

from __future__ import annotations

from typing import Any

import numpy as np


def table(rows: int = 240, seed: int = 0) -> Any:
    """Numbers, categories, a boolean, a date, missing values, and two targets that depend on them."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(rows, 3)), rng.normal(size=rows)
    city = rng.choice(["Athens", "Bern", "Cairo", "Dakar"], rows)
    score = x[:, 0] + 0.5 * x[:, 1] + np.where(city == "Bern", 1.5, 0) + 0.3 * noise
    frame = pd.DataFrame(
        {
            "a": x[:, 0],
            "b": np.where(rng.random(rows) < 0.1, np.nan, x[:, 1]),
            "c": x[:, 2],
            "city": np.where(rng.random(rows) < 0.05, None, city),
            "member": rng.choice(["yes", "no"], rows),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 700, rows), unit="D"),
        }
    )
    frame["y"] = np.where(score > np.median(score), "high", "low")
    frame["price"] = score
    return frame


def classes(rows: int = 240, seed: int = 0) -> Any:
    return table(rows, seed).drop(columns="price")


def numbers(rows: int = 240, seed: int = 0) -> Any:
    return table(rows, seed).drop(columns="y")
