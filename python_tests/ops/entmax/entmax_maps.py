"""The sparse maps and random scores that the tests of the entmax package share."""

import pytest
import torch

import automl_ext.ops.entmax as entmax

MAPS = {
    "entmax15": entmax.entmax15,
    "sparsemax": entmax.sparsemax,
    "sparsemax_bisect": entmax.sparsemax_bisect,
    "entmax_bisect 0.5": lambda x, dim=-1: entmax.entmax_bisect(x, 0.5, dim),
    "entmax_bisect 1": lambda x, dim=-1: entmax.entmax_bisect(x, 1, dim),
    "entmax_bisect 1.3": lambda x, dim=-1: entmax.entmax_bisect(x, 1.3, dim),
    "entmax_bisect 2.5": lambda x, dim=-1: entmax.entmax_bisect(x, 2.5, dim),
    "entmax_bisect tensor": lambda x, dim=-1: entmax.entmax_bisect(x, torch.tensor(1.5), dim),
    "normmax_bisect": lambda x, dim=-1: entmax.normmax_bisect(x, 2, dim),
}
every_map = pytest.mark.parametrize("sparse_map", MAPS.values(), ids=MAPS.keys())


def scores(*shape, dtype=torch.float64, scale=1.0, seed=0):
    """Return normally distributed scores of a seed."""
    return scale * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
