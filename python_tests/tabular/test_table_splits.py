"""Splits: each row is validated once, classes keep their shares, ties in time stay together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from automl_ext.tabular.table.splits import make_folds, split_kind
from automl_ext.tabular.table.task import find_task
from automl_ext.training.errors import UserError

CLASSES = find_task(pd.Series(["a", "b"] * 10), "y")
NUMBERS = find_task(pd.Series(np.linspace(0, 1, 40)), "y")


@pytest.mark.parametrize("kind", ["stratified", "random", "group"])
def test_each_row_is_validated_once(kind: str) -> None:
    y = np.random.default_rng(0).integers(0, 2, 103)
    task = CLASSES if kind == "stratified" else NUMBERS
    splits = make_folds(kind, y, None, np.arange(103) // 3, 5, 0, task)
    assert sorted(np.concatenate([split.valid for split in splits])) == list(range(103))
    for split in splits:
        assert sorted([*split.train, *split.valid]) == list(range(103))
        assert abs(len(split.valid) - 103 / 5) < 4


def test_folds_have_the_shares_of_the_classes() -> None:
    y = (np.arange(500) < 40).astype(np.int64)
    for split in make_folds("stratified", y, None, None, 5, 1, CLASSES):
        assert y[split.valid].sum() == 8


def test_equal_times_are_on_one_side() -> None:
    time = np.repeat(np.arange(7), 20)[np.random.default_rng(0).permutation(140)]
    splits = make_folds("time", np.zeros(140), time, None, 5, 0, NUMBERS)
    assert len(splits) >= 3
    for split in splits:
        assert time[split.train].max() < time[split.valid].min()
    lengths = [len(split.train) for split in splits]
    assert lengths == sorted(set(lengths))  # later folds train on more rows


def test_splits_that_are_refused() -> None:
    for kind, time, group, message in (
        ("time", np.ones(40), None, "at least 3 different times"),
        ("group", None, np.arange(40) % 3, "at least 5 groups, got 3"),
    ):
        with pytest.raises(UserError, match=message):
            make_folds(kind, np.zeros(40), time, group, 5, 0, NUMBERS)
    with pytest.raises(UserError, match="at least 10 rows"):
        make_folds("random", np.zeros(7), None, None, 5, 0, NUMBERS)
    with pytest.raises(UserError, match="at most one"):
        split_kind(NUMBERS, "t", "g")
