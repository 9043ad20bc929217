"""Deriving by perturbation in several orders of the edges: each is complete, and training-free scores choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from automl_ext.data.images import load_images, split_images
from automl_ext.nas.differentiable import darts, search
from automl_ext.nas.differentiable.darts import DARTSConfig
from automl_ext.nas.differentiable.deriving import by_rank
from automl_ext.nas.differentiable.perturbation import Perturbation
from automl_ext.nas.differentiable.recipes import with_recipe
from automl_ext.nas.spaces.nasbench201 import NASBench201

TINY = DARTSConfig(subset=120, channels=2, epochs=1, batch_size=20, retrain_epochs=1, retrain_channels=2, device="cpu")


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
        order = by_rank(rotated, space, splits, torch.device("cpu"), seed=0)
        assert sorted(order) == [0, 1, 2]
        assert rotated[order[0]] == genotypes[1]


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

    def choose(genotypes: list[Any], *rest: Any) -> list[int]:
        derived.extend(genotypes)
        return [chosen]

    monkeypatch.setattr(Perturbation, "begin_order", recorded)
    monkeypatch.setattr(search, "by_rank", choose)
    config = replace(with_recipe("robust", TINY), orders=3)
    result = darts.search(config, tmp_path / "run")
    assert result is not None
    assert len(orders) == len(derived) == 3
    assert len({tuple(order) for order in orders}) > 1
    assert all(torch.equal(w, weights[0]) for w in weights)
    assert result["genotype"] == str(derived[chosen])
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert sum("derive_accuracy_without_best" in line for line in lines) == 3 * 6


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"derive": "alpha", "warmup": 0.5}, "orders: expected 1 with derive alpha, got 8"),
        ({"tune_epochs": 1}, "orders: expected 1 with tune_epochs 1, got 8"),
        ({"orders": 0}, "orders: expected at least 1"),
    ],
)
def test_settings_that_orders_exclude(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        replace(with_recipe("robust", TINY), **changes)
