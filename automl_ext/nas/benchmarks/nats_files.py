"""Converts the official files of NATS-Bench's topology space (Dong et al. 2021) to a table of one data set.

:mod:`automl_ext.nas.estimators.benchmark_table` reads the table. The official files are bz2-compressed pickles of plain
Python in one of two layouts:

    NATS-tss-v1_0-….pickle.pbz2            {"meta_archs": [arch, …], "arch2infos": {index: cell, …}, …}
    NATS-tss-v1_0-…-simple/                meta.pickle.pbz2, and 000000.pickle.pbz2 … with one cell each

A cell is {"12": trials, "200": trials}, by number of epochs. Trials are {"dataset_seed": {data set: [seed, …]},
"all_results": {(data set, seed): trial}}. The table contains the mean over trials, whereas the benchmark's own library
draws one trial per lookup. Validation and test images are those of the benchmark: for CIFAR-10, half of the training
images and the official test images; for CIFAR-100 and ImageNet16-120, the two halves of the official test images. The
test accuracy on CIFAR-10 is that of a training on all training images. The pickles are read without executing code
(:mod:`automl_ext.training.files.data_pickle`).
"""

from __future__ import annotations

import bz2
import io
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

from automl_ext.nas.estimators.benchmark_table import CELLS, columns, place
from automl_ext.nas.spaces.nasbench201 import Genotype
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_output
from automl_ext.training.files.data_pickle import load_data
from automl_ext.training.files.reading import check_regular, short

SUFFIX = ".pickle.pbz2"
# Largest unpacked size: EXPANSION · file size + SLACK bytes. The official files unpack to a few times their size.
EXPANSION, SLACK = 200, 1 << 24


class _Names(NamedTuple):
    """The benchmark's names: of the trainings for validation, of those for the test, and of the test images."""

    valid: str
    test: str
    test_images: str


_NAMES = {
    "cifar10": _Names("cifar10-valid", "cifar10", "ori-test"),
    "cifar100": _Names("cifar100", "cifar100", "x-test"),
    "imagenet16_120": _Names("ImageNet16-120", "ImageNet16-120", "x-test"),
}


def convert(source: Path, out: Path, dataset: str = "cifar10") -> None:
    """Convert an official file or a "simple" folder to a table.

    Args:
        source: the official file or folder.
        out: the table to write, NAME.npz.
        dataset: cifar10, cifar100 or imagenet16_120.

    Raises:
        UserError: ``source`` is of another kind or damaged, or a cell lacks a result. The message names the file or the
            cell. Or ``out`` has another ending.
    """
    if out.suffix != ".npz":
        raise UserError(f"--out: expected a name that ends in .npz, got {out}")
    names = columns(dataset)
    values = np.full((CELLS, len(names)), np.nan)  # a cell that is missing in the files stays invalid
    for arch, cell in _cells(source):
        values[place(Genotype.parse(arch))] = _row(arch, cell, _NAMES[dataset])
    file = io.BytesIO()
    np.savez_compressed(file, **dict(zip(names, values.T, strict=True)))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_output(out, file.getvalue())


def _cells(source: Path) -> Iterator[tuple[str, Any]]:
    """Yield the name of each cell and its results."""
    if source.is_dir():
        for index, arch in enumerate(_archs(_load(source / f"meta{SUFFIX}"), source)):
            yield arch, _load(source / f"{index:06d}{SUFFIX}")
    else:
        benchmark = _load(source)
        cells = _field(benchmark, "arch2infos", dict, source)
        for index, arch in enumerate(_archs(benchmark, source)):
            if index not in cells:
                raise UserError(f"{source}: no results for cell {index}, {arch}")
            yield arch, cells[index]


def _archs(benchmark: Any, source: Path) -> list[str]:
    archs = _field(benchmark, "meta_archs", list, source)
    try:
        return [str(Genotype.parse(arch)) for arch in archs]
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: meta_archs: {short(error)}") from None


def _field(benchmark: Any, name: str, kind: type, source: Path) -> Any:
    value = benchmark.get(name) if isinstance(benchmark, dict) else None
    if not isinstance(value, kind):
        raise UserError(
            f"{source}: expected a file of NATS-Bench's topology space that contains {name!r}, a {kind.__name__}"
        )
    return value


def _row(arch: str, cell: Any, names: _Names) -> tuple[float, ...]:
    """Compute a row of the table. Accuracies are averaged as by the authors of the benchmark."""
    try:
        short_runs, long_runs = cell["12"], cell["200"]
        trials = _trials(short_runs, names.valid)
        seconds = fmean(sum(trial["train_times"][epoch] for epoch in range(12)) for trial in trials)
        parameters, macs = (fmean(float(trial[key]) for trial in trials) for key in ("params", "flop"))
        row = (
            _accuracy(trials, "x-valid@11"),
            _accuracy(_trials(long_runs, names.valid), "x-valid@199"),
            _accuracy(_trials(long_runs, names.test), f"{names.test_images}@199"),
            round(parameters * 1e6),
            round(macs * 1e6),
            round(seconds, 3),
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UserError(f"{arch}: a result is missing in the files: {short(error)}") from None
    if not all(math.isfinite(value) for value in row):
        raise UserError(f"{arch}: expected finite numbers, got {row}")
    return row


def _trials(results: Mapping[str, Any], dataset: str) -> list[Mapping[str, Any]]:
    return [results["all_results"][dataset, seed] for seed in results["dataset_seed"][dataset]]


def _accuracy(trials: list[Mapping[str, Any]], key: str) -> float:
    return round(fmean(trial["eval_acc1es"][key] for trial in trials), 3)


def _load(path: Path) -> Any:
    check_regular(path, "nas-table")
    try:
        with bz2.open(path, "rb") as file:
            return load_data(file, SLACK + EXPANSION * path.stat().st_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{path}: expected a pickle of NATS-Bench: {short(error)}") from None


@dataclass
class NASTableCommand:
    source: Annotated[Path, tyro.conf.Positional]
    """NATS-tss-v1_0-….pickle.pbz2, or the folder NATS-tss-v1_0-…-simple."""
    dataset: Literal["cifar10", "cifar100", "imagenet16_120"] = "cifar10"
    """Data set of the table."""
    out: Path | None = None
    """Table to write, for --table. NAME.npz; default: nasbench201_DATASET.npz."""


def nas_table(command: NASTableCommand) -> int:
    """Convert the files. Return the exit code."""
    out = command.out or Path(f"nasbench201_{command.dataset}.npz")
    convert(command.source, out, command.dataset)
    print(out)
    return 0
