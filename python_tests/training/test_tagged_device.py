"""Training on a device that tagged_device.py emulates: operations mix no devices, and batches wait for no copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from paths import ROOT

from automl_ext.training.machine.device import send

FOLDERS = [ROOT, ROOT / "python_tests" / "helpers", ROOT / "python_tests" / "rl" / "dreamer"]
# Copies to the device per counted part: iterations of an agent, or the second epoch of a search or training.
QUEUED = dict.fromkeys(("reinforce", "a2c", "ppo", "ppo-popart", "ppo-images"), 1)  # a rollout
QUEUED |= {"a3c": 0, "dqn": 4, "dqn-images": 4, "rainbow": 4, "vdn": 5, "qmix": 5}
QUEUED |= dict.fromkeys(("bc", "cql", "iql"), 10)  # updates
QUEUED |= dict.fromkeys(("dreamer", "dreamer-images"), 3 + 2)  # sequences, and observations for their statistics
# Two batches an iteration, each with indices and shifts; and the architecture that is measured.
QUEUED |= dict.fromkeys(("gdas", "gdas-nb201", "gdas-bfloat16", "entmax-gdas", "darts"), 2 * 2 * 2 + 1)
QUEUED |= {"perturbation": 2 * 2 + 1}
QUEUED |= {"retrain": 5 * 5, "retrain-bfloat16": 5 * 2}  # and a copy each for cutout, CutMix and drop-path
# Here observations go to the device, for actions that the environments wait for.
ACTING = ("rl/loop/policy_agent.py", "rl/algorithms/dqn.py", "rl/algorithms/vdn.py", "rl/dreamer/dreamer.py")


@pytest.fixture(scope="module")
def counts() -> dict[str, dict[str, Any]]:
    """Run all cases in one process: case → its counts, or the error."""
    done = subprocess.run(
        [sys.executable, str(FOLDERS[1] / "tagged_cases.py")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, FOLDERS)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line.pop("case"): line for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("case", QUEUED)
def test_training_mixes_no_devices_and_batches_wait_for_no_copy(case: str, counts: dict[str, dict[str, Any]]) -> None:
    found = counts[case]
    assert "error" not in found, found["error"]
    assert not found["cpu index"]
    assert [place for place in found["blocking"] if not place.startswith(ACTING)] == []
    assert sum(found["queued"].values()) == QUEUED[case], found["queued"]


def test_send_makes_one_copy_and_keeps_what_is_there() -> None:
    given = [torch.arange(5), torch.rand(3, 4) < 0.5, torch.rand(2, 0), torch.rand(7, dtype=torch.float64)]
    assert [a is b for a, b in zip(send(given, torch.device("cpu")), given, strict=True)] == [True] * 4
    there = send(given, torch.device("meta"))
    assert [(x.shape, x.dtype, x.device.type) for x in there] == [(x.shape, x.dtype, "meta") for x in given]
    assert len({x.untyped_storage()._cdata for x in there}) == 1
