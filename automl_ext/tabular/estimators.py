"""``fit`` as estimators of scikit-learn, for pipelines and cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from automl_ext.tabular.fit import fit
from automl_ext.tabular.fitted import Fitted
from automl_ext.tabular.table.task import Array

TARGET, GROUP, WEIGHT = "target", "group", "weight"


class _TabularEstimator(BaseEstimator):
    """Base of both estimators: the arguments are those of :func:`automl_ext.tabular.fit`.

    Attributes:
        fitted_: the :class:`automl_ext.tabular.Fitted` ensemble, with its leaderboard.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    fitted_: Fitted

    def __init__(
        self,
        *,
        minutes: float = 1.0,
        seed: int = 0,
        features: bool = True,
        time: str | None = None,
        metric: str | None = None,
        types: Mapping[str, str] | None = None,
        workers: int = 1,
        candidates: int | None = None,
    ) -> None:
        self.minutes = minutes
        self.seed = seed
        self.features = features
        self.time = time
        self.metric = metric
        self.types = types
        self.workers = workers
        self.candidates = candidates

    def _fit(self, X: Any, y: Any, task: str, sample_weight: Any, groups: Any) -> None:
        frame = self._frame(X, reset=True)
        special = {TARGET: column_or_1d(y, warn=True)}
        for name, values in ((GROUP, groups), (WEIGHT, sample_weight)):
            if values is not None:
                special[name] = column_or_1d(values)
        check_consistent_length(frame, *special.values())
        names = {name: _unused(name, frame.columns) for name in special}
        self.fitted_ = fit(
            frame.assign(**{names[name]: values for name, values in special.items()}),
            names[TARGET],
            group=names.get(GROUP),
            weight=names.get(WEIGHT),
            task=task,
            **self.get_params(deep=False),
        )

    def _frame(self, X: Any, reset: bool) -> pd.DataFrame:
        """Return a table; the columns of an array are named x0, x1, …"""
        if not isinstance(X, pd.DataFrame):
            X = check_array(X, dtype=None, ensure_all_finite=False, estimator=self)
        validate_data(self, X, reset=reset, skip_check_array=True)
        if isinstance(X, pd.DataFrame):
            return X.set_axis(list(map(str, X.columns)), axis=1)  # also of a MultiIndex
        return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags


class TabularClassifier(ClassifierMixin, _TabularEstimator):
    """An ensemble of classifiers, found by :func:`automl_ext.tabular.fit`.

    Attributes:
        classes_: the classes, in the order of the columns of :meth:`predict_proba`.
    """

    classes_: Array

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> TabularClassifier:
        """Fit the ensemble.

        Args:
            X: table or array, [N, columns].
            y: labels, [N].
            sample_weight: at least 0, [N].
            groups: rows of one group are never on both sides of a split, [N].

        Raises:
            ValueError: the shapes do not fit.
            UserError: an argument or the table is invalid; the message names it.
        """
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self._fit(X, codes, "classification", sample_weight, groups)
        self.classes_ = self.classes_[list(self.fitted_.classes)]  # without those of which all rows have the weight 0
        return self

    def predict_proba(self, X: Any) -> Array:
        """Predict probabilities, [N, classes]."""
        check_is_fitted(self)
        return self.fitted_.predict_proba(self._frame(X, reset=False))

    def predict(self, X: Any) -> Array:
        """Predict labels, [N]."""
        most_likely = self.predict_proba(X).argmax(1)
        return self.classes_[most_likely]


class TabularRegressor(RegressorMixin, _TabularEstimator):
    """An ensemble of regressors, found by :func:`automl_ext.tabular.fit`."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> TabularRegressor:
        """Fit the ensemble; the arguments are those of :meth:`TabularClassifier.fit`, with numbers for ``y``."""
        self._fit(X, np.asarray(y, dtype=np.float64), "regression", sample_weight, groups)
        return self

    def predict(self, X: Any) -> Array:
        """Predict numbers, [N]."""
        check_is_fitted(self)
        return self.fitted_.predict(self._frame(X, reset=False))


def _unused(name: str, columns: Any) -> str:
    """Return a name that no column has."""
    while name in columns:
        name += "_"
    return name
