"""The commands ``fit`` and ``predict``."""

from __future__ import annotations

import shlex
import time as clock
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from automl_ext.tabular.extra import library
from automl_ext.tabular.fit import fit
from automl_ext.tabular.fitted import Fitted, load
from automl_ext.tabular.reports.page import final_models, validation, write_report
from automl_ext.tabular.reports.pictures import first_rows
from automl_ext.tabular.table.columns import AS_WRITTEN, table_of
from automl_ext.tabular.table.problem import Problem
from automl_ext.tabular.table.table_files import read_table
from automl_ext.tabular.table.task import HIGHER_IS_BETTER
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import check_writable, is_special, write_output
from automl_ext.training.files.reading import read_object
from automl_ext.training.numbers import alike, number
from automl_ext.training.run import CONFIG, Run

REPORT_SECONDS = 3.0  # for pictures and files, part of the budget
MOST_OF_BUDGET = 0.7  # at least this share of a small budget is for the search


@dataclass
class FitCommand:
    table: Annotated[Path, tyro.conf.Positional]
    """Table to learn from: NAME.csv, NAME.csv.gz or NAME.parquet."""
    target: str
    """Column to predict."""
    minutes: float = 1.0
    """Budget: wall-clock time of the whole command after the start of Python. Ctrl-C ends the search early, with the
    models that it has finished."""
    out: Path = Path("runs/fit")
    """Run directory; must be absent or empty."""
    time: str | None = None
    """Column of dates or numbers: models are validated on later rows than they are trained on. It is not a feature."""
    group: str | None = None
    """Column whose groups are never on both sides of a split. It is not a feature."""
    weight: str | None = None
    """Column of numbers, at least 0: the weight of each row in training and in the leaderboard. It is not a feature."""
    metric: str | None = None
    """log_loss (default), auc or accuracy for classes; rmse (default) or mae for numbers."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """auto: text, booleans, two numbers and few integers are classes."""
    type: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """COLUMN=TYPE instead of the inferred type: numeric, categorical, boolean, date, text or ignore. Repeatable."""
    features: bool = True
    """Construct features, and keep the families that lower the loss."""
    seed: int = 0
    """Seed of all randomness."""
    workers: int = 1
    """Number of threads."""
    json: bool = False
    """Print the content of result.json, and nothing else, on standard output."""


@dataclass
class PredictCommand:
    run: Annotated[Path, tyro.conf.Positional]
    """Run directory of fit, or a trial of tune fit: OUT/trials/0007."""
    table: Annotated[Path, tyro.conf.Positional]
    """Table with new rows: NAME.csv, NAME.csv.gz or NAME.parquet."""
    out: Path = Path("predictions.csv")
    """CSV file to write: the prediction of each row, and the probability of each class."""


def fit_command(command: FitCommand) -> int:
    """Run ``automl-ext fit``. Return the exit code."""
    began = clock.monotonic()
    try:
        check_range(command, "minutes", above=0)
        check_range(command, "workers", low=1, high=1024)
        check_seed(command.seed)
    except ValueError as error:
        raise UserError(str(error)) from None
    if command.out.is_dir() and any(command.out.iterdir()):
        raise UserError(f"out: {command.out} is not empty: choose another --out, or delete it; fit cannot be resumed")
    types = _types(command)
    as_written = [name for name, kind in types.items() if kind in AS_WRITTEN]
    frame = read_table(command.table, as_written, command.target)
    console = Console(stderr=command.json, soft_wrap=True)
    with Run.open(command.out, command, algorithm="fit") as run, run.progress(100, "fit", percent=True) as bar:
        seconds = 60 * command.minutes - (clock.monotonic() - began)
        seconds = max(seconds - REPORT_SECONDS, MOST_OF_BUDGET * seconds, 0.01)
        done = 0

        def report(trial: int, name: str, value: float, best: float) -> None:
            nonlocal done
            percent = int(min(100, 100 * (clock.monotonic() - began) / (60 * command.minutes)))
            run.log(trial, value=value, best=best)
            bar.advance(percent - done, f"fit: {name}, best {number(best)}")
            done = percent

        fitted = fit(
            frame,
            command.target,
            minutes=seconds / 60,
            seed=command.seed,
            features=command.features,
            time=command.time,
            group=command.group,
            weight=command.weight,
            metric=command.metric,
            task=None if command.task == "auto" else command.task,
            types=types,
            workers=command.workers,
            start=lambda problem: _say(console, problem),
            report=report,
        )
        fitted.save(run.path)
        page = write_report(fitted, run.path)
        result = _result(fitted)
        run.finish(result)
    if command.json:
        Console().print_json(data=result)
    else:
        _summarize(console, fitted, command.out, page)
    return 0


def predict_command(command: PredictCommand) -> int:
    """Run ``automl-ext predict``. Return the exit code."""
    fitted = load(command.run)
    frame = read_table(command.table, [column.name for column in fitted.columns if column.kind in AS_WRITTEN])
    config = command.run / CONFIG
    learned_from = Path(str(read_object(config).get("table"))) if config.is_file() else command.table
    for table in (command.table, learned_from):
        if command.out.exists() and table.exists() and command.out.samefile(table):
            raise UserError(f"out: {command.out} is the table {table}: choose another file")
    check_writable(command.out)
    columns: dict[str, Any] = {}
    if fitted.task.is_classification:
        probabilities = fitted.predict_proba(frame)
        labels = [fitted.classes[i] for i in probabilities.argmax(1)]
        columns[fitted.task.target] = labels
        columns |= {f"probability of {label}": probabilities[:, i] for i, label in enumerate(fitted.classes)}
    else:
        columns[fitted.task.target] = fitted.predict(frame)
    write_output(command.out, library("pandas").DataFrame(columns).to_csv(index=False).encode())
    if not is_special(command.out):  # a pipe has only the predictions
        print(f"{command.out}: predictions of {len(frame):,} rows")
    return 0


def _types(command: FitCommand) -> dict[str, str]:
    """Return the given types by column."""
    types: dict[str, str] = {}
    for name, kind in map(_pair, command.type):
        if name in types:
            raise UserError(f"type: expected one type of column {name!r}, got {types[name]} and {kind}")
        types[name] = kind
    return types


def _pair(text: str) -> tuple[str, str]:
    """Split COLUMN=TYPE; a column's name may contain "="."""
    name, equals, kind = text.rpartition("=")
    if not equals:
        raise UserError(f"type: expected COLUMN=TYPE, got {text!r}")
    return name, kind


def _say(console: Console, problem: Problem) -> None:
    """Print the types of the columns, the task and the notes."""
    task = problem.task
    classes = f", {len(task.classes)} classes" if task.is_classification else ""
    console.print(table_of(problem.columns))
    console.print(f"target {task.target}: {task.kind}{classes}, because {task.why}; metric {task.metric}", markup=False)
    for note in problem.notes:
        console.print(f"note: {note}", markup=False)


def _result(fitted: Fitted) -> dict[str, Any]:
    """Return the content of ``result.json``."""
    metric, facts = fitted.task.metric, fitted.report
    value = facts["leaderboard"][0][metric]
    known = ("split_means", "seed", "minutes")  # to the reader of config.json
    return {
        "negative_loss": value - 1 if metric in HIGHER_IS_BETTER else -value,
        f"valid_{metric}": value,
        f"valid_{metric}_error": facts["leaderboard"][0]["error"],
        "task": fitted.task.kind,
        **{key: fact for key, fact in facts.items() if key not in known},
    }


def _summarize(console: Console, fitted: Fitted, out: Path, page: Path) -> None:
    """Print the leaderboard, the decisions on constructed features, and suggested next commands."""
    from rich.table import Table
    from rich.text import Text

    metric, facts = fitted.task.metric, fitted.report
    table = Table("model", metric.replace("_", " "), "votes", "seconds")
    shown = first_rows(facts["leaderboard"], 10)
    for row, value in zip(shown, alike([row[metric] for row in shown], 5), strict=True):
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        error = "" if row["error"] is None else f" ± {number(row['error'], 2)}"
        table.add_row(Text(row["name"]), f"{value}{error}", str(row["votes"]), seconds)
    console.print(table)
    for verdict in facts["features"]:
        gain = "" if verdict["gain"] is None else f": gain {verdict['gain']:.3g} ± {verdict['error']:.2g}"
        kept = "kept" if verdict["kept"] else "dropped"
        console.print(f"features, {verdict['family']}: {kept}{gain}; {verdict['why']}", markup=False)
    if facts["interrupted"]:
        console.print("interrupted: these are the models that were finished until then", markup=False)
    for advice in facts["advice"]:
        console.print(f"advice: {advice}", markup=False)
    console.print(f"split: {validation(facts)} {final_models(facts)}", markup=False)
    console.print(f"written to {page}", markup=False)
    console.print(f"next:\n  automl-ext predict {shlex.quote(str(out))} NEW.csv --out predictions.csv", markup=False)
