"""The commands fit, predict and tune fit, and the cross-validation of one learner."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tables import classes, numbers

from automl_ext.tabular import load
from automl_ext.tabular.runs import ForestOptions, LightGBMOptions, XGBoostOptions, cross_validate
from automl_ext.training.errors import UserError
from automl_ext.tune.portfolio import portfolio

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
    assert 0 < result["valid_log_loss_error"] < 0.1
    assert f"{result['valid_log_loss']:.5g} ± {result['valid_log_loss_error']:.2g}" in printed
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
    assert (result["split"], type(result["refitted"]), result["features"]) == ("time", int, [])
    assert result["valid_mae"] > 0
    kinds = {column.name: column.kind for column in load("run").columns}
    assert kinds["day"] == kinds["member"] == "ignore"
    assert (files / "run/predicted.png").is_file()


def test_the_smallest_budget_is_one(command: Command, files: Path) -> None:
    assert command("fit", "train.csv", "--target", "y", "--minutes", "1e-320", "--out", "run")[0] == 0


@pytest.mark.parametrize("learner", ["lightgbm", "xgboost", "forest"])
def test_one_learner_is_cross_validated(learner: str, command: Command, files: Path) -> None:
    size = {"trees": 10} if learner == "forest" else {"rounds": 30}
    config = {"lightgbm": LightGBMOptions, "xgboost": XGBoostOptions, "forest": ForestOptions}[learner](
        table="train.csv", target="y", **size
    )
    cross_validate(learner, config, Path("run"))
    result = json.loads((files / "run/result.json").read_text())
    assert result["valid_log_loss"] == -result["negative_loss"] < 0.7
    logged = [json.loads(line) for line in (files / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5]
    assert command("predict", "run", "new.csv")[0] == 0
    assert cross_validate(learner, config, Path("run"), "auto")["negative_loss"] == result["negative_loss"]  # again
    with pytest.raises(UserError, match="stop_after: "):
        cross_validate(learner, config, Path("other"), stop_after=3)


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["lightgbm", "xgboost", "forest"])
def test_one_learner_is_tuned(learner: str, command: Command, files: Path) -> None:
    """Trial 0 has the given settings, and the next command repeats the best ones."""
    size = ("--trees", "10") if learner == "forest" else ("--rounds", "20")
    flags = ["tune", "fit", "--learner", learner, "train.csv", "--target", "y", *size]
    code, printed, errors = command(*flags, "--trials", "3", "--confirm", "0", "--out", "tuned", "--json")
    assert code == 0, errors
    result = json.loads(printed)
    assert result["command"] == f"fit --learner {learner}"
    assert result["metric"] == "negative_loss"
    best = f"tuned/trials/{result['best']['trial']:04d}"
    assert command("predict", best, "new.csv")[0] == 0
    again = result["command_line"].split()
    assert again[:7] == ["automl-ext", "tune", "fit", "--learner", learner, "--trials", "1"]
    assert command(*again[1:], "--out", "again")[0] == 0
    assert json.loads((files / "again/result.json").read_text())["first_value"] == result["best"]["value"]


def test_the_portfolio_of_a_learner_comes_after_the_given_settings(command: Command, files: Path) -> None:
    flags = "tune fit train.csv --target y --rounds 5 --trials 2 --out tuned"
    assert command(*flags.split())[0] == 0
    trials = json.loads((files / "tuned/result.json").read_text())["trials"]
    assert trials[1]["point"] == portfolio("fit --learner lightgbm")[0]


def test_by_time_a_model_of_all_rows_is_kept(command: Command, files: Path) -> None:
    """The first folds know the earliest rows only, so their models are no part of the result."""
    config = LightGBMOptions(table="numbers.csv", target="price", time="day", rounds=30)
    cross_validate("lightgbm", config, Path("run"))
    assert [member.weight for member in load("run").members] == [1]


def test_what_is_refused_leaves_no_run_directory(command: Command, files: Path) -> None:
    for arguments, message in (
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
        ("tune fit --learner xgboost train.csv --target y --max-depth 0 --trials 1 --out run", "max_depth: "),
        ("tune fit --target y --trials 1 --out run", "table: expected a file, got none"),
        ("tune fit absent.csv --target y --trials 1 --out run", "cannot read absent.csv"),
        ("tune fit train.csv --trials 1 --out run", "target: expected a column, got none"),
        ("tune fit --learner forest train.csv --target z --trials 1 --out run", "there is no column 'z'"),
        ("predict run new.csv", "model.json"),
    ):
        code, _, errors = command(*arguments.split())
        assert code == 2, arguments
        assert message in errors.splitlines()[-1]
        assert not (files / "run").exists(), arguments


def test_an_unknown_learner_is_refused(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    flags = "--learner linear train.csv --target y --trials 1"
    code, _, printed = command("tune", "fit", *flags.split())
    assert code == 2
    assert all(name in printed for name in ("--learner", "'linear'", "lightgbm", "xgboost", "forest"))


def test_codes_of_digits_are_known_whatever_other_rows_the_file_has(command: Command, files: Path) -> None:
    code = ["007", "010", "A1", "1.50"] * 50
    frame = pd.DataFrame({"code": code, "y": [code[i % 4] in ("010", "1.50") and 5 + i / 1e4 for i in range(200)]})
    frame.astype({"y": float}).to_csv("codes.csv", index=False)
    cross_validate("xgboost", XGBoostOptions(table="codes.csv", target="y", rounds=20), Path("run"))
    assert command("predict", "run", "codes.csv", "--out", "all.csv")[0] == 0
    for k in range(4):
        frame[k::4].to_csv("some.csv", index=False)
        assert command("predict", "run", "some.csv", "--out", "p.csv")[0] == 0
        assert list(pd.read_csv("p.csv")["y"]) == list(pd.read_csv("all.csv")["y"][k::4])


def test_rows_that_cannot_be_predicted_are_named(command: Command, files: Path) -> None:
    cross_validate("lightgbm", LightGBMOptions(table="train.csv", target="y", rounds=5), Path("run"))
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


def test_lists_in_a_table_are_ignored(files: Path) -> None:
    frame = classes(200)
    frame.assign(tags=[[i % 3] for i in range(200)]).to_parquet("lists.parquet")
    losses = [
        cross_validate("lightgbm", LightGBMOptions(table=table, target="y", rounds=5), Path(table).with_suffix(""))
        for table in ("train.csv", "lists.parquet")
    ]
    assert losses[1]["negative_loss"] == losses[0]["negative_loss"]
    assert {column.name: column.kind for column in load("lists").columns}["tags"] == "ignore"
