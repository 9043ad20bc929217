"""Comparison of the run directories of two trainings."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from automl_ext.training.files import checkpoint

CLOCKS = {"seconds", "cpu_seconds", "steps_per_second"}
TIMES = {"clock", "wall", "cpu", "times"}  # keys of states


def newest(out: Path) -> tuple[int, dict]:
    """Return the step and the state of a run's newest checkpoint."""
    path = checkpoint.list_steps(out / "checkpoints")[-1]
    manifest = checkpoint.read_manifest(path)
    return manifest["step"], checkpoint.read_state(path, manifest)


def same(one, two, key="") -> None:
    """Assert that two states are equal bit for bit, except for times."""
    assert type(one) is type(two), key
    if isinstance(one, dict):
        assert one.keys() == two.keys(), key
        for name in one.keys() - TIMES:
            same(one[name], two[name], f"{key}.{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), key
        for i, (x, y) in enumerate(zip(one, two, strict=True)):
            same(x, y, f"{key}[{i}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype, key
        assert torch.equal(one, two), key
    else:
        assert one == two, key


def same_runs(one: Path, two: Path, clocks: set[str] = frozenset()) -> None:
    """Assert that two runs have equal metrics, results, checkpoints and policies; ``clocks`` are ignored results."""
    assert (one / "metrics.jsonl").read_text() == (two / "metrics.jsonl").read_text()
    results = [json.loads((run / "result.json").read_text()) for run in (one, two)]
    assert {k: v for k, v in results[0].items() if k not in CLOCKS | clocks} == {
        k: v for k, v in results[1].items() if k not in CLOCKS | clocks
    }
    same(*(newest(run) for run in (one, two)))
    same(*(torch.load(run / "best.pt", weights_only=True) for run in (one, two)))
