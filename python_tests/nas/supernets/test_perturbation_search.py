"""The search by perturbation: several orders of the edges, exact resume, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare_runs import same
from torch import Tensor

from automl_ext.data.images import load_images, split_images
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import Choice
from automl_ext.nas.supernets import loop, perturbation
from automl_ext.nas.supernets.perturbation import Perturbation, PerturbationConfig, best_by_rank
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.training.errors import UserError

TINY = PerturbationConfig(
    subset=120, channels=2, epochs=1, batch_size=20, retrain_epochs=1, retrain_channels=2, device="cpu", orders=2
)


def test_scores_choose_the_cell_that_can_compute_something() -> None:
    cells = [
        "|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|",
        "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        "|skip_connect~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
    ]
    space, splits = NASBench201(), split_images(load_images("digits", subset=100))
    genotypes = [space.parse(cell) for cell in cells]
    for shift in range(3):
        rotated = genotypes[shift:] + genotypes[:shift]
        assert rotated[best_by_rank(rotated, space, splits, torch.device("cpu"), seed=0)] == genotypes[1]


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [0, 2])
def test_every_order_derives_a_cell_from_the_same_weights(
    chosen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is the cell that the scores choose; the orders of the edges differ, and the weights do not change."""
    orders: list[Any] = []
    weights: list[torch.Tensor] = []
    begin, derived = Perturbation.begin_order, []

    def recorded(derivation: Perturbation) -> None:
        begin(derivation)
        orders.append(derivation.edges)
        weights.append(torch.cat([w.detach().flatten() for w in derivation.supernet.weights()]))

    def choose(genotypes: list[Any], *rest: Any) -> int:
        derived.extend(genotypes)
        return chosen

    monkeypatch.setattr(Perturbation, "begin_order", recorded)
    monkeypatch.setattr(perturbation, "best_by_rank", choose)
    result = search_supernet(replace(TINY, orders=3), tmp_path / "run")
    assert result is not None
    assert len(orders) == len(derived) == 3
    assert len({tuple(order) for order in orders}) > 1
    assert all(torch.equal(w, weights[0]) for w in weights)
    assert result["genotype"] == str(derived[chosen])
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert sum("derive_accuracy_without_best" in line for line in lines) == 3 * 6


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"orders": 1, "tune_epochs": 1}])
def test_resume_equals_uninterrupted_search(changes: dict[str, Any], tmp_path: Path) -> None:
    config = replace(TINY, epochs=2, **changes)
    found = search_supernet(config, tmp_path / "whole")
    stops = 0
    while (again := search_supernet(config, tmp_path / "parts", resume="auto", stop_after=2)) is None:
        torch.rand(7)  # the run must not depend on the global generator
        stops += 1
    assert stops >= 3, "the derivation is interrupted too"
    assert found is not None
    same(again, found)
    metrics = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "parts")]
    assert metrics[0] == metrics[1]
    assert "none" not in NASBench201().parse(found["genotype"]).operations
    assert max(abs(a) for row in found["alpha"][0] for a in row) < 0.01, "α keeps its initial values"


@pytest.mark.slow
def test_darts_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies are drawn, because measuring them takes a hundred passes of a large supernet."""
    values = iter(torch.rand(1000, generator=torch.Generator().manual_seed(0)).tolist())

    def drawn(derivation: Perturbation, choices: list[Choice]) -> tuple[float, float]:
        (choice,) = choices
        assert all(choice.active)
        return next(values), 0.0

    monkeypatch.setattr(Perturbation, "measure", drawn)
    found = search_supernet(replace(TINY, space="darts-frc", subset=60, batch_size=18), tmp_path / "run")
    assert found is not None
    assert found["genotype"].endswith("reduction=fixed")


def test_training_between_decisions_weighs_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, given = (2.0, *[1.0] * 9), []

    def recorded(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        given.append(None if weight is None else weight.tolist())
        return F.cross_entropy(logits, labels, weight)

    monkeypatch.setattr(loop, "F", SimpleNamespace(cross_entropy=recorded))
    search_supernet(replace(TINY, orders=1, tune_epochs=1, class_weights=weights), tmp_path / "run")
    assert given
    assert all(w == list(weights) for w in given)


def test_several_orders_exclude_training_between_decisions() -> None:
    with pytest.raises(ValueError, match="orders: expected 1 with tune_epochs 1, got 2"):
        replace(TINY, tune_epochs=1)


def test_space_without_names_of_operations_is_refused(tmp_path: Path) -> None:
    class Plain(NASBench201):
        def build_supernet(self, **shape: Any) -> Any:
            net = super().build_supernet(**shape)
            net.operations = ()
            return net

    with pytest.raises(UserError, match=r"--no-none: NASBench201Supernet\.operations: expected the names of 5"):
        search_supernet(TINY, tmp_path / "run", space=Plain())
    assert not (tmp_path / "run").exists()
