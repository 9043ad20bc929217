"""What a run directory may hold after a power loss, by the model of tools/torture."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torture.commands import durable_step, false_claim
from torture.disks import Case, Disks
from torture.operations import record

from automl_ext.rl.algorithms.a2c import A2CConfig
from automl_ext.training.errors import UserError
from automl_ext.training.run import Run

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def disks_of(action: Callable[[], None], folder: Path) -> tuple[Disks, set[str | None]]:
    """Record an action. Return its disks, and what is missing on those that have a result."""
    disks = Disks(record(action, folder))
    return disks, {false_claim(disks, case, disks.files(case)) for case in disks.cases(random.Random(0))}


def train(steps: int, resume: str | None = None) -> None:
    config = A2CConfig(total_steps=steps, lr_decay=False)
    with Run.open("run", config, algorithm="a2c", resume=resume) as run:
        run.log(steps, loss=1.0)
        run.save(steps, {"x": torch.ones(3)})
        run.finish({"steps": steps})


def test_a_finished_run_outlives_a_power_loss(tmp_path: Path) -> None:
    disks, claims = disks_of(lambda: train(4), tmp_path)
    assert claims == {None}
    end = len(disks.effects)
    files = disks.files(Case(end, "none arrives", frozenset(disks.uncertain(end))))
    assert {"run/result.json", "run/config.json", "run/checkpoints/step-00000004/state.pt"} <= files.keys()
    assert durable_step(disks, end) == 4


def test_a_longer_run_has_no_result_of_the_shorter_one(tmp_path: Path) -> None:
    def longer() -> None:
        train(4)
        train(8, resume="auto")

    assert disks_of(longer, tmp_path)[1] == {None}


def test_a_longer_run_that_is_refused_keeps_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(4)
    (tmp_path / "run/metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "run/metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl: expected a regular file"):
        train(8, resume="auto")
    assert (tmp_path / "run/result.json").is_file()


def test_a_fitted_ensemble_is_on_the_disk_before_the_result(tmp_path: Path) -> None:
    from automl_ext.tabular.fitted import Fitted, Member
    from automl_ext.tabular.learners.constant import ConstantModel
    from automl_ext.tabular.table.task import TableTask

    task = TableTask("y", "regression", (), "rmse", "")
    fitted = Fitted(task, [], [], [Member("constant", 1.0, 0, 0, ConstantModel({"value": np.ones(1)}, task))])

    def save() -> None:
        with Run.open("run", A2CConfig(), algorithm="fit") as run:
            fitted.save(run.path)
            run.finish({})

    assert disks_of(save, tmp_path)[1] == {None}
