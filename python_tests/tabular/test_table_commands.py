"""The commands fit, predict, train lightgbm, train xgboost and train forest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tables import classes, numbers

from automl_ext.tabular import load

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tables, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    classes(200).to_csv("train.csv", index=False)
    numbers(200).to_csv("numbers.csv", index=False)
    classes(30, seed=5).drop(columns="y").to_csv("new.csv", index=False)
    return tmp_path


def test_fit_and_predict(command: Command, files: Path) -> None:
    code, printed, _ = command("fit", "train.csv", "--target", "y", "--minutes", "0.05", "--out", "run")
    assert code == 0
    for text in ("city", "categorical", "target y: binary, 2 classes", "log loss", "ensemble", "split: stratified"):
        assert text in printed
    result = json.loads((files / "run/result.json").read_text())
    assert result["valid_log_loss"] == -result["negative_loss"] == result["leaderboard"][0]["log_loss"] < 0.7
    page = (files / "run/report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert "<script" not in page
    assert "http" not in re.sub("base64,[^\"']*", "", page)  # all is inside
    code, printed, _ = command("predict", "run", "new.csv", "--out", "p.csv")
    assert (code, printed) == (0, "p.csv: predictions of 30 rows\n")
    for table in ("new.csv", "train.csv"):
        code, _, error = command("predict", "run", "new.csv", "--out", table)
        assert (code, error) == (2, f"error: out: {table} is the table {table}: choose another file\n")
    predictions, new = pd.read_csv("p.csv"), pd.read_csv("new.csv")
    assert list(predictions) == ["y", "probability of high", "probability of low"]
    fitted = load("run")
    assert list(predictions["y"]) == list(fitted.predict(new))
    assert abs(predictions["probability of low"] - fitted.predict_proba(new)[:, 1]).max() < 1e-12


def test_fit_json_and_options(command: Command, files: Path) -> None:
    flags = "--target price --time day --type member=ignore --no-features --metric mae --minutes 0.03 --json"
    code, printed, _ = command("fit", "numbers.csv", *flags.split(), "--out", "run")
    assert code == 0
    result = json.loads(printed)
    assert (result["split"], result["refitted"], result["features"]) == ("time", True, [])
    assert result["valid_mae"] > 0
    kinds = {column.name: column.kind for column in load("run").columns}
    assert kinds["day"] == kinds["member"] == "ignore"
    assert (files / "run/predicted.png").is_file()


@pytest.mark.parametrize("learner", ["lightgbm", "xgboost", "forest"])
def test_train(learner: str, command: Command, files: Path) -> None:
    size = ("--trees", "10") if learner == "forest" else ("--rounds", "30")
    flags = ("--table", "train.csv", "--target", "y", *size)
    code, _, _ = command("train", learner, *flags, "--out", "run")
    assert code == 0
    result = json.loads((files / "run/result.json").read_text())
    assert result["valid_log_loss"] == -result["negative_loss"] < 0.7
    logged = [json.loads(line) for line in (files / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5]
    assert command("predict", "run", "new.csv")[0] == 0
    assert command("train", learner, *flags, "--out", "run", "--resume", "auto")[0] == 0  # starts again
    assert json.loads((files / "run/result.json").read_text())["negative_loss"] == result["negative_loss"]


def test_train_by_time_keeps_a_model_of_all_rows(command: Command, files: Path) -> None:
    """The first folds know the earliest rows only, so their models are no part of the result."""
    flags = "--table numbers.csv --target price --time day --rounds 30 --out run"
    code, _, err = command("train", "lightgbm", *flags.split())
    assert code == 0, err
    assert [member.weight for member in load("run").members] == [1]
    assert json.loads((files / "run/result.json").read_text())["meta"]["rows"] > 2  # log10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit absent.csv --target y --out run", "cannot read absent.csv"),
        ("fit train.csv --target z --out run", "target: there is no column 'z'"),
        ("fit train.csv --target y --minutes 0 --out run", "minutes: expected above 0"),
        ("fit train.csv --target y --out .", "out: . is not empty: choose another --out, or delete it"),
        ("fit train.csv --target y --type city --out run", "type: expected COLUMN=TYPE"),
        ("fit train.csv --target y --type city=blue --out run", "type: city: expected"),
        ("fit train.csv --target y --type a=date --type a=text --out run", "type: expected one type of column 'a'"),
        ("fit train.csv --target y --time day --type day=date --out run", "it is no feature"),
        ("fit train.csv --target y --type y=categorical --out run", "got the target 'y': use --task"),
        ("fit train.csv --target y --metric rmse --out run", "metric: expected"),
        ("train lightgbm --target y --out run", "table: expected a file, got none"),
        ("train lightgbm --table train.csv --out run", "target: expected a column, got none"),
        ("train xgboost --table train.csv --target y --max-depth 0 --out run", "max_depth: expected"),
        ("train forest --table train.csv --target y --stop-after 3 --out run", "stop_after: "),
        ("predict run new.csv", "model.json"),
    ],
)
def test_what_is_refused_leaves_no_run_directory(arguments: str, message: str, command: Command, files: Path) -> None:
    code, _, errors = command(*arguments.split())
    assert code == 2
    assert message in errors.splitlines()[-1]
    assert not (files / "run").exists()


def test_codes_of_digits_are_known_whatever_other_rows_the_file_has(command: Command, files: Path) -> None:
    code = ["007", "010", "A1", "1.50"] * 50
    frame = pd.DataFrame({"code": code, "y": [code[i % 4] in ("010", "1.50") and 5 + i / 1e4 for i in range(200)]})
    frame.astype({"y": float}).to_csv("codes.csv", index=False)
    flags = ("--table", "codes.csv", "--target", "y", "--rounds", "20", "--out", "run")
    assert command("train", "xgboost", *flags)[0] == 0
    assert command("predict", "run", "codes.csv", "--out", "all.csv")[0] == 0
    for k in range(4):
        frame[k::4].to_csv("some.csv", index=False)
        assert command("predict", "run", "some.csv", "--out", "p.csv")[0] == 0
        assert list(pd.read_csv("p.csv")["y"]) == list(pd.read_csv("all.csv")["y"][k::4])


def test_rows_that_cannot_be_predicted_are_named(command: Command, files: Path) -> None:
    assert (
        command("train", "lightgbm", "--table", "train.csv", "--target", "y", "--rounds", "5", "--out", "run")[0] == 0
    )
    new = pd.read_csv("new.csv")
    for frame, message in (
        (new.drop(columns="city"), "the table lacks the columns 'city'"),
        (new.assign(a="x"), "column 'a', row 1: expected a number, got 'x'"),
    ):
        frame.to_csv("bad.csv", index=False)
        code, _, errors = command("predict", "run", "bad.csv", "--out", "p.csv")
        assert code == 2
        assert message in errors
        assert not Path("p.csv").exists()
    new.iloc[:0].to_csv("none.csv", index=False)
    assert command("predict", "run", "none.csv", "--out", "p.csv")[0] == 0
    assert Path("p.csv").read_text() == "y,probability of high,probability of low\n"


def test_lists_in_a_table_are_ignored(command: Command, files: Path) -> None:
    pytest.importorskip("pyarrow", reason="writes Parquet")
    frame = classes(200)
    frame.assign(tags=[[i % 3] for i in range(200)]).to_parquet("lists.parquet")
    for table in ("train.csv", "lists.parquet"):
        flags = ("--table", table, "--target", "y", "--rounds", "5", "--out", table.split(".")[0])
        assert command("train", "lightgbm", *flags)[0] == 0
    results = [json.loads(Path(run, "result.json").read_text()) for run in ("train", "lists")]
    assert results[1]["meta"]["columns"] == results[0]["meta"]["columns"]
