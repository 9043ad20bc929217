"""Several ranks learn one network by mean gradients, resume exactly, and refuse what they cannot do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rank_jobs
import torch
from compare_runs import newest, same
from rank_jobs import CELL, JOBS, ROOT, STEPS, start_ranks

from automl_ext.cli import main
from automl_ext.nas.training.batches import check_batches
from automl_ext.nas.training.retrain import RetrainConfig
from automl_ext.parallel.ranked_run import check_equal
from automl_ext.training import ranks
from automl_ext.training.config import to_dict
from automl_ext.training.errors import UserError


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of two ranks: all jobs, the last ones of which fail."""
    out = tmp_path_factory.mktemp("ranks")
    jobs = ["steps", *(f"{how}:{job}" for job in JOBS for how in ("whole", "halves")), "killed"]
    processes = start_ranks(out, *jobs)
    results = [process.communicate(timeout=600) for process in processes]
    (out / "codes.json").write_text(json.dumps([process.returncode for process in processes]))
    (out / "outputs.json").write_text(json.dumps(results))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", STEPS)
def test_gradients_are_the_means_over_the_parts(algorithm: str, of_ranks: Path) -> None:
    for rank in range(2):
        path = of_ranks / f"rank{rank}/errors.json"
        assert path.exists(), json.loads((of_ranks / "outputs.json").read_text())
        assert json.loads(path.read_text())[algorithm] < 1e-5


@pytest.mark.slow
def test_ranks_have_equal_weights_and_their_own_batch_statistics(of_ranks: Path) -> None:
    one, two = (torch.load(of_ranks / f"rank{rank}/network.pt") for rank in range(2))
    different = {name for name in one if not torch.equal(one[name], two[name])}
    assert different
    assert all(name.endswith(("running_mean", "running_var")) for name in different)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_resumed_run_of_ranks_goes_on_exactly(job: str, of_ranks: Path) -> None:
    whole, halves = of_ranks / "rank0" / job, of_ranks / "rank0" / f"{job}-halves"
    assert (halves / "result.json").exists(), json.loads((of_ranks / "outputs.json").read_text())
    assert [start["ranks"] for start in json.loads((halves / "environment.json").read_text())["resumed"]] == [2]
    assert (whole / "metrics.jsonl").read_bytes() == (halves / "metrics.jsonl").read_bytes()
    same(newest(whole), newest(halves))


@pytest.mark.slow
def test_only_rank_0_writes_and_prints(of_ranks: Path) -> None:
    (first, _), (second, errors) = json.loads((of_ranks / "outputs.json").read_text())
    assert "automl-ext retrain: finished" in first
    assert second == ""
    assert "retrain 1/" not in errors
    assert {path.name for path in (of_ranks / "rank1").iterdir()} == {"errors.json", "network.pt"}


@pytest.mark.slow
def test_a_killed_rank_ends_the_others(of_ranks: Path) -> None:
    code, seconds = json.loads((of_ranks / "rank0/killed.json").read_text())
    assert code == 2
    assert seconds < 60  # of the whole run; far from the timeout of 30 minutes
    assert json.loads((of_ranks / "codes.json").read_text())[1] == -9
    errors = json.loads((of_ranks / "outputs.json").read_text())[0][1]
    assert "error: rank 0 lost the connection to the other ranks" in errors
    assert not (of_ranks / "rank0/killed/result.json").exists()


@pytest.mark.slow
def test_torchrun_restarts_killed_ranks_exactly(of_ranks: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", "--max-restarts", "1"]
    done = subprocess.run(
        [*launch, rank_jobs.__file__, tmp_path, "restarted"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    run, undisturbed = tmp_path / "restarted", of_ranks / "rank0/retrain"
    resumed = json.loads((run / "environment.json").read_text())["resumed"]
    assert [start["step"] for start in resumed] == [3]
    assert (run / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    same(newest(run), newest(undisturbed))


@pytest.mark.slow
def test_another_number_of_ranks_cannot_resume(of_ranks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([*JOBS["retrain"], "--out", str(of_ranks / "rank0/retrain"), "--resume", "auto"]) == 2
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
    ("changed", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: expected a number, as torchrun sets it, got 'two'"),
        ({"MASTER_ADDR": None}, "torchrun: Error initializing torch.distributed using env:// rendezvous: "),
        (
            {"TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "True"},
            "torchrun --max-restarts: expected TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment",
        ),
    ],
)
def test_a_broken_environment_of_torchrun_is_one_line(
    changed: dict[str, str | None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in changed.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert main(["retrain", "--genotype", CELL]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("size", "subset"), [(15, 1000), (2, 1000), (16, 3)])
def test_what_does_not_divide_is_refused(size: int, subset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_count", 2)
    with pytest.raises(UserError, match="batch_size: expected a multiple of 2 processes, at least 4, got"):
        check_batches(size, subset)


@pytest.mark.parametrize("total", [6, 7, 8, 9])
def test_parts_have_equal_sizes(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_count", 3)
    found: list[int] = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "_rank", rank)
        own = range(total)[ranks.part(total)]
        assert len(own) == total // 3
        found += own
    assert found == list(range(total // 3 * 3))


def test_unequal_options_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"algorithm": "retrain", **to_dict(RetrainConfig(lr=0.1))}
    monkeypatch.setattr(ranks, "from_first", lambda value: first)
    monkeypatch.setattr(ranks, "_rank", 1)
    check_equal(RetrainConfig(lr=0.1), "retrain")
    with pytest.raises(UserError, match=r"lr: expected equal options of all processes, got 0\.1 and, on rank 1, 0\.2"):
        check_equal(RetrainConfig(lr=0.2), "retrain")
