"""Several ranks learn what one process learns, stop together, and refuse what they cannot do."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium")
import rank_jobs
import torch
from rank_jobs import CELL, JOBS, ROOT, start_ranks

from automl_ext.cli import main
from automl_ext.training import ranks
from automl_ext.training.errors import UserError

# In float32, after up to 10 steps. Without synchronized norms, or with unequal parts, differences are above 1e-2.
TOLERANCE = 1e-4
NOT_COMPARED = {"wall", "cpu", "clock", "times", "simulators", "seconds", "cpu_seconds", "steps_per_second"}


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two ranks: all jobs, and last one in which rank 1 is killed."""
    out = tmp_path_factory.mktemp("ranks")
    processes = start_ranks(out, "norm", *JOBS, "undisturbed", "killed")
    results = [process.communicate(timeout=900) for process in processes]
    (out / "codes.json").write_text(json.dumps([process.returncode for process in processes]))
    (out / "outputs.json").write_text(json.dumps(results))
    return out


def differences(x: Any, y: Any, key: str = "") -> Iterator[tuple[float, str]]:
    """The differences of two states, of the numbers in them and of whatever is not equal."""
    if isinstance(x, dict):
        assert x.keys() - NOT_COMPARED == y.keys() - NOT_COMPARED, key
        for name in x.keys() - NOT_COMPARED:
            yield from differences(x[name], y[name], f"{key}.{name}")
    elif isinstance(x, (list, tuple)):
        assert len(x) == len(y), key
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            yield from differences(a, b, f"{key}[{i}]")
    elif isinstance(x, torch.Tensor):
        assert (x.shape, x.dtype) == (y.shape, y.dtype), key
        if x.numel():
            yield finite_or_inf(float((x.double() - y.double()).abs().max())), key
    elif isinstance(x, float):
        yield finite_or_inf(abs(x - y)), key
    else:
        assert x == y, key


def finite_or_inf(difference: float) -> float:
    """A NaN is larger than any number; ``max`` would pass over it."""
    return math.inf if math.isnan(difference) else difference


def first_checkpoint(run: Path) -> dict[str, Any]:
    path = min((run / "checkpoints").iterdir())
    return torch.load(path / "state.pt", weights_only=True)


@pytest.mark.parametrize("job", JOBS)
def test_two_ranks_learn_what_one_process_learns(job: str, of_ranks: Path, tmp_path: Path) -> None:
    assert rank_jobs.run(tmp_path, job) == 0
    one, two = tmp_path / job, of_ranks / job
    assert two.exists(), json.loads((of_ranks / "outputs.json").read_text())
    error, key = max(differences(first_checkpoint(one), first_checkpoint(two)))
    print(f"{job}: the largest difference is {error:.1e}, of {key}")
    assert error < TOLERANCE, key
    results = [json.loads((run / "result.json").read_text()) for run in (one, two)]
    assert results[0].keys() == results[1].keys()
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, two)]
    assert len(lines[0]) == len(lines[1])  # rank 0 alone writes them
    first, second = (json.loads(of[0]) for of in lines)
    assert first == pytest.approx(second, abs=1e-3, rel=1e-3)


def test_a_divided_batch_norm_is_that_of_the_batch(of_ranks: Path) -> None:
    assert json.loads((of_ranks / "norm.json").read_text()) < 1e-12


def test_only_rank_0_prints(of_ranks: Path) -> None:
    (first, _), (second, errors) = json.loads((of_ranks / "outputs.json").read_text())
    assert "automl-ext retrain: finished" in first
    assert second == ""
    assert "retrain 1/" not in errors


def test_a_killed_rank_ends_the_others(of_ranks: Path) -> None:
    code, seconds = json.loads((of_ranks / "killed.json").read_text())
    assert code == 2
    assert seconds < 60  # of the whole run; far from the timeout of 30 minutes
    assert json.loads((of_ranks / "codes.json").read_text())[1] == -9
    errors = json.loads((of_ranks / "outputs.json").read_text())[0][1]
    assert "error: rank 0 lost the connection to the other ranks" in errors
    assert not (of_ranks / "killed/result.json").exists()


@pytest.mark.slow
def test_torchrun_restarts_killed_ranks_exactly(of_ranks: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", "--max-restarts", "1"]
    done = subprocess.run(
        [*launch, rank_jobs.__file__, tmp_path, "restarted"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    run, undisturbed = tmp_path / "restarted", of_ranks / "undisturbed"
    resumed = json.loads((run / "environment.json").read_text())["resumed"]
    assert [start["step"] for start in resumed] == [3]
    assert (run / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    last = [torch.load(max((x / "checkpoints").iterdir()) / "state.pt") for x in (run, undisturbed)]
    assert max(differences(*last))[0] == 0


def test_another_number_of_ranks_cannot_resume(of_ranks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([*JOBS["retrain"], "--out", str(of_ranks / "retrain"), "--resume", "auto"]) == 2
    finally:
        torch.set_num_threads(torch_threads)
    assert "was made by 2 processes, now there are 1" in capsys.readouterr().err


@pytest.fixture
def _two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that torchrun sets; nothing is connected."""
    set_by_torchrun = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "host", "MASTER_PORT": "1"}
    for name, value in set_by_torchrun.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_two_ranks")
def test_seeds_are_refused_before_the_ranks_connect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "--genotype", CELL, "--seeds", "0:2", "--out", str(tmp_path / "run")]) == 2
    assert "error: seeds, cluster: torchrun trains one network" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_two_ranks")
@pytest.mark.parametrize("command", ["search random", "train a2c", "train dqn", "compare", "bench", "plot"])
def test_other_commands_refuse_several_ranks(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--out", str(tmp_path / "run")]) == 2
    assert f"error: {command}: expected one process, got 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_two_ranks")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "first", "RANK: expected a number, as torchrun sets it, got 'first'"),
        ("RANK", "2", "RANK: expected a number below WORLD_SIZE=2, got 2"),
        ("WORLD_SIZE", "0", "RANK: expected a number below WORLD_SIZE=0, got 0"),
        ("MASTER_ADDR", "", "MASTER_ADDR: expected a host, as torchrun sets it, got none"),
    ],
)
def test_a_broken_environment_of_torchrun_is_one_line(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["retrain", "--genotype", CELL]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_what_does_not_divide_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ranks, "_count", 70)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from automl_ext.nas.training.retrain import RetrainConfig, retrain

        with pytest.raises(UserError, match="batch_size: expected at least one image for each of 70 processes"):
            retrain(RetrainConfig(genotype=CELL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("total", [1, 2, 5, 7])
def test_parts_cover_everything_once(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_count", 3)
    found: list[int] = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "_rank", rank)
        found += range(total)[ranks.part(total)]
        assert ranks.size(total) in (total // 3, total // 3 + 1)
    assert found == list(range(total))
