"""Runs with several seeds: results, resuming, bad input, and nodes that do not see the run directory."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import scipy.stats

from automl_ext import multi_seed
from automl_ext.cli import main
from automl_ext.parallel import seeds
from automl_ext.parallel.cluster import Cluster
from automl_ext.parallel.own_modules import own_modules
from automl_ext.parallel.seeds import SeedRunner, SeedTask, parse_seeds, run_seeds
from automl_ext.rl.registry import algorithm
from automl_ext.rl.reports.evaluate_run import agent_of
from automl_ext.run_options import RunOptions
from automl_ext.training.errors import UserError
from automl_ext.training.files.lock import Lock
from automl_ext.training.intervals import t_interval, t_quantile
from automl_ext.training.pictures.curves import read_metrics
from automl_ext_cli.table import RUNS

A2C = algorithm("a2c")
CONFIG = A2C.config(total_steps=60, eval_every=30, eval_episodes=1, final_episodes=1)
FLAGS = ["--total-steps", 60, "--eval-every", 30, "--eval-episodes", 1, "--final-episodes", 1]


def command(*args: object) -> int:
    """Run a command in this process; return its exit code."""
    return main([str(arg) for arg in args])


@pytest.mark.parametrize(("text", "numbers"), [("0:3", [0, 1, 2]), ("7", [7]), ("5,1", [5, 1]), ("2:3", [2])])
def test_parse_seeds(text: str, numbers: list[int]) -> None:
    assert parse_seeds(text) == numbers


@pytest.mark.parametrize(
    ("text", "fault"), [("1,1", "a seed is repeated"), ("3:1", "END must be above FIRST"), ("3:3", "END must be above")]
)
def test_the_fault_of_seeds_is_named(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"seeds: expected FIRST:END .*{fault}"):
        parse_seeds(text)


@pytest.mark.parametrize(
    "text", ["", "a", "0:2000", "1,", ":3", "-1:2", "0:99999999999", "4294967296", "4294967295:4294967297"]
)
def test_other_texts_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="seeds: expected FIRST:END or seeds separated by commas"):
        parse_seeds(text)


def test_t_interval() -> None:
    low, high = t_interval([1.0, 2.0, 3.0]) or (0, 0)
    assert math.isclose((high - low) / 2, 4.303 / math.sqrt(3))
    assert math.isclose((high + low) / 2, 2.0)
    assert t_interval([1.0]) is None
    for count in (2, 31, 32, 61, 1001):
        assert math.isclose(t_quantile(count), scipy.stats.t.ppf(0.975, count - 1), rel_tol=3e-4)


def test_each_seed_equals_its_own_run_and_is_not_repeated(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_seeds(A2C.train, "a2c", CONFIG, out, [1, 2], stop_after=40) is None
    assert (out / "seed-1/checkpoints").is_dir()
    result = run_seeds(A2C.train, "a2c", CONFIG, out, [1, 2], resume="auto")
    assert result == json.loads((out / "seeds.json").read_text())
    with pytest.raises(UserError, match=r"expected a run directory .*; name one or several of .*/out/seed-\*"):
        read_metrics(out)
    with pytest.raises(UserError, match=r"this is the folder of one run per seed, .*/out/seed-\*"):
        agent_of(out)
    alone = A2C.train(dataclasses.replace(CONFIG, seed=2), tmp_path / "alone")
    assert alone is not None
    assert result["results"][1]["eval_return_mean"] == alone["eval_return_mean"]
    mean = result["summary"]["eval_return_mean"]
    assert mean["mean"] == sum(mean["values"]) / 2
    assert mean["ci95"][0] <= mean["mean"] <= mean["ci95"][1]
    assert not list(out.glob(f"{seeds.MARK}*"))
    before = (out / "seed-1/result.json").stat().st_mtime_ns
    more = run_seeds(A2C.train, "a2c", CONFIG, out, [1, 2, 3], resume="auto")
    assert more is not None
    assert (out / "seed-1/result.json").stat().st_mtime_ns == before
    assert [r["eval_return_mean"] for r in more["results"][:2]] == mean["values"]
    changed = dataclasses.replace(CONFIG, gamma=0.5)
    with pytest.raises(UserError, match=r"seed-1 has another configuration: gamma was .* and is now 0\.5"):
        run_seeds(A2C.train, "a2c", changed, out, [1], resume="auto")
    with pytest.raises(UserError, match="belongs to algorithm 'a2c', not 'ppo'"):
        run_seeds(A2C.train, "ppo", CONFIG, out, [1], resume="auto")
    with pytest.raises(UserError, match="is not empty"):
        run_seeds(A2C.train, "a2c", CONFIG, out, [1])


def test_a_failing_run_leaves_no_folder(tmp_path: Path) -> None:
    wrong = dataclasses.replace(CONFIG, env_id="NoSuchEnv-v0")
    with pytest.raises(UserError, match="NoSuchEnv"):
        run_seeds(A2C.train, "a2c", wrong, tmp_path / "out", [0, 1])
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and holds no run of --seeds"):
        run_seeds(A2C.train, "a2c", CONFIG, tmp_path, [0], resume="auto")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_node_that_does_not_see_the_folder_sends_the_run_back(tmp_path: Path) -> None:
    runner = SeedRunner(A2C.train)
    folder = tmp_path / "out/seed-0"
    first, files = runner(SeedTask(CONFIG, folder, "no-mark", 40, {}))
    assert first is None
    assert files is not None
    assert not folder.parent.exists()
    result, files = runner(SeedTask(CONFIG, folder, "no-mark", None, files))
    assert files is not None
    seeds.replace_folder(folder, files)
    assert json.loads((folder / "result.json").read_text()) == result
    A2C.train(CONFIG, tmp_path / "alone")
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "alone/metrics.jsonl").read_bytes()


def test_the_lock_of_a_dead_machine_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 5, "boot": "x"}))
    with pytest.raises(UserError, match="elsewhere"):
        Lock(tmp_path)
    seeds.release_lock(tmp_path, patience=0.1)
    Lock(tmp_path).release()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", "a2c", *FLAGS, "--seeds", "0:2", "--out", tmp_path / "a") == 0
    shown = capsys.readouterr()
    assert "95 % interval" in shown.out
    assert "seeds 2/2" in shown.err
    assert (tmp_path / "a/learning.png").stat().st_size > 5000
    assert command("train", "a2c", *FLAGS, "--seeds", "0:2", "--out", tmp_path / "a", "--resume", "auto", "--json") == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == [0, 1]


def test_the_table_of_seeds_has_numbers_of_nested_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--algorithms", "random", "--runs", 2, "--workers", 1]
    assert command("nas-bench", *flags, "--seeds", "0:2", "--out", tmp_path / "a") == 0
    found = json.loads((tmp_path / "a/seeds.json").read_text())
    means = [json.loads((tmp_path / f"a/seed-{seed}/result.json").read_text())["random"]["mean"] for seed in (0, 1)]
    assert found["summary"]["random.mean"]["values"] == means
    assert "random: mean" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "x"], "seeds: expected FIRST:END"),
        (["--seed-workers", 0], "seed_workers: expected at least 1"),
        (["--seed-workers", 2], "--seed-workers needs --seeds, got --seed-workers 2 without it"),
        (["--cluster", "slurm"], "--cluster: expected ray or ray://HOST:PORT, got 'slurm'"),
        (["--cluster", "ray"], "--cluster: automl-ext train a2c is one run, which cannot be divided; add --seeds"),
        (["--seeds", "0:2", "--gpus-per-trial", 1], "--gpus-per-trial needs --cluster ray"),
        (["--seeds", "0:2", "--cpus-per-trial", 0], "--cpus-per-trial: expected at least 1"),
        (["--seeds", "0:2", "--resume", "x"], "--resume: expected auto with --seeds, got 'x'"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[Any], message: str
) -> None:
    assert command("train", "a2c", *flags, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_ray_names_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert command("train", "a2c", "--seeds", "0:2", "--cluster", "ray", "--out", tmp_path / "out") == 2
    assert 'error: --cluster needs ray: pip install "automl_ext[ray]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cpus_per_trial_are_the_threads_on_every_back_end() -> None:
    import torch

    before = torch.get_num_threads()
    with Cluster(cpus=2) as cluster:
        assert (torch.get_num_threads(), cluster.threads(1), cluster.threads(8)) == (2, 2, 2)
    assert torch.get_num_threads() == before
    assert Cluster().threads(1) == before


@pytest.mark.parametrize("flag", [["--seed-workers", 2], ["--cluster", "ray"], ["--stop-after", 5]])
def test_an_ablation_refuses_what_it_would_ignore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: list[Any]
) -> None:
    assert command("train", "dqn", "--ablate", "--seeds", "0:2", *flag, "--out", tmp_path / "out") == 2
    assert "error: --ablate: trains one network after the other" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_without_episodes_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(multi_seed, "run_seeds", lambda *_: {"seeds": [0]})
    monkeypatch.setattr("automl_ext.rl.reports.plot.draw_seeds", lambda runs, out: drawn.append(out.name))
    for name in ("retrain", "search rea", "train a2c"):
        options = RunOptions(tmp_path / RUNS[name].name, seeds="0")
        assert multi_seed.run_command(RUNS[name], f"automl-ext {name}", CONFIG, options)
    assert drawn == ["a2c"]


def diverge(config: Any, out: Path, resume: str | None, stop_after: int | None) -> None:
    out.mkdir()
    raise UserError("diverged")


def test_an_error_names_its_seed_and_a_mark_left_over_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{seeds.MARK}1-2").touch()
    with pytest.raises(UserError, match=r"^seed 7: diverged$"):
        run_seeds(diverge, "a2c", CONFIG, tmp_path, [7], resume="auto")
    assert not list(tmp_path.glob(f"{seeds.MARK}*"))


def test_modules_that_options_name_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver does not run the seeds itself, so nothing else imports the module of an environment there."""
    (tmp_path / "own_seed_env.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(seeds, "current_cluster", lambda: SimpleNamespace(address="ray"))
    sent: list[str] = []

    def stop(*_: Any, **__: Any) -> None:
        sent.extend(own_modules())
        raise UserError("stop")

    monkeypatch.setattr(seeds, "Jobs", stop)
    config = dataclasses.replace(CONFIG, env_id="own_seed_env:Name-v0")
    try:
        with pytest.raises(UserError, match=r"^stop$"):
            run_seeds(A2C.train, "a2c", config, tmp_path / "out", [0])
        assert "own_seed_env.py" in sent
    finally:
        sys.modules.pop("own_seed_env", None)


def test_a_run_directory_in_use_on_this_machine_stays_locked(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with pytest.raises(UserError, match="is in use"):
        seeds.release_lock(tmp_path, patience=0.1)
    assert (tmp_path / ".lock").exists()
    lock.release()
