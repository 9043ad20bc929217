"""NAS-Bench-201 as a table: what training each of its 15,625 cells on CIFAR-10 gave and took.

A CSV file, gzipped or not, with these columns in any order (others are ignored) and one row per cell:

    arch                 |op~0|+|op~0|op~1|+|op~0|op~1|op~2|
    cifar10_val_12ep     validation accuracy in percent after a training of 12 epochs
    cifar10_val_200ep    the same after 200 epochs
    cifar10_test_200ep   test accuracy in percent after 200 epochs, on training and validation images
    params, macs         parameters, multiply-adds
    train_seconds_12ep   seconds that the 12 epochs took

The official files of the benchmark become such a table by ``automl-ext nas-table`` (automl_ext/nas/benchmarks/nats_files.py).
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import LARGEST, read_small

VARIABLE = "AUTOML_EXT_NB201"
COLUMNS = (
    "cifar10_val_12ep",
    "cifar10_val_200ep",
    "cifar10_test_200ep",
    "params",
    "macs",
    "train_seconds_12ep",
)
CELLS = math.prod(NASBench201.num_choices)
_SPACE = NASBench201()


@dataclass(frozen=True, eq=False)
class Table:
    """Column by column, float64 [15625]; a cell's place is :func:`place` of it."""

    valid_12: NDArray[np.float64]
    valid_200: NDArray[np.float64]
    test_200: NDArray[np.float64]
    parameters: NDArray[np.float64]
    macs: NDArray[np.float64]
    train_seconds_12: NDArray[np.float64]

    @classmethod
    def load(cls, path: str | Path | None = None) -> Table:
        """Read a table, by default the one that the environment variable AUTOML_EXT_NB201 names.

        Raises:
            UserError: no such file, another format, a missing column, cells missing or twice, a value that is none:
                the line is named.
        """
        path = path or os.environ.get(VARIABLE)
        if not path:
            raise UserError(f"table: expected --table PATH, or the environment variable {VARIABLE}")
        rows = csv.reader(io.StringIO(_text(Path(path)), newline=""))
        try:
            header = next(rows, [])
            missing = [name for name in ("arch", *COLUMNS) if name not in header]
            if missing:
                raise UserError(f"table: {path}: line 1: no column {', '.join(missing)}")
            return cls._from_rows(path, rows, [header.index(name) for name in ("arch", *COLUMNS)], len(header))
        except csv.Error as error:
            raise UserError(f"table: {path}: no CSV: {error}") from None

    @classmethod
    def _from_rows(cls, path: str | Path, rows: Iterable[list[str]], columns: list[int], width: int) -> Table:
        values = np.full((len(COLUMNS), CELLS), np.nan)
        for number, row in enumerate(rows, start=2):
            if not row:  # an empty line
                continue
            where = f"table: {path}: line {number}"
            if len(row) != width:
                raise UserError(f"{where}: expected {width} values, as in line 1, got {len(row)}")
            arch, *texts = (row[column] for column in columns)
            try:
                cell = place(Genotype.parse(arch))
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
            if not np.isnan(values[0, cell]):
                raise UserError(f"{where}: {arch} is there twice")
            values[:, cell] = [_number(text, name, where) for text, name in zip(texts, COLUMNS, strict=True)]
        absent = np.flatnonzero(np.isnan(values[0]))
        if len(absent):
            example = _SPACE.decode([int(k) for k in np.unravel_index(absent[0], _SPACE.num_choices)])
            raise UserError(f"table: {path}: {len(absent)} of {CELLS} cells are missing, {example} among them")
        return cls(*values)


def place(genotype: Genotype) -> int:
    """The cell's number: its choices as digits to base 5."""
    number = 0
    for choice in _SPACE.encode(genotype):
        number = 5 * number + choice
    return number


def _text(path: Path) -> str:
    try:
        data = read_small(path)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise UserError(f"table: {path}: unpacks to more than {LARGEST >> 20} MiB")
        return data.decode()
    except UnicodeDecodeError:
        raise UserError(f"table: {path}: expected a CSV file, gzipped or not") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"table: {path}: the gzip file is damaged") from None
    except OSError as error:
        raise UserError(f"table: cannot read {path}: {error.strerror}") from None


def _number(text: str, name: str, where: str) -> float:
    """A percentage for accuracies, a positive number for the rest."""
    percentage = name.startswith("cifar10")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if (0 <= value <= 100) if percentage else (0 < value < math.inf):
        return value
    raise UserError(f"{where}: {name}: expected {'a percentage' if percentage else 'a number above 0'}, got {text!r}")


class TableEvaluator:
    """Looks cells up; an :class:`~automl_ext.nas.evaluation.Evaluator`.

    The score is the validation accuracy in percent after 12 epochs (budget 12, or None) or 200, the cost what
    NATS-Bench charges: the training and one pass over the validation images, here 2.5·(0.5 + 0.085·seconds per epoch).
    Training seconds are those of 12 epochs, in proportion. There are no weights, so states are ignored: a child that
    would inherit its parent's costs and scores what it always does.
    """

    def __init__(self, table: Table) -> None:
        epoch = table.train_seconds_12 / 12
        evaluation = 2.5 * (0.5 + 0.085 * epoch)
        # Lists, because single items of arrays are slow to read.
        self.scores = {12: table.valid_12.tolist(), 200: table.valid_200.tolist()}
        self.costs = {epochs: (epochs * epoch + evaluation).tolist() for epochs in self.scores}
        self.test, self.parameters, self.macs = (
            column.tolist() for column in (table.test_200, table.parameters, table.macs)
        )

    def check_budget(self, seconds: float) -> None:
        """UserError unless ``seconds`` are enough to evaluate any one cell, for 12 epochs."""
        most = max(self.costs[12])
        if seconds < most:
            raise UserError(f"budget: one evaluation takes up to {most:.1f} s, more than {seconds:g} s")

    def evaluate(
        self, genotype: Genotype, budget: int | None = None, state: dict[str, Any] | None = None
    ) -> Evaluation:
        """Measured: test_accuracy (percent, after 200 epochs), parameters, macs.

        Raises:
            UserError: the table knows nothing of ``budget``.
        """
        epochs = 12 if budget is None else budget
        if epochs not in self.scores:
            raise UserError(f"table: accuracies after 12 and 200 epochs are known, got a budget of {epochs}")
        cell = place(genotype)
        measured = {
            "test_accuracy": self.test[cell],
            "parameters": self.parameters[cell],
            "macs": self.macs[cell],
        }
        return Evaluation(self.scores[epochs][cell], self.costs[epochs][cell], measured=measured)
