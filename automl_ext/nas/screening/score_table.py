"""A table of training-free scores: in memory, and as a CSV file with one row per architecture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_ext.nas.estimators.training_free.correlations import log_rank_sum
from automl_ext.nas.estimators.training_free.scores import RANK, SCORES
from automl_ext.nas.spaces.space import Space
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.files.reading import read_small

GENOTYPE, SECONDS = "genotype", "cpu_seconds"


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of architectures.

    Attributes:
        genotypes: the architectures [n].
        scores: values [n] by name; −inf where a score is not defined.
        seconds: the cost of each architecture's scores [n]; architectures that share scores have the same.
    """

    genotypes: list[Any]
    scores: dict[str, NDArray[np.float64]]
    seconds: NDArray[np.float64]

    def rank(self) -> NDArray[np.float64]:
        """Return the sum of the log-ranks of the scores of ``RANK``, [n]; higher is better."""
        return log_rank_sum(self.scores, RANK)

    def take(self, indices: Sequence[int]) -> ScoreTable:
        """Return the rows ``indices``."""
        rows = np.asarray(indices, dtype=np.int64)
        columns = {name: values[rows] for name, values in self.scores.items()}
        return ScoreTable([self.genotypes[i] for i in rows], columns, self.seconds[rows])

    def write(self, path: Path) -> None:
        """Write the table as a CSV file, atomically. Floats are written exactly."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([GENOTYPE, *self.scores, SECONDS])
        for i, genotype in enumerate(self.genotypes):
            numbers = [values[i] for values in self.scores.values()] + [self.seconds[i]]
            writer.writerow([str(genotype), *(repr(float(number)) for number in numbers)])
        write_atomic(path, text.getvalue().encode())

    @classmethod
    def read(cls, path: Path, space: Space[Any]) -> ScoreTable:
        """Read a file that :meth:`write` wrote.

        Raises:
            UserError: the file is missing or has another format, a column of ``RANK`` is missing, or a value is
                invalid. The message names the line.
        """
        try:
            rows = list(csv.reader(io.StringIO(read_small(path).decode(), newline="")))
        except OSError as error:
            raise UserError(f"scores: cannot read {path}: {error.strerror}") from None
        except (UnicodeDecodeError, csv.Error):
            raise UserError(f"scores: {path}: expected a CSV file that automl-ext score wrote") from None
        header = rows[0] if rows else []
        missing = [name for name in (GENOTYPE, *RANK, SECONDS) if name not in header]
        if missing:
            raise UserError(f"scores: {path}: line 1: no column {', '.join(missing)}")
        names = [name for name in header if name in SCORES]
        genotypes, values = [], []
        for number, row in enumerate(rows[1:], start=2):
            where = f"scores: {path}: line {number}"
            if len(row) != len(header):
                raise UserError(f"{where}: expected {len(header)} values, as in line 1, got {len(row)}")
            fields = dict(zip(header, row, strict=True))
            try:
                genotypes.append(space.parse(fields[GENOTYPE]))
                values.append([_number(fields[name]) for name in (*names, SECONDS)])
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
        if not genotypes:
            raise UserError(f"scores: {path}: expected at least one row")
        table = np.array(values)
        if not (np.isfinite(table[:, -1]).all() and (table[:, -1] >= 0).all()):
            raise UserError(f"scores: {path}: {SECONDS}: expected finite numbers of at least 0")
        return cls(genotypes, {name: table[:, k] for k, name in enumerate(names)}, table[:, -1])


def _number(text: str) -> float:
    value = float(text)
    if math.isnan(value) or value == math.inf:
        raise ValueError(f"expected a number or -inf, got {text}")
    return value
