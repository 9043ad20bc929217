"""The table of NAS-Bench-201, its evaluator, and invalid files."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import nas_search_world as world
import numpy as np
import pytest

import automl_ext
from automl_ext.nas.estimators.benchmark_table import DATASETS, Table, TableEvaluator, columns, place
from automl_ext.nas.spaces.nasbench201 import Genotype
from automl_ext.training.errors import UserError

SPACE, COLUMNS = world.SPACE, world.COLUMNS


def test_places_of_all_cells_differ() -> None:
    assert [place(SPACE.decode(indices)) for indices in product(range(5), repeat=6)] == list(range(15_625))


def test_evaluator_returns_scores_and_costs() -> None:
    evaluator = TableEvaluator(world.table())
    genotype = Genotype(("nor_conv_3x3",) * 2 + ("none",) * 4)  # quality 6; 120 s
    evaluation = evaluator.evaluate(genotype, state={"weights": "are ignored"})
    assert evaluation.score == 66
    assert evaluation.cost == pytest.approx(120 + 2.5 * (0.5 + 0.085 * 10))
    assert evaluation.measured == {"test_accuracy": 76, "parameters": 72_000, "macs": 10**7}
    assert evaluation.state is None
    assert evaluator.evaluate(genotype, 12) == evaluation
    longer = evaluator.evaluate(genotype, 200)
    assert longer.score == 71
    assert longer.cost == pytest.approx(2000 + 2.5 * (0.5 + 0.085 * 10))
    with pytest.raises(UserError, match="table: expected a budget of 12 or 200 epochs, got 3"):
        evaluator.evaluate(genotype, 3)


def test_load_reads_npz_files(tmp_path: Path) -> None:
    found, expected = Table.load(world.write(tmp_path / "table.npz", other=np.zeros(3))), world.table()
    for column in vars(expected):
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"macs": np.zeros(3)}, r"macs: expected 15625 numbers, got float64 \[3\]"),
        ({"macs": np.full(15_625, "1")}, r"macs: expected 15625 numbers, got <U1 \[15625\]"),
        ({"macs": np.full(15_625, None)}, "not a readable npz file of plain arrays: Object arrays cannot be loaded"),
        ({"params": np.arange(15_625)}, r"\|none~0\|.*: params: expected a number above 0, got 0"),
        ({"cifar10_val_12ep": np.full(15_625, np.nan)}, "cifar10_val_12ep: expected a percentage, got nan"),
    ],
)
def test_invalid_tables_raise_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = world.write(tmp_path / "table.npz", **changed)
    with pytest.raises(UserError, match=message) as error:
        Table.load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_other_files_raise_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, **dict(zip(COLUMNS[:-1], world.values(), strict=False)))
    with pytest.raises(UserError, match="no column train_seconds_12ep"):
        Table.load(path)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match="is not a readable npz file"):
        Table.load(path)
    with pytest.raises(UserError, match=r"table: cannot read .*absent\.npz: there is no such file"):
        Table.load(tmp_path / "absent.npz")
    with pytest.raises(UserError, match=r"table: expected an npz file.*, got .*table\.csv\.gz"):
        Table.load(path.rename(tmp_path / "table.csv.gz"))


def test_the_packaged_table() -> None:
    """Facts of the benchmark (Dong & Yang 2020; Dong et al. 2021)."""
    table = Table.load()
    assert table.dataset == "cifar10"
    assert table.test_200.max() == pytest.approx(94.37, abs=0.005)
    assert table.test_200[place(Genotype(("nor_conv_3x3",) * 6))] == pytest.approx(93.76, abs=0.005)
    assert table.test_200.mean() == pytest.approx(87.0, abs=0.05)
    # Roughly the published correlation between a short and a long training.
    assert np.corrcoef(table.valid_12, table.test_200)[0, 1] > 0.85
    assert table.parameters.min() == 73_306
    files = list((Path(automl_ext.__file__).parent / "nas").rglob("*.npz"))
    assert [file.name for file in files] == ["nasbench201_cifar10.npz"]
    assert files[0].stat().st_size <= 300_000


@pytest.mark.parametrize(("dataset", "evaluation"), [("cifar100", 0.830), ("imagenet16_120", 0.498)])
def test_evaluation_cost_on_the_other_data_sets(tmp_path: Path, dataset: str, evaluation: float) -> None:
    """It is close to the time of the benchmark's pass over the validation images (cell 11 of its test files)."""
    epoch = {"cifar100": 24.924, "imagenet16_120": 75.620}[dataset]
    seconds = {columns(dataset)[-1]: np.full(15_625, 12 * epoch)}
    table = Table.load(world.write(tmp_path / "table.npz", dataset, **seconds))
    assert table.dataset == dataset
    assert DATASETS[table.dataset].name in ("CIFAR-100", "ImageNet16-120")
    cost = TableEvaluator(table).evaluate(Genotype(("none",) * 6)).cost
    assert cost - 12 * epoch == pytest.approx(evaluation, rel=0.1)
