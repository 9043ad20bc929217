"""The combination of scores by log-ranks, and cells of NAS-Bench-201 that compute the same function."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import torch

from automl_ext.nas.estimators.training_free.correlations import kendall, log_rank_sum, mean_ranks, spearman
from automl_ext.nas.screening.equal_cells import function_of, representative
from automl_ext.nas.spaces.nasbench201 import Genotype, NASBench201

SPACE = NASBench201()


def test_mean_ranks() -> None:
    assert mean_ranks([3.0, 1.0, 3.0, -math.inf]).tolist() == [3.5, 2, 3.5, 1]
    with pytest.raises(ValueError, match="x: expected scores without NaN, got 1"):
        mean_ranks([math.nan, 1.0])


def test_log_rank_sum() -> None:
    scores = {"a": [10.0, 30.0, 20.0, 30.0], "b": [1.0, 2.0, 4.0, 3.0], "unused": [4.0, 3.0, 2.0, 1.0]}
    literal = [math.log(a / 4) + math.log(b / 4) for a, b in [(1, 1), (3.5, 2), (2, 4), (3.5, 3)]]
    assert log_rank_sum(scores, ["a", "b"]) == pytest.approx(literal)
    with pytest.raises(ValueError, match="names: expected at least one score"):
        log_rank_sum(scores, [])


def test_an_undefined_score_ranks_last() -> None:
    combined = log_rank_sum({"a": [9.0, 8.0, 7.0], "b": [-math.inf, 1.0, 2.0]}, ["a", "b"])
    assert np.argsort(combined).tolist()[0] == 0
    assert combined[0] == -math.inf


def test_equal_functions_are_recognized() -> None:
    conv, skip, none, pool = "nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3"
    assert function_of(Genotype((none,) * 6)) == ((), ())
    terms = "avg_pool_3x3(input)", "nor_conv_3x3(input)"
    assert function_of(Genotype((conv, none, skip, pool, none, skip))) == (terms, (conv,))
    # Nodes 1 and 2 swapped; an edge that leads nowhere; an operation on a node without inputs.
    swapped = [Genotype((conv, pool, none, none, skip, conv)), Genotype((pool, conv, none, none, conv, skip))]
    assert representative(swapped[0]) == representative(swapped[1])
    assert representative(Genotype((conv, conv, none, skip, none, none))) == Genotype(
        (none, none, none, skip, none, none)
    )
    assert representative(Genotype((none, none, none, skip, conv, conv))) == Genotype(
        (none, none, none, skip, none, none)
    )
    assert representative(Genotype((conv,) * 6)) == Genotype((conv,) * 6)


def test_a_representative_computes_the_same_function() -> None:
    images, rng, changed = torch.randn(4, 1, 6, 6), Random(0), 0
    for _ in range(30):
        genotype = SPACE.random(rng)
        changed += representative(genotype) != genotype
        outputs = []
        for cell in (genotype, representative(genotype)):
            network = SPACE.build(cell, in_channels=1, num_classes=2, channels=4, cells=1)
            for p in network.parameters():  # equal operations get equal weights, wherever they are
                if p.dim() > 1:
                    p.data.normal_(generator=torch.Generator().manual_seed(p.numel()))
            torch.nn.init.zeros_(network.head[-1].bias)  # type: ignore[arg-type]
            outputs.append(network(images))
        assert torch.allclose(*outputs, atol=1e-4), genotype
    assert changed > 10


def trained_weights(genotype: Genotype) -> int:
    """Count the weights of the layers that have a gradient."""
    torch.manual_seed(0)
    network = SPACE.build(genotype, in_channels=1, num_classes=2, channels=4, cells=1)
    (network(torch.randn(4, 1, 6, 6)) @ torch.tensor([1.0, 2.0])).square().sum().backward()
    return sum(p.numel() for p in network.parameters() if p.dim() > 1 and p.grad is not None and p.grad.any())


def test_a_convolution_that_is_read_twice_is_not_two_convolutions() -> None:
    conv, one, skip, none = "nor_conv_3x3", "nor_conv_1x1", "skip_connect", "none"
    for two, once in (
        ((conv, conv, none, none, skip, skip), (conv, none, skip, none, skip, skip)),
        ((conv, conv, none, none, one, conv), (conv, none, skip, none, one, conv)),
        ((conv, none, conv, conv, none, skip), (conv, none, conv, none, skip, skip)),
    ):
        assert function_of(Genotype(two))[0] == function_of(Genotype(once))[0]
        for cell in (two, once):
            assert trained_weights(Genotype(cell)) == trained_weights(representative(Genotype(cell)))
        assert trained_weights(Genotype(two)) > trained_weights(Genotype(once))


def test_correlations() -> None:
    x = [0.1, 0.5, 0.2, 0.9]
    assert kendall(x, np.exp(x)) == spearman(x, np.exp(x)) == pytest.approx(1)
    assert kendall([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(5 / 30**0.5)  # τ-b, with a tie
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9**0.5)
    assert math.isnan(kendall(x, [1, 1, 1, 1]))
    assert math.isnan(spearman([2, 2, 2, 2], x))
    assert kendall([-math.inf, 0.2, 0.3], [0.1, 0.5, 0.6]) == 1  # failed candidates have the score −inf


@pytest.mark.parametrize("measure", [kendall, spearman])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2, 3], r"x, y: .*\(2,\) and \(3,\)"),
        ([1], [1], "at least two"),
        ([[1, 2]], [[1, 2]], "at least two"),
        ([1.0, math.nan], [1, 2], "x: expected scores without NaN, got 1"),
        ([1.0, 2.0], [math.nan, math.nan], "y: expected scores without NaN, got 2"),
    ],
)
def test_correlations_of_bad_input(measure: object, x: list, y: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(x, y)
