"""A GDAS run that is killed with SIGKILL at random times and resumed equals an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")

KILLS = int(os.environ.get("AUTOML_EXT_TEST_KILLS", "3"))
SEARCH = """
import sys
from automl_ext.nas.supernets.gdas import GDASConfig, search
config = GDASConfig(subset=200, epochs=12, retrain_epochs=8, channels=4, retrain_channels=4)
search(config, sys.argv[1], resume="auto")
"""


def start(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SEARCH, str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"})


def outcome(out: Path) -> tuple[dict, str]:
    result = json.loads((out / "result.json").read_text())
    del result["times"]
    return result, (out / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_killed_and_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    begin = time.monotonic()
    assert start(whole).wait(300) == 0
    seconds = time.monotonic() - begin

    rng, kills, number = random.Random(0), 0, 0
    while kills < KILLS:
        killed = tmp_path / f"killed-{number}"
        process = start(killed)
        try:  # a fraction of the run's time, so that kills hit the start, the search and the retraining
            assert process.wait(rng.uniform(0.2, 0.6) * seconds) == 0
            assert outcome(killed) == outcome(whole)
            number += 1  # finished before it was killed: start another run
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert start(killed).wait(300) == 0
    assert outcome(killed) == outcome(whole)
