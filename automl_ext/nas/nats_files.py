"""The official files of NATS-Bench's topology space (Dong et al. 2021) as the table that automl_ext.nas.table reads.

Two layouts exist, both bz2-compressed pickles of plain Python:

    NATS-tss-v1_0-….pickle.pbz2            {"meta_archs": [arch, …], "arch2infos": {index: cell, …}, …}
    NATS-tss-v1_0-…-simple/                meta.pickle.pbz2, and 000000.pickle.pbz2 … of one cell each

A cell is {"12": trials, "200": trials}, by epochs, and trials are {"dataset_seed": {data set: [seed, …]},
"all_results": {(data set, seed): trial}}. Of several trials the mean is taken, where the benchmark's own library draws
one at every look. Pickles can hold code; what is not data is refused.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from automl_ext.nas.table import COLUMNS
from automl_ext.training.atomic import write_atomic
from automl_ext.training.errors import UserError

SUFFIX = ".pickle.pbz2"
DATA = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("builtins", "set"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
}


def convert(source: Path, out: Path) -> None:
    """Write the table of an official file, or of a "simple" folder, to ``out`` (gzipped where it ends in .gz).

    Raises:
        UserError: ``source`` is neither, or damaged, or a cell lacks a result; names the file or the cell.
    """
    rows = [(arch, *_row(arch, cell)) for arch, cell in _cells(source)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("arch", *COLUMNS), *rows])
    data = text.getvalue().encode()
    # Without a time: equal tables, equal files.
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, gzip.compress(data, mtime=0) if out.suffix == ".gz" else data)


def _cells(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if source.is_dir():
        archs = _field(_load(source / f"meta{SUFFIX}"), "meta_archs", source)
        for index, arch in enumerate(archs):
            yield arch, _load(source / f"{index:06d}{SUFFIX}")
    else:
        benchmark = _load(source)
        cells = _field(benchmark, "arch2infos", source)
        for index, arch in enumerate(_field(benchmark, "meta_archs", source)):
            if index not in cells:
                raise UserError(f"{source}: no results of cell {index}, {arch}")
            yield arch, cells[index]


def _field(benchmark: Any, name: str, source: Path) -> Any:
    try:
        return benchmark[name]
    except (TypeError, KeyError, IndexError):
        raise UserError(f"{source}: expected a file of NATS-Bench's topology space, with {name!r} in it") from None


def _row(arch: str, cell: Mapping[str, Any]) -> tuple[float, ...]:
    """The columns of the table; accuracies as the benchmark's authors average them."""
    try:
        short, long = cell["12"], cell["200"]
        trials = _trials(short, "cifar10-valid")
        seconds = fmean(sum(trial["train_times"][epoch] for epoch in range(12)) for trial in trials)
        parameters, macs = (fmean(float(trial[key]) for trial in trials) for key in ("params", "flop"))
        return (
            _accuracy(trials, "x-valid@11"),
            _accuracy(_trials(long, "cifar10-valid"), "x-valid@199"),
            _accuracy(_trials(long, "cifar10"), "ori-test@199"),
            round(parameters * 1e6),
            round(macs * 1e6),
            round(seconds, 3),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{arch}: no such result in the files: {error}") from None


def _trials(results: Mapping[str, Any], dataset: str) -> list[Mapping[str, Any]]:
    return [results["all_results"][dataset, seed] for seed in results["dataset_seed"][dataset]]


def _accuracy(trials: list[Mapping[str, Any]], key: str) -> float:
    return round(fmean(trial["eval_acc1es"][key] for trial in trials), 3)


class _DataOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in DATA:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no data")
        return super().find_class(module, name)


def _load(path: Path) -> Any:
    try:
        with bz2.open(path, "rb") as file:
            return _DataOnly(file).load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, ImportError, IndexError) as error:
        raise UserError(f"{path}: expected a pickle of NATS-Bench: {error}") from None
