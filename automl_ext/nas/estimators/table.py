"""NAS-Bench-201 as a table: accuracy and cost of training each of its 15,625 cells on one of three data sets.

The table of CIFAR-10 is part of the package. A table is a CSV file, gzipped or not, with one row per cell, or an npz
file with one array per column, whose cells are in the order of :func:`place`. The columns, in any order (others are
ignored), for CIFAR-10; for the other data sets, ``cifar10`` is ``cifar100`` or ``imagenet16_120``:

    arch                 |op~0|+|op~0|op~1|+|op~0|op~1|op~2|; not in an npz file
    cifar10_val_12ep     validation accuracy in percent after training for 12 epochs
    cifar10_val_200ep    the same after 200 epochs
    cifar10_test_200ep   test accuracy in percent after 200 epochs; CIFAR-10: on training and validation images
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
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.training.errors import UserError
from automl_ext.training.files.npz import read_npz
from automl_ext.training.files.reading import LARGEST, check_regular, read_small

PACKAGED = "cifar10"  # name of the table in the package
_PACKAGED_FILE = Path(__file__).parents[1] / "benchmarks" / "nasbench201_cifar10.npz"


class Dataset(NamedTuple):
    """A data set of the benchmark: its name, and thousands of images for training and for validation."""

    name: str
    train: float
    valid: float


DATASETS = {
    "cifar10": Dataset("CIFAR-10", 25.0, 25.0),
    "cifar100": Dataset("CIFAR-100", 50.0, 5.0),
    "imagenet16_120": Dataset("ImageNet16-120", 151.7, 3.0),
}
CELLS = math.prod(NASBench201.num_choices)
_SPACE = NASBench201()


def columns(dataset: str) -> tuple[str, ...]:
    """Return the names of the columns of numbers, in the order of :class:`Table`'s fields."""
    accuracies = (f"{dataset}_{part}" for part in ("val_12ep", "val_200ep", "test_200ep"))
    return (*accuracies, "params", "macs", "train_seconds_12ep")


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of the table, float64 [15625]; :func:`place` returns the index of a cell."""

    valid_12: NDArray[np.float64]
    valid_200: NDArray[np.float64]
    test_200: NDArray[np.float64]
    parameters: NDArray[np.float64]
    macs: NDArray[np.float64]
    train_seconds_12: NDArray[np.float64]
    dataset: str = field(default=PACKAGED, kw_only=True)  # one of ``DATASETS``

    @classmethod
    def load(cls, path: str | Path = PACKAGED) -> Table:
        """Read a table.

        Args:
            path: "cifar10" (the table in the package), a CSV file, gzipped or not, or a file NAME.npz.

        Raises:
            UserError: the file does not exist or has another format, a column or a cell is missing, a cell occurs
                twice, or a value is invalid. The message names the line or the cell.
        """
        path = _PACKAGED_FILE if str(path) == PACKAGED else Path(path)
        check_regular(path, "table")
        if path.suffix == ".npz":
            return cls._from_npz(path)
        rows = csv.reader(io.StringIO(_text(path), newline=""))
        try:
            header = next(rows, [])
            dataset = _dataset(f"table: {path}: line 1", header)
            names = ("arch", *columns(dataset))
            if "arch" not in header:
                raise UserError(f"table: {path}: line 1: no column arch")
            return cls._from_rows(path, rows, [header.index(name) for name in names], len(header), dataset)
        except csv.Error as error:
            raise UserError(f"table: {path}: invalid CSV: {error}") from None

    @classmethod
    def _from_npz(cls, path: Path) -> Table:
        every = {name for dataset in DATASETS for name in columns(dataset)}
        arrays, present = read_npz(path, every)
        dataset = _dataset(f"table: {path}", present)
        values = []
        for name in columns(dataset):
            array = arrays[name]
            if array.shape != (CELLS,) or array.dtype.kind not in "fiu":
                raise UserError(
                    f"table: {path}: {name}: expected {CELLS} numbers, got {array.dtype} {list(array.shape)}"
                )
            values.append(array.astype(np.float64))
            invalid = np.flatnonzero(~_is_valid(name, values[-1]))
            if len(invalid):
                _refuse(f"table: {path}: cell {_cell(int(invalid[0]))}", name, str(array[invalid[0]]))
        return cls(*values, dataset=dataset)

    @classmethod
    def _from_rows(cls, path: Path, rows: Iterable[list[str]], positions: list[int], width: int, dataset: str) -> Table:
        names = columns(dataset)
        values = np.full((len(names), CELLS), np.nan)
        for number, row in enumerate(rows, start=2):
            if not row:  # an empty line
                continue
            where = f"table: {path}: line {number}"
            if len(row) != width:
                raise UserError(f"{where}: expected {width} values, as in line 1, got {len(row)}")
            arch, *texts = (row[position] for position in positions)
            try:
                cell = place(Genotype.parse(arch))
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
            if not np.isnan(values[0, cell]):
                raise UserError(f"{where}: {arch} occurs twice")
            values[:, cell] = [_number(text, name, where) for text, name in zip(texts, names, strict=True)]
        absent = np.flatnonzero(np.isnan(values[0]))
        if len(absent):
            example = _cell(int(absent[0]))
            raise UserError(f"table: {path}: {len(absent)} of {CELLS} cells are missing, for example {example}")
        return cls(*values, dataset=dataset)


def place(genotype: Genotype) -> int:
    """Return the index of a cell: its choices as the digits of a number in base 5."""
    number = 0
    for choice in _SPACE.encode(genotype):
        number = 5 * number + choice
    return number


def _cell(index: int) -> Genotype:
    return _SPACE.decode([int(k) for k in np.unravel_index(index, _SPACE.num_choices)])


def _dataset(where: str, names: Collection[str]) -> str:
    """Return the data set whose columns are among ``names``."""
    missing = {dataset: [name for name in columns(dataset) if name not in names] for dataset in DATASETS}
    dataset = min(missing, key=lambda name: len(missing[name]))
    if missing[dataset]:
        raise UserError(f"{where}: no column {', '.join(missing[dataset])}")
    return dataset


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
        raise UserError(f"table: {path}: expected a CSV file, gzipped or not, or an npz file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"table: {path}: the gzip file is damaged") from None
    except OSError as error:
        raise UserError(f"table: cannot read {path}: {error.strerror}") from None


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return value if _is_valid(name, value) else _refuse(where, name, repr(text))


def _is_valid(name: str, value: Any) -> Any:
    """Return whether a value, or each value of an array, is a percentage (accuracies) or a positive number."""
    return (value >= 0) & (value <= 100) if "_val_" in name or "_test_" in name else (value > 0) & (value < math.inf)


def _refuse(where: str, name: str, got: str) -> NoReturn:
    expected = "a percentage" if "_val_" in name or "_test_" in name else "a number above 0"
    raise UserError(f"{where}: {name}: expected {expected}, got {got}")


class TableEvaluator:
    """Looks up cells in a table; an :class:`~automl_ext.nas.evaluation.Evaluator`.

    The score is the validation accuracy in percent after 12 epochs (budget 12 or None) or 200 epochs. As in NATS-Bench
    (Dong et al. 2021), the cost in seconds is that of the training plus one pass over the validation images. With e
    seconds per training epoch, n epochs of training cost n·e; e is ``train_seconds_12``/12, also for n = 200. The table
    has no time of the validation pass. We approximate it as 2.5·(0.5 + 0.085·e) seconds for CIFAR-10, which is not
    measured, and in proportion to the numbers of training and validation images for the other data sets.
    The table has no weights, so states are ignored: an architecture that would inherit the weights of its parent (as in
    ReNAS) gets the score and the cost of a training from scratch.
    """

    def __init__(self, table: Table) -> None:
        epoch = table.train_seconds_12 / 12
        images, reference = DATASETS[table.dataset], DATASETS["cifar10"]
        # Approximation, see the class.
        evaluation = images.valid / reference.valid * 2.5 * (0.5 + 0.085 * (reference.train / images.train) * epoch)
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
