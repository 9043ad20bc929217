"""The estimators follow scikit-learn's interface."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks as checks
from tables import classes, numbers

from automl_ext.tabular import TabularClassifier, TabularRegressor, fit

QUICK: dict[str, Any] = {"minutes": 5, "candidates": 1, "features": False}
CHECKS = (
    checks.check_no_attributes_set_in_init,
    checks.check_get_params_invariance,
    checks.check_set_params,
    checks.check_estimators_unfitted,
    checks.check_estimators_overwrite_params,
    checks.check_dont_overwrite_parameters,
    checks.check_dict_unchanged,
    checks.check_estimators_fit_returns_self,
    checks.check_estimators_pickle,
    checks.check_n_features_in,
    checks.check_n_features_in_after_fitting,
    checks.check_fit2d_predict1d,
    checks.check_dataframe_column_names_consistency,
    checks.check_sample_weights_pandas_series,
    checks.check_sample_weights_shape,
    checks.check_requires_y_none,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("estimator", [TabularClassifier, TabularRegressor])
def test_scikit_learns_checks(check: Callable[[str, Any], None], estimator: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator.__name__, estimator(**QUICK))


def test_a_pipeline_predicts_labels_with_their_probabilities() -> None:
    frame, new = classes(), classes(60, seed=9)
    scaled = make_column_transformer((StandardScaler(), ["a", "b", "c"]), ("passthrough", ["city", "day"]))
    model = make_pipeline(scaled.set_output(transform="pandas"), TabularClassifier(**QUICK))
    model.fit(frame.drop(columns="y"), frame["y"])
    probabilities = model.predict_proba(new)
    assert list(model.classes_) == ["high", "low"]
    assert list(model.predict(new)) == [["high", "low"][i] for i in probabilities.argmax(1)]
    assert model.score(new, new["y"]) > 0.75
    kinds = {column.name.split("__")[1]: column.kind for column in model[-1].fitted_.columns}
    assert kinds == {"a": "numeric", "b": "numeric", "c": "numeric", "city": "categorical", "day": "date"}


def test_it_is_fit_itself() -> None:
    frame = numbers()
    x, y, weight = frame.drop(columns="price"), frame["price"], np.arange(240) % 3
    model = TabularRegressor(**QUICK).fit(x, y, sample_weight=weight, groups=np.arange(240) // 4)
    same = fit(frame.assign(w=weight, g=np.arange(240) // 4), "price", weight="w", group="g", **QUICK)
    np.testing.assert_array_equal(model.predict(x), same.predict(x))
    assert model.fitted_.report["split"] == "group"


def test_cross_validation_of_arrays() -> None:
    frame = numbers()
    scores = cross_val_score(
        TabularRegressor(**QUICK),
        frame[["a", "b"]].to_numpy(),
        frame["price"],
        groups=np.arange(240) // 4,
        cv=GroupKFold(2),
    )
    assert scores.min() > 0.3


@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False], [3, 1], ["b", "a"]])
def test_labels_keep_their_type(labels: list[Any]) -> None:
    x = pd.DataFrame({"target": np.arange(40) % 2, "x": np.random.default_rng(0).random(40)})  # the name is taken
    y = np.array(labels)[np.arange(40) % 2]
    model = TabularClassifier(**QUICK).fit(x, y)
    found = model.predict(x)
    assert found.dtype == y.dtype
    assert model.classes_.tolist() == sorted(labels)


def test_a_class_of_which_all_rows_have_the_weight_0_is_none() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 2)), np.array(["a", "b", "c"] * 30)
    model = TabularClassifier(minutes=1, candidates=1).fit(x, y, sample_weight=(y != "b").astype(float))
    assert list(model.classes_) == ["a", "c"]
    assert model.predict_proba(x).shape == (90, 2)
    assert set(model.predict(x)) == {"a", "c"}


def test_a_table_with_two_levels_of_names() -> None:
    frame = classes(60)[["a", "c"]].set_axis(pd.MultiIndex.from_tuples([("x", "a"), ("x", "c")]), axis=1)
    model = TabularClassifier(**QUICK).fit(frame, classes(60)["y"])
    assert [column.name for column in model.fitted_.columns] == ["('x', 'a')", "('x', 'c')"]
    assert model.predict(frame).shape == (60,)
