"""Several networks side by side give the results of one after the other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from automl_ext.nas.training.compare import CompareConfig, compare
from automl_ext.parallel.cluster import Cluster
from automl_ext.training.errors import UserError

ONE = CompareConfig(random_cells=4, subset=120, epochs=2, channels=2)
TWO = dataclasses.replace(ONE, workers=2)


@pytest.fixture(autouse=True)
def threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(run: Path) -> list[tuple[int, float]]:
    """Size and accuracy of each network, in order; the sizes differ."""
    return [
        (row["parameters"], row["test_accuracy"]) for row in json.loads((run / "result.json").read_text())["random"]
    ]


def test_a_run_is_resumed_with_another_number_of_workers(tmp_path: Path) -> None:
    torch.set_num_threads(1)  # per process, with one worker and with two
    whole = tmp_path / "whole"
    compare(ONE, whole)
    assert compare(TWO, tmp_path / "run", stop_after=2) is None
    assert compare(ONE, tmp_path / "run", resume="auto", stop_after=3) is None  # within the third network
    assert compare(TWO, tmp_path / "run", resume="auto") is not None
    assert (whole / "metrics.jsonl").read_bytes() == (tmp_path / "run/metrics.jsonl").read_bytes()
    assert results(whole) == results(tmp_path / "run")
    assert len(set(results(whole))) > 1
    with pytest.raises(UserError, match="epochs was 2 and is now 3"):
        compare(dataclasses.replace(ONE, epochs=3), tmp_path / "run", resume="auto")


def test_workers_that_change_the_threads_per_process_cannot_resume(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    assert compare(ONE, tmp_path / "run", stop_after=2) is None
    message = (
        r"^\S+ was made with 2 threads per process, now there are 1: the threads are divided among the --workers, .*$"
    )
    with pytest.raises(UserError, match=message):
        compare(TWO, tmp_path / "run", resume="auto")
    assert compare(ONE, tmp_path / "run", resume="auto", stop_after=1) is None
    with Cluster(cpus=2):
        assert compare(TWO, tmp_path / "run", resume="auto", stop_after=1) is None
