"""The training loop: files of a run, resuming after a stop or a kill, divergence."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compare_runs import CLOCKS, newest, same, same_runs
from killed import kill_and_resume
from rl_worlds import Scripted, Toy, ToyConfig

from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.evaluate import evaluate
from automl_ext.rl.loop.train_config import envs_of
from automl_ext.training.ctrl_c import CtrlC, sigterm_as_ctrl_c
from automl_ext.training.errors import UserError
from automl_ext.training.seeding import derived_seed


def train(out: Path, config: ToyConfig | None = None, **kwargs) -> dict | None:
    return loop.train(Toy, config or ToyConfig(), out, **kwargs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without an interruption."""
    out = tmp_path_factory.mktemp("uninterrupted") / "whole"
    train(out)
    return out


def test_files_of_a_run(tmp_path: Path) -> None:
    result = train(tmp_path / "run")
    stored = json.loads((tmp_path / "run/result.json").read_text())
    assert stored == result
    names = {"eval_return_mean", "eval_return_std", "best_eval_return", "best_step", "env_steps"}
    names |= {"episodes_cut", "best_episodes_cut"}
    assert set(stored) == names | CLOCKS
    assert stored["env_steps"] >= 400
    assert stored["steps_per_second"] == pytest.approx(stored["env_steps"] / stored["seconds"])
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] // 100 for row in rows] == [1, 2, 3, 4]
    assert {"eval_return", "loss", "ones", "episode_return", "episode_length"} <= set(rows[-1])
    assert all(row["ones"] == 1 for row in rows)
    best = torch.load(tmp_path / "run/best.pt", weights_only=True)
    assert best["step"] == stored["best_step"] in {row["step"] for row in rows}
    assert newest(tmp_path / "run")[0] == stored["env_steps"]


def test_best_return_is_that_of_the_saved_best_policy(tmp_path: Path) -> None:
    result = train(tmp_path / "run")
    agent = Toy(ToyConfig())
    agent.load_policy_state(torch.load(tmp_path / "run/best.pt", weights_only=True)["policy"])
    seed = derived_seed(0, 0)
    again = evaluate(agent.act, envs_of(ToyConfig(), 3, seed))
    assert result["best_eval_return"] == again.mean()


def scored(monkeypatch: pytest.MonkeyPatch, during: list[float], last: float, best: float) -> None:
    """Let evaluations return these numbers: during training, then for the last and for the best policy."""
    script = iter([*during, last, best])
    monkeypatch.setattr(loop.Training, "returns", lambda self, episodes, number: np.full(episodes, next(script)))


def test_among_equal_policies_the_later_is_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [3, 7, 7, 5], 4, 6)
    result = train(tmp_path / "run")
    assert result is not None
    assert (result["best_step"] // 100, result["best_eval_return"], result["eval_return_mean"]) == (3, 6, 4)
    best = torch.load(tmp_path / "run/best.pt", weights_only=True)
    assert (best["step"], best["return"]) == (result["best_step"], 7)


@pytest.mark.parametrize("last", [491, 500])
def test_last_policy_becomes_the_best_if_it_is_as_good_on_the_final_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: float
) -> None:
    """The best policy's return during training was luck: it was measured on few episodes."""
    scored(monkeypatch, [500, 480, 490, 495], last, 491)
    result = train(tmp_path / "run")
    assert result is not None
    assert (result["best_step"], result["best_eval_return"]) == (result["env_steps"], last)
    best = torch.load(tmp_path / "run/best.pt", weights_only=True)
    assert (best["step"], best["return"]) == (result["env_steps"], last)
    assert torch.equal(best["policy"]["weights"], newest(tmp_path / "run")[1]["agent"]["weights"])


@pytest.mark.parametrize("stop_after", [1, 60, 100, 133])  # 60: a step with a regular checkpoint
def test_resumed_run_equals_uninterrupted_run(whole: Path, tmp_path: Path, stop_after: int) -> None:
    parts = tmp_path / "parts"
    assert train(parts, stop_after=stop_after) is None
    assert not (parts / "result.json").exists()
    assert train(parts, resume="auto", stop_after=50) is None
    assert train(parts, resume="auto") is not None
    same_runs(whole, parts)


def test_best_policy_newer_than_the_checkpoint_is_removed(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", stop_after=70)
    (tmp_path / "run/best.pt").write_bytes(b"newer than the checkpoint")
    train(tmp_path / "run", resume="auto", stop_after=1)
    assert not (tmp_path / "run/best.pt").exists()
    train(tmp_path / "run", resume="auto", stop_after=80)
    (tmp_path / "run/best.pt").unlink()
    train(tmp_path / "run", resume="auto")
    same_runs(whole, tmp_path / "run")


def test_ctrl_c_saves_and_the_resumed_run_equals_the_uninterrupted_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, iterate = signal.getsignal(signal.SIGINT), loop.Training.iterate

    def interrupted(self: loop.Training) -> int:
        if not self.saved > 0:  # no regular checkpoint yet
            os.kill(os.getpid(), signal.SIGINT)
        return iterate(self)

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes inherit an ignored SIGINT
        with monkeypatch.context() as patch:
            patch.setattr(loop.Training, "iterate", interrupted)
            with pytest.raises(KeyboardInterrupt, match="the checkpoint of step 6 is kept"):
                train(tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    train(tmp_path / "run", resume="auto")
    assert f"{tmp_path / 'run'}: continues from step 6\n" in capsys.readouterr().err
    same_runs(whole, tmp_path / "run")


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with CtrlC() as ctrl_c:
            os.kill(os.getpid(), signal.SIGINT)
            assert ctrl_c.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_sigterm_is_ctrl_c_even_where_ctrl_c_is_ignored(ctrl_c: Any) -> None:
    """A script that starts a command by & makes it ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray, in an earlier test of this process, has its own handler
        with sigterm_as_ctrl_c():
            with CtrlC() as stop:
                os.kill(os.getpid(), signal.SIGTERM)
                assert stop.requested
                read, write = os.pipe()
                if (child := os.fork()) == 0:
                    os.write(write, b"x")
                    while True:
                        time.sleep(0.01)
                os.read(read, 1)  # a signal that comes while the process starts would be lost
                os.kill(child, signal.SIGTERM)
                assert os.waitpid(child, 0)[1] == signal.SIGTERM
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_without_a_checkpoint_says_that_it_starts_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", resume="auto")
    assert "starts anew" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run/checkpoints")
    train(tmp_path / "run", resume="auto")
    assert f"{tmp_path / 'run'}: no checkpoint, starts anew" in capsys.readouterr().err


def test_resuming_a_finished_run_returns_its_result(tmp_path: Path) -> None:
    first = train(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    assert train(tmp_path / "run", resume="auto") == first


@pytest.mark.slow
def test_killed_and_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    imports = "from rl_worlds import Toy, ToyConfig; from automl_ext.rl.loop import loop"
    config = "ToyConfig(total_steps=600, checkpoint_every=30)"
    kill_and_resume(imports, f"loop.train(Toy, {config}, out, resume='auto')", tmp_path, kills=4)
    assert json.loads((tmp_path / "killed/environment.json").read_text())["resumed"]
    same_runs(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(("sick_at", "text"), [(250, "loss nan"), (-250, "policy.weights is not finite")])
def test_divergence_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path, sick_at: int, text: str) -> None:
    with pytest.raises(UserError, match=rf"diverged before step \d+: .*{text}.*the checkpoint of step \d+ is kept"):
        train(tmp_path / "run", ToyConfig(sick_at=sick_at))
    step, state = newest(tmp_path / "run")
    assert step < 250
    assert state["agent"]["weights"].isfinite().all()
    assert not (tmp_path / "run/result.json").exists()


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("what", ["reward", "observation"])
def test_environment_values_that_are_not_finite_end_the_run(tmp_path: Path, what: str) -> None:
    config = ToyConfig(
        env_id=env_id_of(functools.partial(Scripted, 0, (what, 0, 40, 1))), env=EnvOptions("sync"), eval_episodes=1
    )
    with pytest.raises(UserError, match=rf"{what}: not finite in environment 0 at its step \d+"):
        train(tmp_path / "run", config)
    assert 0 < newest(tmp_path / "run")[0] < 300


def test_without_saved_environments_new_episodes_start(tmp_path: Path) -> None:
    config = ToyConfig(env_id=env_id_of(functools.partial(Scripted, 0)))
    train(tmp_path / "one", config, stop_after=100)
    with pytest.warns(UserWarning, match="its state cannot be saved; new episodes start"):
        assert train(tmp_path / "one", config, resume="auto") is not None


def test_evaluation_does_not_change_training(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "often", dataclasses.replace(ToyConfig(), eval_every=7))
    same(*(newest(run)[1]["agent"] for run in (whole, tmp_path / "often")))


def test_averages_of_tensors_and_numbers() -> None:
    averages = loop.Averages()
    averages.add({"a": torch.tensor(1.0), "b": 1})
    averages.add({"a": 2.0})
    assert averages.take() == {"a": 1.5, "b": 1.0}
    assert averages.take() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best", {"step": 1, "return": "x", "policy": None}),
        ("best", {"step": None, "return": 1.0, "policy": None}),
        ("sums", torch.zeros(2)),
        ("sums", {"loss": "x"}),
        ("sums", {"loss": torch.zeros(3)}),
        ("counts", {"loss": 1.5}),
        ("counts", {}),
    ],
)
def test_state_of_wrong_types_is_refused(tmp_path: Path, name: str, value: object) -> None:
    train(tmp_path / "run", stop_after=60)
    state = newest(tmp_path / "run")[1] | {"sums": {"loss": 1.0}, "counts": {"loss": 1}}
    config = ToyConfig()
    loop.Training(Toy(config), config).load_state_dict(state)
    with pytest.raises(ValueError, match=name if name == "best" else "sums|counts"):
        loop.Training(Toy(config), config).load_state_dict(state | {name: value})
