"""The report of a fit: one HTML file that contains its pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from automl_ext.tabular.fitted import Fitted
from automl_ext.tabular.reports.pictures import draw_pictures
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.numbers import alike

REPORT = "report.html"
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0}td,th{border-bottom:1px solid #ddd;padding:.2rem .8rem;text-align:left}
img{max-width:100%}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}.warning{color:#a33}"""


def write_report(fitted: Fitted, folder: Path) -> Path:
    """Draw the pictures and write ``report.html`` into ``folder``. Return the file."""
    pictures = draw_pictures(fitted, folder)
    task, facts = fitted.task, fitted.report
    kind = f"{len(task.classes)} classes" if task.is_classification else "numbers"
    lines = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(task.target)}</title><style>{STYLE}</style><h1>Prediction of {escape(task.target)}</h1>",
        f"<p>{escape(task.kind)}, {kind} ({escape(task.why)}); {facts['rows']:,} rows, "
        f"{sum(column.is_used for column in fitted.columns)} columns used; {facts['seconds']:.0f} seconds.</p>",
        *(f"<p class=warning>{escape(note)}</p>" for note in [*facts["notes"], *facts["advice"]]),
        "<p class=warning>Interrupted before the end of its budget.</p>" if facts["interrupted"] else "",
        f"<p>Split: {escape(validation(facts))} {escape(final_models(facts))}</p>",
        "<h2>Leaderboard</h2>",
        _picture(pictures.get("Leaderboard")),
        "<p>Measured on rows that the models were not trained on. "
        "The ensemble was selected by these rows, so its value is slightly too good. Error: its standard error; std: "
        "standard deviation over the folds.</p>",
        _table(facts["leaderboard"], ("name", task.metric, "error", "std", "votes", "rounds", "features", "seconds")),
    ]
    for title in ("Calibration", "Predicted against true", "Importance of features"):
        if title in pictures:
            lines += [f"<h2>{title}</h2>", _picture(pictures[title])]
    lines += ["<h2>Constructed features</h2>"]
    if facts["features"]:
        lines += [
            "<p>A family is kept if the mean of its paired gains over the folds is above its corrected standard error "
            "(Nadeau and Bengio 2003), with LightGBM's default settings.</p>",
            _picture(pictures.get("Gain of constructed features")),
            _table(facts["features"], ("family", "kept", "gain", "error", "why")),
        ]
    else:
        lines.append("<p>Not tried.</p>")
    lines += ["<h2>Columns</h2>", _table([asdict(c) for c in fitted.columns], ("name", "kind", "why"))]
    if facts["failed"]:
        rows = [{"name": name, "error": error} for name, error in facts["failed"].items()]
        lines += ["<h2>Failed candidates</h2>", _table(rows, ("name", "error"))]
    path = folder / REPORT
    write_atomic(path, "\n".join([*lines, "</html>", ""]).encode())
    return path


def validation(facts: dict[str, Any]) -> str:
    """Return a sentence on how models were validated."""
    how = (
        f"{facts['folds']} folds"
        if facts["folds"] > 1
        else "one held-out part (no time for five folds of so large a table)"
    )
    return f"{facts['split']}, {how}: {facts['split_means']}."


def final_models(facts: dict[str, Any]) -> str:
    """Return a sentence on the models that predict."""
    refitted, chosen = facts["refitted"], sum(row["votes"] > 0 for row in facts["leaderboard"][1:])
    if refitted is None:
        return "Predictions are averages of the folds' models."
    if refitted == chosen:
        return "The chosen candidates were trained again on all rows."
    return (
        f"{refitted} of {chosen} chosen candidates were trained again on all rows. For the others, no time was left or "
        "the training failed: they predict with their models of the last fold."
    )


def _picture(path: Path | None) -> str:
    if path is None:
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{path.stem}' src='data:image/png;base64,{data}'>"


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in names)
    columns = [_cells([row[name] for row in rows]) for name in names]
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in zip(*columns, strict=True))
    return f"<table><tr>{head}</tr>{body}</table>"


def _cells(values: Sequence[Any]) -> list[str]:
    """Return the cells of a column."""
    if any(isinstance(value, float) for value in values):
        return alike(values)
    words = {None: "–", True: "yes", False: "no"}
    return [words[value] if value is None or isinstance(value, bool) else escape(str(value)) for value in values]
