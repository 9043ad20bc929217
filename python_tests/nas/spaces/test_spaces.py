"""Tests of every space: encoding, parsing and mutation of genotypes, and their networks."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automl_ext.nas.spaces.cell_genotype import Edge
from automl_ext.nas.spaces.cell_network import BlockCell, FixedReductionCell, Place, live_cells
from automl_ext.nas.spaces.convnet import MAX_SCALE
from automl_ext.nas.spaces.darts_space import OPERATIONS, Darts
from automl_ext.nas.spaces.nasbench201 import EDGES, Genotype, NASBench201, live_edges
from automl_ext.nas.spaces.operations import make_operation
from automl_ext.nas.spaces.registry import SPACES, space
from automl_ext.nas.spaces.renas_space import OPERATIONS as RENAS_OPERATIONS
from automl_ext.nas.spaces.renas_space import ReNASSpace, unused
from automl_ext.training.errors import UserError

DARTS_V2 = (
    "normal=|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|+|skip_connect~0|sep_conv_3x3~1|"
    "+|skip_connect~0|dil_conv_3x3~2| reduction=|max_pool_3x3~0|max_pool_3x3~1|+|max_pool_3x3~1|skip_connect~2|"
    "+|max_pool_3x3~0|skip_connect~2|+|max_pool_3x3~1|skip_connect~2|"
)
quick = settings(max_examples=15, deadline=None, derandomize=True)


def genotypes(name: str) -> st.SearchStrategy[Any]:
    return st.tuples(*(st.integers(0, n - 1) for n in space(name).num_choices)).map(space(name).decode)


every_space = pytest.mark.parametrize("name", SPACES)


@every_space
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_encoding_parsing_and_mutation(name: str, data: st.DataObject) -> None:
    s = space(name)
    genotype = data.draw(genotypes(name))
    indices = s.encode(genotype)
    assert s.decode(list(indices)) == genotype
    assert s.parse(str(genotype)) == genotype
    assert hash(s.parse(f" {genotype}\n")) == hash(genotype)
    assert len(s.kinds) == len(indices) == len(s.num_choices)
    for d, (kind, n) in enumerate(zip(s.kinds, s.num_choices, strict=True)):
        assert kind in ("operation", "input")
        legal = s.legal(genotype, d)
        assert legal
        assert len(set(legal)) == len(legal)
        for k in legal:
            assert 0 <= k < n
            assert k != indices[d]
            changed = [*indices[:d], k, *indices[d + 1 :]]
            assert s.encode(s.decode(changed)) == tuple(changed)
    mutant = s.encode(s.mutate(genotype, Random(data.draw(st.integers(0, 1000)))))
    (d,) = [d for d, (a, b) in enumerate(zip(indices, mutant, strict=True)) if a != b]
    assert mutant[d] in s.legal(genotype, d)


@every_space
@quick
@given(data=st.data())
def test_networks_take_any_size_and_have_all_gradients(name: str, data: st.DataObject) -> None:
    """Every parameter that the logits depend on has a gradient."""
    s = space(name)
    genotype = data.draw(genotypes(name))
    channels, cells = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    height, width = data.draw(st.integers(1, 11)), data.draw(st.integers(1, 11))
    network = s.build(genotype, in_channels=2, num_classes=3, channels=channels, cells=cells)
    logits = network(torch.randn(4, 2, height, width))
    assert logits.shape == (4, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    without = {n for n, p in network.named_parameters() if p.grad is None}
    assert without == (unreachable(network, genotype) if name == "nb201" else set())
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def unreachable(network: Any, genotype: Any) -> set[str]:
    """Return the parameters that the logits do not depend on; NAS-Bench-201 keeps these to count them."""
    names = {n for n, _ in network.named_parameters()}
    live = live_edges(genotype)
    reached = {0}
    for start, end in (EDGES[e] for e in live):
        reached |= {end} if start in reached else set()
    if 3 not in reached:  # cells ignore their input, so the logits depend on the last cell only
        last = f"stages.2.{len(network.stages[2]) - 1}.edges."
        used = ("head.", *(f"{last}{e}." for e in live))
        return {n for n in names if not n.startswith(used)}
    dead = [f".edges.{e}." for e in range(len(EDGES)) if e not in live]
    return {n for n in names if any(part in n for part in dead)}


@pytest.mark.parametrize("genotype", ["none none none none none skip_connect", "none none none none none nor_conv_3x3"])
def test_parameters_without_a_gradient_if_no_path_leads_from_the_input(genotype: str) -> None:
    network = NASBench201().build(Genotype(tuple(genotype.split())), in_channels=2, num_classes=3, channels=2, cells=2)
    network(torch.randn(4, 2, 5, 5)).sum().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None}
    assert without == unreachable(network, Genotype(tuple(genotype.split())))


@every_space
def test_random_is_repeatable_and_mutations_reach_every_decision(name: str) -> None:
    s = space(name)
    assert s.random(Random(3)) == s.random(Random(3)) != s.random(Random(4))
    genotype, rng = s.random(Random(0)), Random(0)
    indices = s.encode(genotype)
    mutants = [s.encode(s.mutate(genotype, rng)) for _ in range(60 * len(indices))]
    for d in range(len(indices)):
        reached = {m[d] for m in mutants} - {indices[d]}
        assert reached == set(s.legal(genotype, d))


@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize("operation", sorted({*OPERATIONS, *RENAS_OPERATIONS} - {"none"}))
def test_every_operation_halves_odd_sizes_in_the_same_way(operation: str, size: int) -> None:
    x = torch.randn(2, 3, size, size + 1)
    for stride in (1, 2):
        module = make_operation(operation, 3, stride=stride)
        assert module is not None
        assert module(x).shape == (2, 3, -(-size // stride), -(-(size + 1) // stride))


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("previous_reduction", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 8), (1, 3)])
def test_output_shapes_of_every_kind_of_cell(
    reduction: bool, previous_reduction: bool, height: int, width: int
) -> None:
    place = Place(5, 7, 4, reduction, previous_reduction)
    previous = torch.randn(2, 7, height, width)
    before = torch.randn(2, 5, 2 * height - 1, 2 * width) if previous_reduction else torch.randn(2, 5, height, width)
    expected = (2, 16, -(-height // 2), -(-width // 2)) if reduction else (2, 16, height, width)
    genotype = Darts().random(Random(1))
    cell = BlockCell(genotype.normal, (2, 3, 4, 5), place)
    assert cell(before, previous).shape == expected
    assert cell.out_channels == 16
    if reduction:
        assert FixedReductionCell(place)(before, previous).shape == expected


def test_size_of_the_darts_space() -> None:
    """The paper counts 10⁹ cells. With the fixed reduction cell, a genotype has one cell instead of two."""
    size = 1
    for n in space("darts-frc").num_choices:
        size *= n
    assert size == 7**8 * 1 * 3 * 6 * 10
    assert space("darts").num_choices == 2 * space("darts-frc").num_choices


def test_darts_string() -> None:
    genotype = Darts().parse(DARTS_V2)
    assert str(genotype) == DARTS_V2
    assert genotype.normal[3] == (Edge("skip_connect", 0), Edge("dil_conv_3x3", 2))


def test_darts_v2_has_the_papers_number_of_parameters() -> None:
    """DARTS reports 3.3M parameters (its code counts 3.35M) with 36 channels and 20 cells."""
    network = Darts().build(Darts().parse(DARTS_V2), in_channels=3, num_classes=10, channels=36, cells=6)
    assert len(network.cells) == 20
    reductions = [i for i, cell in enumerate(network.cells) if isinstance(cell.nodes[0][0], nn.MaxPool2d)]
    assert reductions == [6, 13]
    assert sum(p.numel() for p in network.parameters()) == 3_349_342


@pytest.mark.parametrize(
    ("genotype", "sizes"),
    [
        ("plain-s1-1-2-1", [(4, 32), (4, 16), (8, 16), (8, 16), (8, 8), (16, 8)]),
        ("residual-s2-1-1-1", [(2, 32), (4, 16), (4, 16), (8, 8), (8, 8), (16, 4), (16, 4)]),
        ("pooled-s1-1-2-1", [(4, 32), (4, 16), (4, 16), (16, 8), (16, 8), (16, 8), (32, 4), (32, 4)]),
    ],
)
def test_sizes_in_a_network_without_cells(genotype: str, sizes: list[tuple[int, int]]) -> None:
    """Channels and side after each layer, for C = 4 and images of 32 × 32."""
    convnet = space("convnet")
    network = convnet.build(convnet.parse(genotype), in_channels=3, num_classes=10, channels=4, cells=1)
    found, x = [], torch.zeros(1, 3, 32, 32)
    for layer in network.layers:
        x = layer(x)
        assert x.shape[2] == x.shape[3]
        found.append((x.shape[1], x.shape[2]))
    assert found == sizes


@pytest.mark.parametrize("head", ["", "-max", "-both"])
def test_the_classifier_reads_averages_or_maxima_of_channels(head: str) -> None:
    convnet = space("convnet")
    genotype = convnet.parse(f"plain-s1-1-1-1{head}")
    assert str(genotype) == f"plain-s1-1-1-1{head}"
    network = convnet.build(genotype, in_channels=3, num_classes=10, channels=4, cells=1).eval()
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = torch.nn.Sequential(*network.layers)(image).flatten(2)
    average, maximum = maps.mean(-1), MAX_SCALE * maps.amax(-1)
    read = {"": [average], "-max": [maximum], "-both": [average, maximum]}[head]
    torch.testing.assert_close(network(image), network.classifier(torch.cat(read, 1)))


MIXED = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
DARTS_FRC = Darts(fixed_reduction=True).random(Random(0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nb201", ""),
        ("nb201", "nor_conv_3x3"),
        ("nb201", MIXED[:-1]),
        ("nb201", MIXED + "|"),
        ("nb201", MIXED.replace("~2", "~1")),
        ("nb201", MIXED.replace("|+|", "+")),
        ("nb201", MIXED.replace("nor_conv_1x1", "sep_conv_3x3")),
        ("nb201", MIXED + "+|none~0|none~1|none~2|none~3|"),
        ("nb201", "|+" * 10_000),
        ("convnet", "residual-s2-1-1"),
        ("convnet", "residual-s2-1-1-4"),
        ("convnet", "pool-s1-1-1-1"),
        ("convnet", "pooled-s1-1-1-1-mean"),
        ("convnet", "pooled-s1-1-1-1-average"),  # is written without a head
        ("darts", ""),
        ("darts", DARTS_V2.replace("~0|sep_conv_3x3~1|+", "~1|sep_conv_3x3~0|+", 1)),
        ("darts", DARTS_V2.replace("skip_connect~0", "skip_connect~1", 1)),
        ("darts", DARTS_V2.replace("skip_connect", "none", 1)),
        ("darts", DARTS_V2.replace("dil_conv_3x3~2", "dil_conv_3x3~5")),
        ("darts", DARTS_V2.replace("skip_connect", "nor_conv_3x3")),
        ("darts", DARTS_V2.partition(" ")[0]),
        ("darts", "normal=|a~0| normal=|a~0|"),
        ("darts", str(DARTS_FRC)),
        ("darts-frc", DARTS_V2),
        ("darts", "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
        ("renas", DARTS_V2),
        ("renas", "|skip_connect~0|skip_connect~1|"),
        ("renas", "|skip_connect~0|skip_connect~x|" * 5),
        ("renas", "+".join(["|skip_connect~0|skip_connect~-1|"] * 5)),
        ("renas", "+".join(["|skip_connect~0|skip_connect~2|"] * 5)),
        ("renas", "|+" * 10_000),
    ],
)
def test_invalid_strings_give_a_one_line_error(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="genotype: expected") as error:
        space(name).parse(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@every_space
def test_decode_rejects_invalid_indices(name: str) -> None:
    s = space(name)
    indices = [0] * len(s.num_choices)
    for wrong in (indices[1:], [*indices, 0], [s.num_choices[0], *indices[1:]], [-1, *indices[1:]]):
        with pytest.raises(ValueError, match="decode: indices"):
            s.decode(wrong)


def test_unknown_space() -> None:
    text = "--space: expected one of nb201, darts, darts-frc, renas, convnet, or MODULE:CLASS, got 'dart'"
    with pytest.raises(UserError, match=text):
        space("dart")


def test_renas_concatenates_blocks_that_no_block_reads() -> None:
    chain = "|skip_connect~0|skip_connect~1|+" + "+".join(f"|skip_connect~{k}|skip_connect~{k}|" for k in (2, 3, 4, 5))
    assert unused(ReNASSpace().parse(chain).blocks) == (6,)
    flat = "+".join(["|skip_connect~0|skip_connect~1|"] * 5)
    assert unused(ReNASSpace().parse(flat).blocks) == (2, 3, 4, 5, 6)


def test_cells_that_do_not_reach_the_output_are_not_built() -> None:
    """If each cell reads only the output before the previous one, every second cell is unused."""
    genotype = ReNASSpace().parse("+".join(["|sep_conv_3x3~0|max_pool_3x3~0|"] * 5))
    network = ReNASSpace().build(genotype, in_channels=1, num_classes=3, channels=2, cells=1)
    assert network.live == {0, 2, 4}
    assert [isinstance(cell, nn.Identity) for cell in network.cells] == [False, True, False, True, False]
    network.add_auxiliary_head()
    logits, auxiliary = network(torch.randn(4, 1, 9, 9))
    (logits.sum() + auxiliary.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert live_cells([{0, 1}] * 5) == {0, 1, 2, 3, 4}


@every_space
@pytest.mark.parametrize("size", ["channels", "cells"])
def test_networks_reject_size_zero(name: str, size: str) -> None:
    shape = {"in_channels": 1, "num_classes": 2, "channels": 1, "cells": 1} | {size: 0}
    with pytest.raises(ValueError, match=f"{size}: expected at least 1, got 0"):
        space(name).build(space(name).random(Random(0)), **shape)


def test_registry_makes_the_spaces() -> None:
    assert isinstance(space("nb201"), NASBench201)
    assert space("darts") == Darts()
    assert space("darts-frc") == Darts(fixed_reduction=True)
