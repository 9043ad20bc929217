"""NAS-Bench-201 as a table: accuracy and cost of training each of its 15,625 cells on CIFAR-10.

The table is a CSV file, gzipped or not, with one row per cell and these columns in any order (others are ignored):

    arch                 |op~0|+|op~0|op~1|+|op~0|op~1|op~2|
    cifar10_val_12ep     validation accuracy in percent after training for 12 epochs
    cifar10_val_200ep    the same after 200 epochs
    cifar10_test_200ep   test accuracy in percent after 200 epochs on the training and validation images
    params, macs         numbers of parameters and multiply-adds
    train_seconds_12ep   duration of the 12 epochs in seconds

``automl-ext nas-table`` converts the official files of the benchmark to such a table
(automl_ext/nas/benchmarks/nats_files.py).
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
    """The columns of the table, float64 [15625]; :func:`place` returns the index of a cell."""

    valid_12: NDArray[np.float64]
    valid_200: NDArray[np.float64]
    test_200: NDArray[np.float64]
    parameters: NDArray[np.float64]
    macs: NDArray[np.float64]
    train_seconds_12: NDArray[np.float64]

    @classmethod
    def load(cls, path: str | Path | None = None) -> Table:
        """Read a table, by default the one named by the environment variable AUTOML_EXT_NB201.

        Raises:
            UserError: the file does not exist or has another format, a column or a cell is missing, a cell occurs
                twice, or a value is invalid. The message names the line.
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
            raise UserError(f"table: {path}: invalid CSV: {error}") from None

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
                raise UserError(f"{where}: {arch} occurs twice")
            values[:, cell] = [_number(text, name, where) for text, name in zip(texts, COLUMNS, strict=True)]
        absent = np.flatnonzero(np.isnan(values[0]))
        if len(absent):
            example = _SPACE.decode([int(k) for k in np.unravel_index(absent[0], _SPACE.num_choices)])
            raise UserError(f"table: {path}: {len(absent)} of {CELLS} cells are missing, for example {example}")
        return cls(*values)


def place(genotype: Genotype) -> int:
    """Return the index of a cell: its choices as the digits of a number in base 5."""
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
    """Parse a value: a percentage for accuracies, otherwise a positive number."""
    percentage = name.startswith("cifar10")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if (0 <= value <= 100) if percentage else (0 < value < math.inf):
        return value
    raise UserError(f"{where}: {name}: expected {'a percentage' if percentage else 'a number above 0'}, got {text!r}")


class TableEvaluator:
    """Looks up cells in a table; an :class:`~automl_ext.nas.evaluation.Evaluator`.

    The score is the validation accuracy in percent after 12 epochs (budget 12 or None) or 200 epochs. As in NATS-Bench
    (Dong et al. 2021), the cost in seconds is that of the training plus one pass over the validation images. With e
    seconds per training epoch, n epochs of training cost n·e; e is ``train_seconds_12``/12, also for n = 200. The table
    has no time of the validation pass. We approximate it as 2.5·(0.5 + 0.085·e) seconds, which is not measured.
    The table has no weights, so states are ignored: an architecture that would inherit the weights of its parent (as in
    ReNAS) gets the score and the cost of a training from scratch.
    """

    def __init__(self, table: Table) -> None:
        epoch = table.train_seconds_12 / 12
        # Approximation, see the class.
        evaluation = 2.5 * (0.5 + 0.085 * epoch)
        # Lists, because indexing single items of arrays is slow.
        self.scores = {12: table.valid_12.tolist(), 200: table.valid_200.tolist()}
        self.costs = {epochs: (epochs * epoch + evaluation).tolist() for epochs in self.scores}
        self.test, self.parameters, self.macs = (
            column.tolist() for column in (table.test_200, table.parameters, table.macs)
        )

    def check_budget(self, seconds: float) -> None:
        """Raise UserError if ``seconds`` are too few to train the most expensive cell for 12 epochs."""
        most = max(self.costs[12])
        if seconds < most:
            raise UserError(f"budget: one evaluation takes up to {most:.1f} s, more than {seconds:g} s")

    def evaluate(
        self, genotype: Genotype, budget: int | None = None, state: dict[str, Any] | None = None
    ) -> Evaluation:
        """Look up a cell.

        ``measured`` contains test_accuracy (percent, after 200 epochs), parameters and macs.

        Raises:
            UserError: ``budget`` is neither 12 nor 200.
        """
        epochs = 12 if budget is None else budget
        if epochs not in self.scores:
            raise UserError(f"table: expected a budget of 12 or 200 epochs, got {epochs}")
        cell = place(genotype)
        measured = {
            "test_accuracy": self.test[cell],
            "parameters": self.parameters[cell],
            "macs": self.macs[cell],
        }
        return Evaluation(self.scores[epochs][cell], self.costs[epochs][cell], measured=measured)
