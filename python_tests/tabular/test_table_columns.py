"""Types of columns, the task, and reading: inferred, overridden, or refused by name."""

from __future__ import annotations

import gzip
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tables import classes, numbers

from automl_ext.tabular.table.cleaning import clean
from automl_ext.tabular.table.columns import Column, find_column, find_columns, table_of
from automl_ext.tabular.table.problem import find_problem
from automl_ext.tabular.table.table_files import check_frame, read_table
from automl_ext.tabular.table.task import find_task
from automl_ext.training.errors import UserError

DAMAGED = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i * i % 97, i**3 % 89) for i in range(200)), mtime=0)
DAMAGED = DAMAGED[:12] + bytes([DAMAGED[12] ^ 255]) + DAMAGED[13:]
WORDS = [f"the order {i} came too late again" for i in range(40)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, 2.5, None, 4.0] * 10, "numeric"),
        ([3, 1, 2, 2] * 10, "numeric"),
        (["1", "2.5", "?", "7"] + ["3"] * 96, "numeric"),
        ([True, False] * 20, "boolean"),
        (["yes", "No"] * 20, "boolean"),
        (["yes", "no", "maybe", "no"] * 10, "categorical"),
        (["2020-01-05", "2021-11-30"] * 20, "date"),
        (["13/01/2020", "02/11/2020 12:30"] * 20, "date"),
        (["12:30", "13:45"] * 20, "categorical"),  # pandas would take them for today's
        (WORDS, "text"),
        ([f"A{i}" for i in range(40)], "id"),
        (list(range(100, 140)), "id"),
        ([7] * 40, "constant"),
        ([None] * 40, "constant"),
        ([7, None] * 20, "numeric"),
        ([[1], [2]] * 20, "ignore"),
        (["9999-12-31", "2021-11-30"] * 20, "date"),
        ([date(9999, 12, 31), date(2021, 11, 30)] * 20, "date"),
    ],
)
def test_kinds(values: list[object], kind: str) -> None:
    assert find_column(pd.Series(values, name="column")).kind == kind


def test_unique_integers_are_ids_only_if_the_name_or_the_order_says_so() -> None:
    values = pd.Series(np.arange(50) ** 2 + 3)
    assert find_column(values.rename("price")).kind == "numeric"
    assert find_column(values.rename("order_id")).kind == "id"
    assert find_column(values.rename("paid")).kind == "numeric"  # ends in "id"


def test_types_can_be_given() -> None:
    frame = pd.DataFrame({"zip": [1, 2, 3, 4] * 10, "n": range(40)})
    kinds = [column.kind for column in find_columns(frame, {"zip": "categorical", "n": "numeric"})]
    assert kinds == ["categorical", "numeric"]
    for given, message in (({"zap": "numeric"}, "zap"), ({"zip": "nominal"}, "nominal")):
        with pytest.raises(UserError, match=message):
            find_columns(frame, given)
    with pytest.raises(UserError, match=r"column 'city', row 1: expected a number, got"):
        find_problem(classes(), "y", types={"city": "numeric"})


def test_a_given_numeric_column_keeps_its_missing_words() -> None:
    frame = classes().assign(z=["1", "2.5", "?", *["3"] * 237])
    problem = find_problem(frame, "y", types={"z": "numeric"})
    np.testing.assert_array_equal(problem.frame["z"][:4], [1, 2.5, np.nan, 3])
    (column,) = (column for column in problem.columns if column.name == "z")
    assert column.why == "as given; '?' counts as missing"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"] * 10, "binary"),
        ([True, False] * 10, "binary"),
        ([0, 1] * 10, "binary"),
        ([1, 2, 3] * 10, "multiclass"),
        (["a", "b", "c"] * 10, "multiclass"),
        ([1.5, 2.5, 3.5] * 10, "regression"),
        (list(range(30)), "regression"),
    ],
)
def test_tasks(values: list[object], kind: str) -> None:
    task = find_task(pd.Series(values), "y")
    assert task.kind == kind
    encoded = task.encode(pd.Series(values))
    assert len(encoded) == len(values)
    if task.is_classification:
        assert [task.classes[i] for i in encoded] == values


def test_tasks_that_are_refused() -> None:
    for values, how, message in (
        (["a"] * 20, {}, "at least two"),
        ([f"c{i}" for i in range(200)], {}, "at most 100 classes"),
        (["a", "b"] * 10, {"metric": "rmse"}, "metric: expected log_loss or auc or accuracy"),
        (["a", "b"] * 10, {"kind": "regression"}, "expects numbers"),
    ):
        with pytest.raises(UserError, match=message):
            find_task(pd.Series(values), "y", **how)


def test_cleaning_is_the_same_for_other_forms_of_the_same_values() -> None:
    train = pd.DataFrame(
        {
            "code": ["1", "2.0", "10", "2"] * 10,
            "n": [1, 2, 3, 5] * 10,
            "flag": [True, False] * 20,
            "day": ["2020-01-01"] * 40,
        }
    )
    columns = find_columns(train, {"code": "categorical", "day": "date"})
    other = pd.DataFrame(
        {
            "day": pd.Timestamp("2020-01-01"),
            "code": [1.0, 2.0, 10.0, 2.0] * 10,
            "n": ["1", " 2", "3.0", "5"] * 10,
            "flag": ["yes", "no"] * 20,
            "more": 1,
        }
    )
    pd.testing.assert_frame_equal(clean(train, columns), clean(other, columns))


@pytest.mark.parametrize("given", [{}, {"day": "date"}])
def test_one_date_tells_the_order_of_day_and_month(given: dict[str, str]) -> None:
    days = pd.Series(["13/01/2020", "02/01/2020"] * 20)
    (column,) = find_columns(pd.DataFrame({"day": days}), given)
    assert column.day_first
    new = pd.DataFrame({"day": ["02/01/2020", "2020-01-02"]})
    assert list(clean(new, [column])["day"]) == [18263, 18263]  # 2 January
    (column,) = find_columns(pd.DataFrame({"day": ["01/13/2020", "02/01/2020"] * 20}), given)
    assert clean(new, [column])["day"][0] == 18293  # 1 February


@pytest.mark.parametrize("unit", ["us", "s"])
def test_dates_that_do_not_fit_nanoseconds(unit: str) -> None:
    expected = [2932896, 18262, -135140, np.nan]  # days since 1970
    days = ["9999-12-31", "2020-01-01", "1600-01-01", None]
    as_dates = pd.Series(np.array(days, dtype=f"datetime64[{unit}]"))
    far = ["9999-12-31T00:00:00Z", "2020-01-01", "1600-01-01 01:00:00+01:00", None]
    for values in (as_dates, as_dates.dt.tz_localize("UTC"), pd.Series(days), pd.Series(far)):
        (column,) = find_columns(pd.DataFrame({"day": values}), {"day": "date"})
        np.testing.assert_array_equal(clean(pd.DataFrame({"day": values}), [column])["day"], expected)


def test_a_split_by_time_has_the_farthest_date_last() -> None:
    day = np.array(["9999-12-31", *np.arange("2020-01-01", "2020-04-09", dtype="datetime64[D]")], dtype="datetime64[s]")
    for split in find_problem(classes(100).assign(day=day), "y", time="day").splits:
        assert 0 not in split.train


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("a", "much", "column 'a', row 1: expected a number, got 'much'"),
        ("a", pd.Timestamp("2020-01-01"), "column 'a': expected numbers, got dates"),
        ("member", "perhaps", "column 'member', row 1: expected true or false, got 'perhaps'"),
        ("day", 3.5, "column 'day': expected dates, got numbers"),
        ("day", "soon", "column 'day', row 1: expected a date, got 'soon'"),
        ("day", "12:30", "column 'day', row 1: expected a date, got '12:30'"),
    ],
)
def test_changed_types_are_refused_by_name(column: str, values: object, message: str) -> None:
    frame = classes(40)
    columns = find_columns(frame.drop(columns="y"), {})
    with pytest.raises(UserError, match=message):
        clean(frame.assign(**{column: values}), columns)


def test_tables_that_are_refused(tmp_path: Path) -> None:
    files = {
        "empty.csv": (b"", "not a readable table"),
        "twice.csv": (b"a,b,a\n1,2,3\n", "different names of columns, got 'a' twice"),
        "twice.csv.gz": (gzip.compress(b"\na,a\n1,2\n"), "different names of columns, got 'a' twice"),
        "damaged.csv.gz": (DAMAGED, "not a readable table"),
        "ragged.csv": (b"a,b\n1,2\n1,2,3\n", "not a readable table"),
        "semicolons.csv": (b"a;b\n1,5;2\n", "expected commas between the columns, got ';' in the first line"),
        "longer.csv": (b"a,b\n1,2,3\n4,5,6\n", "expected as many values in each row"),
        "binary.csv": (bytes(range(256)), "not a readable table|different names"),
        "fake.parquet": (b"PAR1 no", "not a readable table"),
        "table.xlsx": (b"", "expected a file .csv"),
    }
    for name, (data, message) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message):
            read_table(tmp_path / name)
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path / "folder.csv")
    with pytest.raises(UserError, match=r"pandas\.DataFrame, got list"):
        check_frame([1], "frame")


def test_periods_are_dates_and_nested_arrow_columns_are_ignored() -> None:
    months = pd.Series(pd.period_range("2020-01", periods=40, freq="M"), name="column")
    column = find_column(months)
    assert column.kind == "date"
    days = clean(months.astype(str).to_frame(), [column])["column"]
    np.testing.assert_array_equal(clean(months.to_frame(), [column])["column"], days)
    lists = pd.Series([[1], [2, 3]] * 20, dtype=pd.ArrowDtype(pa.list_(pa.int64())), name="column")
    assert find_column(lists).kind == "ignore"


def test_numbers_in_columns_of_objects_are_numbers() -> None:
    """As those of a transposed table."""
    frame = numbers(60).assign(price=[1.5, 2.5, 3.5, 4.0] * 15)
    expected = find_problem(frame, "price")
    assert expected.task.kind == "regression"
    problem = find_problem(frame.astype(object), "price")
    assert problem.task == expected.task
    np.testing.assert_array_equal(problem.y, expected.y)
    assert [column.kind for column in problem.columns] == [column.kind for column in expected.columns]


def test_columns_may_be_named_by_integers() -> None:
    frame = classes(60).assign(time=range(60), w=1.0)
    names = {name: i for i, name in enumerate(frame.columns)}
    frame = frame.rename(columns=names)
    problem = find_problem(frame, names["y"], time=names["time"], weight=names["w"], types={names["a"]: "ignore"})  # type: ignore[arg-type, dict-item]
    kinds = {column.name: column.kind for column in problem.columns}
    assert kinds[str(names["a"])] == kinds[str(names["time"])] == kinds[str(names["w"])] == "ignore"


def test_columns_that_are_no_features_have_no_type_and_times_are_not_texts() -> None:
    frame = classes(60).assign(when=[f"run {i}" for i in range(60)])
    with pytest.raises(UserError, match="type: expected a column that models learn from, got 'when': it is no feature"):
        find_problem(frame, "y", time="when", types={"when": "date"})
    with pytest.raises(UserError, match="time: expected dates or numbers, column 'when' is id"):
        find_problem(frame, "y", time="when")


def test_decimals_are_numbers(tmp_path: Path) -> None:
    frame = numbers(60).assign(cost=[None, *(Decimal(i * i) / 4 for i in range(59))])
    frame["price"] = [Decimal(round(price * 100)) / 100 for price in frame["price"]]
    frame.to_parquet(tmp_path / "t.parquet")
    problem = find_problem(read_table(tmp_path / "t.parquet"), "price")
    assert problem.task.kind == "regression"
    np.testing.assert_allclose(problem.y, [float(price) for price in frame["price"]])
    np.testing.assert_array_equal(problem.frame["cost"][:4], [np.nan, 0, 0.25, 1])
    assert isinstance(frame["price"][0], Decimal)  # the given table is unchanged


def test_parquet_and_csv_are_the_same(tmp_path: Path) -> None:
    frame = classes(30).drop(columns="day")
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    read = [read_table(tmp_path / name).fillna({"city": "missing"}) for name in ("t.csv", "t.parquet")]
    pd.testing.assert_frame_equal(*read)


@pytest.mark.parametrize(
    ("days", "order", "new", "expected"),
    [
        (["01.02.2020", "03.04.2021"], True, ["05.03.2010", "25.03.2010", "2010-03-05"], [14673, 14693, 14673]),
        (["01.02.2020", "03.04.2021"], True, ["03/25/2010"], "row 1: expected a date with the day before the month"),
        (["01/02/2020", "03/04/2021"], False, ["03/05/2010", "2010-03-05"], [14673, 14673]),
        (["01/02/2020", "03/04/2021"], False, ["03/05/2010", "25/03/2010"], "row 2: expected a date with the month be"),
        (
            ["01/02/2020", "03/04/2021"],
            False,
            ["05.03.2010"],
            "row 1: expected a date with the month before the day, wi",
        ),
        (["2020-01-05", "2021-11-30"], None, ["05.03.2010", "25/03/2010", "03/25/2010"], [14673, 14693, 14693]),
        (["2020-01-05", "2021-11-30"], None, ["05/03/2010"], "row 1: expected a date with the year first"),
    ],
)
def test_the_order_of_day_and_month_is_that_of_the_training_table(
    days: list[str], order: bool | None, new: list[str], expected: Any
) -> None:
    (column,) = find_columns(pd.DataFrame({"day": days * 20}), {})
    assert (column.kind, column.day_first) == ("date", order)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            clean(pd.DataFrame({"day": new}), [column])
    else:
        assert list(clean(pd.DataFrame({"day": new}), [column])["day"]) == expected


@pytest.mark.parametrize(
    "days", [["13/01/2020", "01/13/2020"], ["Mon 13/01/2020", "Mon 01/13/2020"], ["99-12-31", "20-01-13"]]
)
def test_dates_in_both_orders_are_no_dates(days: list[str]) -> None:
    frame = classes(40).assign(x=days * 20)
    problem = find_problem(frame, "y")
    assert next(column.kind for column in problem.columns if column.name == "x") == "categorical"
    assert any("'x' is categorical, but its values look like dates" in note for note in problem.notes)


def test_seconds_and_words_do_not_change_the_order() -> None:
    (column,) = find_columns(pd.DataFrame({"day": ["01/13/2020 12:30:01.5", "Mon 02/01/2020"] * 20}), {})
    assert (column.kind, column.day_first) == ("date", False)
    assert list(clean(pd.DataFrame({"day": ["Mon 03/05/2010"]}), [column])["day"]) == [14673]


@pytest.mark.parametrize(
    ("days", "remark"),
    [
        (["{:02d}/03/2020", "{:02d}/04/2020"], "month first assumed, because no number is above 12"),
        (["{:02d}.03.2020", "{:02d}.04.2020"], "day first because of the dots"),
    ],
)
def test_the_assumed_order_of_the_times_is_noted(days: list[str], remark: str) -> None:
    frame = classes(48).assign(when=[day.format(i) for day in days for i in range(1, 13)] * 2)
    assert find_problem(frame, "y", time="when").notes == [f"time 'when': dates as text, {remark}"]
    frame["when"] = pd.to_datetime(frame["when"], dayfirst=True)
    assert not find_problem(frame, "y", time="when").notes


@pytest.mark.parametrize("value", ["{}.5%", "1,{}.50", "0,{}", "$ {}", "{} €"])
def test_numbers_with_signs_and_separators_are_noted(value: str) -> None:
    frame = classes(60).assign(x=[value.format(100 + i) for i in range(60)])
    (note,) = [note for note in find_problem(frame, "y").notes if "'x'" in note]
    assert f"look like numbers, such as '{value.format(100)}'" in note
    frame["x"] = [f"192.168.0.{i}" for i in range(60)]
    assert not [note for note in find_problem(frame, "y").notes if "'x'" in note]


@pytest.mark.parametrize("dtype", ["timedelta64[ns]", "duration[ns][pyarrow]", "duration[s][pyarrow]"])
def test_durations_are_seconds(dtype: str) -> None:
    durations = pd.Series(pd.to_timedelta([15, None, 90], unit="s"), name="t").astype(dtype)
    column = find_column(pd.concat([durations] * 10))
    assert column.kind == "numeric"
    np.testing.assert_array_equal(clean(durations.to_frame(), [column])["t"], [15, np.nan, 90])


def test_rare_classes_are_noted() -> None:
    frame = classes(60)
    frame.loc[0, "y"] = "rare"
    assert "classes with fewer than 5 rows, too few to validate them: ['rare']" in find_problem(frame, "y").notes


def test_of_thousands_of_columns_the_first_are_printed() -> None:
    columns = [Column(f"x{i}", "numeric", "40 different numbers") for i in range(8000)]
    columns[7000] = Column("city", "categorical", "3 categories")
    table = table_of(columns)
    assert table.row_count == 21
    assert list(table.columns[0].cells)[-1] == "… 7,980 more"
    assert list(table.columns[2].cells)[-1].plain == "7,979 numeric, 1 categorical; report.html has all"
    assert table_of(columns[:60]).row_count == 60
