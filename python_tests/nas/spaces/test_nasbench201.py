"""The NAS-Bench-201 space: genotypes, their strings and indices, and their networks."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random

import pytest
import torch

from automl_ext.nas.estimators.benchmark_table import Table, place
from automl_ext.nas.spaces.nasbench201 import EDGES, Genotype, NASBench201, live_edges
from automl_ext.nas.spaces.operations import make_operation

SPACE = NASBench201()
MIXED = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def build(genotype: Genotype, **changes: int) -> torch.nn.Module:
    shape = {"in_channels": 1, "num_classes": 10, "channels": 4, "cells": 1} | changes
    return SPACE.build(genotype, **shape)


def test_every_genotype_can_be_encoded_and_parsed() -> None:
    strings = set()
    for indices in product(range(5), repeat=6):
        genotype = SPACE.decode(indices)
        assert SPACE.encode(genotype) == indices
        assert SPACE.parse(str(genotype)) == genotype
        strings.add(str(genotype))
    assert len(strings) == 15_625


def test_string_is_in_the_benchmarks_notation() -> None:
    operations = ("nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
    assert str(Genotype(operations)) == MIXED
    assert SPACE.parse(f" {MIXED}\n").operations == operations


def test_random_is_uniform() -> None:
    rng = Random(0)
    counts = Counter(pair for _ in range(5000) for pair in enumerate(SPACE.encode(SPACE.random(rng))))
    assert len(counts) == 30
    chi_square = sum((n - 1000) ** 2 / 1000 for n in counts.values())
    assert chi_square < 52  # 24 degrees of freedom, one in a thousand


def test_mutation_reaches_all_neighbors_and_nothing_else() -> None:
    genotype, rng = SPACE.parse(MIXED), Random(0)
    mutants = Counter(SPACE.mutate(genotype, rng) for _ in range(2400))
    assert len(mutants) == 24
    for mutant, count in mutants.items():
        assert sum(a != b for a, b in zip(mutant.operations, genotype.operations, strict=True)) == 1
        assert 50 < count < 170  # 100 expected, standard deviation 9.8


def test_unknown_operation_is_rejected() -> None:
    with pytest.raises(ValueError, match="dil_conv_9x9"):
        make_operation("dil_conv_9x9", 4)


def test_average_pool_excludes_padding() -> None:
    pool = make_operation("avg_pool_3x3", 1)
    assert pool is not None
    torch.testing.assert_close(pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_head_normalizes_before_pooling() -> None:
    head = build(SPACE.parse(MIXED)).head
    kinds = [type(module).__name__ for module in head]
    assert kinds == ["BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]


def test_edges_that_do_not_reach_the_output_change_nothing() -> None:
    """The cell skips them; compare with the sum over all edges."""
    for seed in range(40):
        genotype = SPACE.random(Random(seed))
        cell = build(genotype).eval().stages[0][0]
        x = torch.randn(2, 4, 5, 5)
        nodes = [x]
        for node in (1, 2, 3):
            value = torch.zeros_like(x)
            for e, (start, end) in enumerate(EDGES):
                if end == node and genotype.operations[e] != "none":
                    value = value + cell.edges[e](nodes[start])
            nodes.append(value)
        torch.testing.assert_close(cell(x), nodes[-1])
    assert live_edges(SPACE.parse("|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|none~2|")) == [3]


def test_parameters_of_the_smallest_network() -> None:
    """The benchmark states this number for a cell without convolutions, at the paper's size."""
    network = build(Genotype(("skip_connect",) * 6), in_channels=3, channels=16, cells=5)
    assert sum(p.numel() for p in network.parameters()) == 73_306


def test_parameters_equal_the_benchmarks() -> None:
    """They depend only on the numbers of 1×1 and 3×3 convolutions; one network of each of the 28 kinds is built."""
    table = Table.load()
    counted: dict[tuple[int, int], int] = {}
    for indices in product(range(5), repeat=6):
        genotype = SPACE.decode(indices)
        kind = (genotype.operations.count("nor_conv_1x1"), genotype.operations.count("nor_conv_3x3"))
        if kind not in counted:
            network = build(genotype, in_channels=3, channels=16, cells=5)
            counted[kind] = sum(p.numel() for p in network.parameters())
        assert counted[kind] == table.parameters[place(genotype)], str(genotype)
    assert len(counted) == 28
