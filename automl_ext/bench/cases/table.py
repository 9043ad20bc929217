"""The cases of the benchmark: ops and their shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from automl_ext.bench.cases.case import Case
from automl_ext.bench.cases.logits import logits_cases
from automl_ext.bench.cases.networks import gru_cases, mlp_cases
from automl_ext.bench.cases.replay import replay_cases
from automl_ext.bench.cases.returns import returns_cases
from automl_ext.bench.cases.rows import (
    attention_cases,
    fused_attention_cases,
    mixed_cases,
    projection_cases,
    q_cases,
    row_cases,
)

Shapes = dict[str, list[tuple[int, ...]]]
# "rows": rows × categories. "logits": tokens × vocabulary. "attention": batch × heads × queries × keys.
# "fused attention": batch × heads × length × width. "mixed": inputs × shape of each.
# "returns": steps × columns. "atoms": transitions × atoms of a distribution, "actions": transitions × actions.
# "replay": capacity × batch. "mlp": batch × inputs × hidden layers × outputs. "gru": batch × units.
BATCHES = (1, 8, 64, 256, 2048)
CPU_SHAPES: Shapes = {
    "rows": [(14, 8), (4096, 8), (4096, 32), (262_144, 8), (1024, 1024), (64, 32_000)],
    "logits": [(256, 50_257), (64, 151_936)],
    "attention": [(8, 8, 256, 256)],
    "fused attention": [(8, 8, 256, 32), (4, 8, 1024, 64)],
    "mixed": [(8, 16, 8, 8, 8), (5, 64, 16, 32, 32), (8, 64, 16, 32, 32)],
    "returns": [(128, 8), (128, 4096), (1024, 1024), (5, 262_144), (2048, 1)],
    "atoms": [(256, 51), (32_768, 51)],
    "actions": [(256, 18), (65_536, 18)],
    "replay": [(1_000_000, 256)],
    "mlp tanh": [(batch, 4, 64, 64, 2) for batch in BATCHES],
    "mlp relu": [(batch, 17, 256, 256, 6) for batch in BATCHES],
    "mlp elu": [(batch, 230, 400, 400, 400, 400, 1) for batch in BATCHES],
    "gru": [(16, 200), (50, 400)],
}
# On a GPU, cases of 64 MB or more in bfloat16 measure the bandwidth, small cases the cost of a call. The others have a
# predicted time.
CUDA_SHAPES: Shapes = {
    "rows": [
        *[(14, 8), (4_194_304, 8), (65_536, 512), (1024, 32_768)],
        *[(262_144, 8), (1024, 1024), (64, 32_000), (8, 128_256), (1, 1_000_000)],
    ],
    "logits": [(4096, 50_257), (1024, 151_936)],
    "attention": [(8, 16, 1024, 1024)],
    "fused attention": [],  # no kernels of our own
    "mixed": [(8, 16, 8, 8, 8), (8, 64, 64, 32, 32), (8, 1_048_576)],
    "returns": [(128, 8), (128, 262_144), (1024, 32_768), (1024, 1024)],
    "atoms": [(256, 51), (655_360, 51), (32_768, 51)],
    "actions": [(256, 18), (2_097_152, 18)],
    "replay": [],  # the buffer is in the host's memory
    "mlp tanh": [],  # no kernels of our own
    "mlp relu": [],
    "mlp elu": [],
    "gru": [],
}
QUICK_SHAPES: Shapes = {
    "rows": [(14, 8), (60, 300)],
    "logits": [(6, 300)],
    "attention": [(4, 2, 5, 7)],
    "fused attention": [(4, 2, 5, 3)],
    "mixed": [(4, 2, 3, 5)],
    "returns": [(6, 70)],
    "atoms": [(20, 11)],
    "actions": [(20, 4)],
    "replay": [(400, 20)],
    "mlp tanh": [(5, 3, 4, 2)],
    "mlp relu": [(5, 3, 4, 2)],
    "mlp elu": [(5, 3, 4, 2)],
    "gru": [(5, 3)],
}
FAMILIES: dict[str, Callable[..., list[Case]]] = {
    "rows": row_cases,
    "logits": logits_cases,
    "attention": attention_cases,
    "fused attention": fused_attention_cases,
    "mixed": mixed_cases,
    "returns": returns_cases,
    "atoms": projection_cases,
    "actions": q_cases,
    "replay": replay_cases,
    "mlp tanh": mlp_cases("tanh"),
    "mlp relu": mlp_cases("relu"),
    "mlp elu": mlp_cases("elu"),
    "gru": gru_cases,
}


def cases(
    device: str, shapes: Shapes, dtypes: Sequence[torch.dtype], modules: dict[str, Any] | None = None
) -> list[Case]:
    """Return every op at every shape of its family. ``modules``: packages to compare with, from ``peers.load``."""
    return [
        case
        for family, build in FAMILIES.items()
        for shape in shapes[family]
        for dtype in dtypes
        for case in build(shape, dtype, device, modules or {})
    ]
