"""The contenders of the benchmark: each learns from training rows within a budget and returns its predictor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from data_sets import Problem
from learners import TRAIN, Predict, Rows, encoder, validation_loss
from samplers import Ask, hyperopt_tpe, optuna_sampler

if TYPE_CHECKING:
    import pandas as pd

VALID_SHARE = 0.2
FOREVER = float("inf")


class Learned(NamedTuple):
    """The predictor for rows with features, and the number of evaluated points."""

    predict: Predict
    trials: int


def default(learner: str) -> Callable[[Problem, float, int], Learned]:
    """Train a library's defaults, 100 rounds, on all training rows."""

    def learn(problem: Problem, seconds: float, seed: int) -> Learned:
        encode, rows = _encoded(problem)
        model = TRAIN[learner]({}, rows, None, FOREVER, seed, 100)
        return Learned(lambda frame: model.predict(_new(encode, frame, rows.classes)), 1)

    return learn


def tuned(start: Callable[[int], Ask], features: Callable[[], Any] | None = None) -> Callable[..., Learned]:
    """Tune LightGBM and XGBoost by the loss on a fifth of the training rows; train the best point on all of them.

    Args:
        start: takes a seed and returns the function that suggests points.
        features: makes a generator with ``fit_transform`` and ``transform``, applied first.
    """

    def learn(problem: Problem, seconds: float, seed: int) -> Learned:
        begin = time.monotonic()
        encode, rows = _encoded(problem, features() if features is not None else None)
        train, valid = _split(problem, rows, seed)
        ask, best = start(seed), None
        trials, deadline = 0, begin + 0.6 * seconds
        while time.monotonic() < deadline:
            (learner, point), tell = ask()
            started = time.monotonic()
            loss, rounds = validation_loss(learner, point, train, valid, deadline, seed)
            took, trials = time.monotonic() - started, trials + 1
            tell(loss)
            if best is None or loss < best[0]:
                best = loss, learner, point, rounds
                # Training on all rows takes a quarter longer per round, but needs no rounds after the best.
                deadline = begin + seconds - 1.3 * took
        assert best is not None, "the budget is above 0"
        _, learner, point, rounds = best
        model = TRAIN[learner](point, rows, None, begin + 1.2 * seconds, seed, rounds)
        return Learned(lambda frame: model.predict(_new(encode, frame, rows.classes)), trials)

    return learn


def flaml(problem: Problem, seconds: float, seed: int) -> Learned:
    from flaml import AutoML

    by_time = {"split_type": "time"} if problem.time is not None else {}
    automl = AutoML()
    automl.fit(
        X_train=problem.features(problem.train),
        y_train=problem.codes(problem.train),
        task="regression" if problem.kind == "regression" else "classification",
        metric="rmse" if problem.kind == "regression" else "log_loss",
        time_budget=seconds,
        n_jobs=1,
        seed=seed,
        verbose=0,
        **by_time,
    )

    def predict(frame: pd.DataFrame) -> np.ndarray:
        if problem.kind == "regression":
            return np.asarray(automl.predict(frame), dtype=float)
        probabilities = np.zeros((len(frame), len(problem.classes)))
        probabilities[:, np.asarray(automl.classes_, dtype=int)] = automl.predict_proba(frame)
        return probabilities

    return Learned(predict, len(automl.config_history))


def ours(features: bool) -> Callable[[Problem, float, int], Learned]:
    """Call ``automl_ext.tabular.fit``, with portfolios that were built without this data set."""

    def learn(problem: Problem, seconds: float, seed: int) -> Learned:
        from portfolios import without

        from automl_ext.tabular import fit

        without(problem.name)
        budget = {"minutes": seconds / 60, "seed": seed, "features": features}
        fitted = fit(problem.train, problem.target, time=problem.time, **budget)
        if problem.kind == "regression":
            return Learned(lambda new: np.asarray(fitted.predict(new), dtype=float), len(fitted.leaderboard))
        names = [str(name) for name in fitted.classes]

        def predict(frame: pd.DataFrame) -> np.ndarray:
            probabilities = np.asarray(fitted.predict_proba(frame), dtype=float)
            return probabilities[:, [names.index(name) for name in problem.classes]]

        return Learned(predict, len(fitted.leaderboard))

    return learn


def _autogluon_features() -> Any:
    from autogluon.features.generators import AutoMLPipelineFeatureGenerator

    return AutoMLPipelineFeatureGenerator(verbosity=0)


class DateParts:
    """Replace columns of dates by the parts that a user would write: days, year, month, day, weekday, and hour with
    its fraction."""

    def fit_transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
        self.dates = [name for name in texts if frame[name].dropna().astype(str).str.match(r"\d{4}-\d\d-\d\d").all()]
        return self.transform(frame)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        for name in self.dates:
            when = pd.to_datetime(frame[name], utc=True, format="ISO8601")
            parts = {part: getattr(when.dt, part) for part in ("year", "month", "day", "weekday")}
            parts["hour"] = when.dt.hour + when.dt.minute / 60
            parts["days"] = (when - pd.Timestamp(0, tz="UTC")).dt.days
            frame = frame.drop(columns=[name]).assign(**{f"{name} {k}": v.astype(float) for k, v in parts.items()})
        return frame


CONTENDERS: dict[str, Callable[[Problem, float, int], Learned]] = {
    "xgboost": default("xgboost"),
    "lightgbm": default("lightgbm"),
    "random": tuned(optuna_sampler("random")),
    "tpe": tuned(optuna_sampler("tpe"), DateParts),
    "hyperopt": tuned(hyperopt_tpe),
    "flaml": flaml,
    "autogluon": tuned(optuna_sampler("tpe"), _autogluon_features),
    "ours": ours(features=False),
    "ours-features": ours(features=True),
}
PEERS = [name for name in CONTENDERS if not name.startswith("ours")]


def _encoded(problem: Problem, generator: Any = None) -> tuple[Predict, Rows]:
    """Return the encoder of tables and the encoded training rows."""
    features = problem.features(problem.train)
    prepare: Predict = lambda frame: frame  # noqa: E731
    if generator is not None:
        features = _plain(generator.fit_transform(features))
        prepare = lambda frame: _plain(generator.transform(frame))  # noqa: E731
    encode = encoder(features)
    rows = Rows(encode(features), problem.codes(problem.train), len(problem.classes))
    return lambda frame: encode(prepare(frame)), rows


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert categories to objects, which :func:`encoder` converts to the categories of the training rows."""
    return frame.apply(lambda values: values.astype(object) if values.dtype.name == "category" else values)


def _new(encode: Predict, frame: pd.DataFrame, classes: int) -> Rows:
    return Rows(encode(frame), np.zeros(len(frame)), classes)


def _split(problem: Problem, rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Split off validation rows: the last ones by time, or a random fifth, with the classes' frequencies."""
    from sklearn.model_selection import train_test_split

    numbers = np.arange(len(rows.y))
    if problem.time is not None:
        cut = round(len(numbers) * (1 - VALID_SHARE))
        parts = numbers[:cut], numbers[cut:]
    else:
        rare = rows.classes == 0 or np.bincount(rows.y, minlength=rows.classes).min() < 5
        parts = train_test_split(numbers, test_size=VALID_SHARE, random_state=seed, stratify=None if rare else rows.y)
    first, second = (Rows(rows.x.iloc[part], rows.y[part], rows.classes) for part in parts)
    return first, second
