"""NAS-Bench-201 as a table: accuracy and cost of training each of its 15,625 cells on one of three data sets.

The table of CIFAR-10 is part of the package. A table is an npz file with one array per column, whose cells are in the
order of :func:`place`. The columns for CIFAR-10 are as follows (for the other data sets, ``cifar100`` or
``imagenet16_120`` stands in place of ``cifar10``; other columns are ignored):

    cifar10_val_12ep     validation accuracy in percent after training for 12 epochs
    cifar10_val_200ep    the same after 200 epochs
    cifar10_test_200ep   test accuracy in percent after 200 epochs; CIFAR-10: on training and validation images
    params, macs         numbers of parameters and multiply-adds
    train_seconds_12ep   duration of the 12 epochs in seconds

``automl-ext nas-table`` converts the official files of the benchmark to such a table
(automl_ext/nas/benchmarks/nats_files.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201
from automl_ext.training.errors import UserError
from automl_ext.training.files.npz import read_npz
from automl_ext.training.files.reading import check_regular

PACKAGED = "cifar10"  # name of the table in the package
_PACKAGED_FILE = Path(__file__).parents[1] / "benchmarks" / "nasbench201_cifar10.npz"


class Dataset(NamedTuple):
    """A data set of the benchmark: its name, and its numbers of training and validation images in thousands."""

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
            path: "cifar10" (the table in the package) or an npz file.

        Raises:
            UserError: the file does not exist or has another format, a column is missing, or a value is invalid. The
                message names the column and the cell.
        """
        path = _PACKAGED_FILE if str(path) == PACKAGED else Path(path)
        check_regular(path, "table")
        if not path.exists():
            raise UserError(f"table: cannot read {path}: there is no such file")
        if path.suffix != ".npz":
            raise UserError(f"table: expected an npz file, as automl-ext nas-table writes, got {path}")
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
            percent = "_val_" in name or "_test_" in name
            valid = (array >= 0) & (array <= 100) if percent else (array > 0) & (array < math.inf)
            if not valid.all():
                cell = int(np.flatnonzero(~valid)[0])
                expected = "a percentage" if percent else "a number above 0"
                raise UserError(f"table: {path}: {_cell(cell)}: {name}: expected {expected}, got {array[cell]}")
            values.append(array.astype(np.float64))
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
