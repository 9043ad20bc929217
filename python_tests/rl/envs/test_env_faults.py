"""Failing environments: exit code 2 and one line that names the environment and the failure, without traceback."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import rl_bad_envs
import torch
from gymnasium.vector import AsyncVectorEnv
from rl_bad_envs import Bad, env_id
from rl_worlds import Scripted

from automl_ext import cli
from automl_ext.rl import A3C, A3CConfig
from automl_ext.rl.algorithms import a3c
from automl_ext.rl.envs.guard import EnvError, Guard
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import Envs, make_envs
from automl_ext.rl.loop import worker_processes
from automl_ext.rl.loop.evaluate import evaluate, play

HERE = re.escape(rl_bad_envs.__file__) + r":\d+"
SMALL = ["--n-envs", 2, "--total-steps", 300, "--eval-every", 200, "--checkpoint-every", 100]
SMALL += ["--eval-episodes", 2, "--final-episodes", 2, "--hidden", 4]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def command(*args: object) -> int:
    return cli.main([str(arg) for arg in args])


def refused(capsys: pytest.CaptureFixture, text: str, *args: object) -> None:
    capsys.readouterr()
    assert command(*args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    errors = [line for line in lines if line.startswith("error:")]
    assert errors == [lines[-1]]
    assert re.search(text, errors[0]), errors[0]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("constructor", rf"environment 0: its constructor raised RuntimeError: no licence for you \({HERE}\)"),
        ("reset", rf"environment 0: reset\(\) raised KeyError: 'nope' \({HERE}\)"),
        ("old reset", r"environment 0: reset\(\) must return \(observation, info\), got float32 \[3\]"),
        ("dict", r"environment 0: reset\(\) raised AssertionError: .* must be a dict"),
        ("no space", r"environment 0: its constructor raised \w+Error: .*observation space"),
        ("text action", r"action space Text\(.*MultiBinary and Box"),
        ("no actions", r"NoActions-v0: actions: expected numbers, got shape \(0,\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*WARN")
def test_failure_before_training_leaves_no_run_directory(capsys, fault, text) -> None:
    refused(capsys, text, "train", "a2c", *SMALL, "--env-id", env_id(fault), "--out", "run")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("step", rf"environment 0: step\(\) raised ValueError: boom \({HERE}\), at step 3; no checkpoint was saved"),
        ("numpy", rf"step\(\) raised ValueError: cannot reshape .* \({HERE}\)"),
        ("shape", r"step\(\) returned an observation float32 \[2\], expected float32 \[3\] by its space, at step 3"),
        ("dtype", r"step\(\) returned an observation <U\d+ \[3\], expected float32 \[3\] by its space"),
        ("reward", r"step\(\) returned reward '1.0', expected a number, at step 3"),
        ("flag", r"step\(\) returned terminated 'False', expected a bool"),
        ("nan flag", r"step\(\) returned terminated nan, expected a bool"),
        ("flag 2", r"step\(\) returned truncated 2, expected a bool"),
        ("old step", r"step\(\) must return \(observation, reward, terminated, truncated, info\).*got 4"),
        ("exit", rf"step\(\) raised SystemExit: 0 \({HERE}\)"),
        ("nan", r"observation: not finite in environment 0 at its step 3: nan at index \[1\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(WARN|old step API)")
def test_failure_in_a_step_is_one_line(capsys, fault, text) -> None:
    refused(capsys, f"--env-id {env_id(fault)}: .*{text}", "train", "a2c", *SMALL, "--env-id", env_id(fault))


@pytest.mark.parametrize("call", ["constructor", "reset", "step"])
def test_changes_of_torchs_global_settings_are_undone(call) -> None:
    try:
        envs = make_envs(env_id(f"torch {call}"), 2, 0)
        envs.step(np.zeros(2, np.int64))
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()
        assert torch.empty(0).device.type == "cpu"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.set_default_device(None)


def test_keyboard_interrupt_exits_with_130(capsys) -> None:
    assert command("train", "a2c", *SMALL, "--env-id", env_id("interrupt"), "--out", "run") == 130


def test_failure_in_training_keeps_the_checkpoint_and_names_it(capsys, monkeypatch) -> None:
    flags = ["train", "a2c", *SMALL, "--env-id", "Bad/Late-v0", "--out", "run", "--resume", "auto"]
    refused(capsys, "boom .*the checkpoint of step 200 is kept: --resume auto continues from it", *flags)
    monkeypatch.setattr(Bad, "healed", True)
    with pytest.warns(UserWarning, match="new episodes start"):
        assert command(*flags, "--step-timeout", 500) == 0  # an option that cannot change the result


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("Step", rf"environment 1: step\(\) raised ValueError: boom \({HERE}\), at step 2"),
        ("OldStep", r"environment 1: step\(\) must return \(observation, reward, terminated, truncated, info\)"),
        ("Exit", rf"environment 1: step\(\) raised SystemExit: 0 \({HERE}\)"),
        ("HardExit", r"the worker process of environment 1 died \(exit code 0\) in step\(\), at step 2"),
        ("Kill", r"the worker process of environment 1 died \(killed by SIGKILL\) in step\(\), at step 2"),
        ("Hang", r"environment 1: step\(\) took longer than 0.5 s, the limit of --step-timeout, at step 2"),
    ],
)
def test_message_names_a_failed_worker(fault, text) -> None:
    options = EnvOptions("async", step_timeout=0.5 if fault == "Hang" else 60)
    envs = make_envs(f"BadAction/{fault}-v0", 3, 0, options)
    processes = list(envs.vector.processes)
    envs.step(np.zeros(3, np.int64))
    started = time.monotonic()
    with warnings.catch_warnings(record=True) as warned, pytest.raises(EnvError) as caught:
        envs.step(np.array([0, 1, 0]))
    assert re.search(f"--env-id BadAction/{fault}-v0: {text}", str(caught.value)), str(caught.value)
    assert not [
        str(warning.message) for warning in warned if "ERROR" in str(warning.message)
    ]  # the traceback of a worker
    envs.close()
    assert time.monotonic() - started < 15
    assert not any(process.is_alive() for process in processes)
    envs.close()  # a second call does nothing


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("worker constructor", rf"environment \d: its constructor raised RuntimeError: no licence for you \({HERE}\)"),
        ("worker dies early", r"environment \d died \(exit code 3\)"),
    ],
)
def test_constructor_that_fails_only_in_a_worker(capfd, fault, text) -> None:
    with pytest.raises(EnvError, match=f"--env-id {env_id(fault)}: .*{text}"):
        make_envs(env_id(fault), 2, 0, EnvOptions("async"))
    assert "Traceback" not in capfd.readouterr().err
    assert not [child for child in multiprocessing.active_children() if "AsyncVector" in child.name]


def test_close_does_not_wait_for_a_hanging_worker(monkeypatch) -> None:
    envs = make_envs("CartPole-v1", 2, 0, EnvOptions("async"))
    monkeypatch.setattr("automl_ext.rl.envs.workers.PATIENCE", 0.5)
    processes = list(envs.vector.processes)
    os.kill(processes[1].pid, signal.SIGSTOP)
    envs.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("Step", rf"environments: step\(\) raised ValueError: boom \({HERE}\)"),
        (
            "Shape",
            r"step\(\) returned observations float32 \[2, 3\], expected float32 \[3, 3\] by its space, at step 2",
        ),
        ("Reward", r"step\(\) returned rewards that are <U3"),
        ("OldStep", r"step\(\) must return \(observation, reward, terminated, truncated, info\), got 4 values"),
    ],
)
def test_failures_of_an_environments_own_vector_version(fault, text) -> None:
    envs = make_envs(f"BadVector/{fault}-v0", 3, 0, EnvOptions("vector_entry_point"))
    envs.step(np.zeros(3, np.int64))
    with pytest.raises(EnvError, match=f"--env-id BadVector/{fault}-v0: {text}"):
        envs.step(np.zeros(3, np.int64))


class Loose(Scripted):
    """An environment whose results Gymnasium casts without loss."""

    def step(self, action: object) -> tuple:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation.tolist(), np.array([reward]), int(terminated), np.bool_(truncated), {"anything": object()}

    def close(self) -> None:
        raise OSError("already closed")


def test_values_that_gymnasium_casts_are_accepted() -> None:
    env = Guard(Loose(0), "environment 0")
    env.reset()
    assert env.step(1) == ([0.0, 0.0, 1.0], 11.0, False, False, {})
    assert env.step(1)[2] is True
    with pytest.warns(UserWarning, match=r"environment 0: close\(\) raised OSError: already closed"):
        env.close()


def test_evaluation_cuts_endless_episodes(capsys) -> None:
    assert play(lambda x: np.zeros(len(x), np.int64), make_envs("Bad/Endless-v0", 3, 0), max_steps=7)[1] == 3
    with pytest.warns(UserWarning, match="2 of 2 episodes were cut after 5 steps"):
        returns = evaluate(lambda x: np.zeros(len(x), np.int64), make_envs("Bad/Endless-v0", 2, 0), max_steps=5)
    assert returns.tolist() == [5, 5]
    assert play(lambda x: np.zeros(len(x), np.int64), make_envs(env_id("no image"), 2, 0), max_steps=10).cut == 0
    flags = ["--env-id", "Bad/Endless-v0", "--eval-max-steps", 20]
    assert command("train", "a2c", *SMALL, *flags, "--out", "run") == 0
    result = json.loads(Path("run/result.json").read_text())
    assert (result["eval_return_mean"], result["episodes_cut"], result["best_episodes_cut"]) == (20, 2, 2)
    assert json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])["eval_episodes_cut"] == 2
    capsys.readouterr()
    assert command("eval", "run", "--episodes", 3, "--json") == 0
    assert json.loads(capsys.readouterr().out)["episodes_cut"] == 3
    assert command("eval", "run", "--episodes", 3, "--eval-max-steps", 4, "--json") == 0
    assert json.loads(capsys.readouterr().out)["eval_return_max"] == 4
    refused(capsys, "--eval-max-steps: expected at least 1, got 0", "eval", "run", "--eval-max-steps", 0)


def test_unknown_environment_ids(capsys) -> None:
    def train(name: str, text: str) -> None:
        refused(capsys, re.escape(f"--env-id {name}: ") + text, "train", "a2c", *SMALL, "--env-id", name, "--out", "x")
        assert not Path("x").exists()

    train("CartPoel-v1", r"Environment `CartPoel` doesn't exist; the nearest registered ids are CartPole-v1, ")
    train("cartpole-v1", r".*CartPole-v1")
    train("CartPole", r"No registered env with id: CartPole; the nearest registered ids are .*CartPole-v1")
    train("no_such_module:Env-v0", r"No module named 'no_such_module'.*PYTHONPATH")
    train("rl_bad_envs:Bad/Setp-v0", r"Environment `Setp` doesn't exist in namespace Bad; .*Bad/Step-v0")
    Path("broken_module.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(os.getcwd())
        train("broken_module:Env-v0", r"importing broken_module raised SystemExit: 0 \(.*broken_module.py:2\)")


def test_module_prefix_of_an_id_is_imported() -> None:
    for mode in ("sync", "async"):
        envs = make_envs("rl_bad_envs:Bad/NoImage-v0", 1, 0, EnvOptions(mode))
        assert envs.step(np.zeros(1, np.int64)).rewards == 1
        envs.close()


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_eval_and_plot_refuse_damaged_runs_and_missing_images(capsys, tmp_path: Path) -> None:
    for name in ("Blind", "NoImage"):
        assert command("train", "a2c", *SMALL, "--env-id", f"Bad/{name}-v0", "--out", name) == 0
    text = "Blind-v0: .*cannot render images: its constructor takes no render_mode"
    refused(capsys, text, "eval", "Blind", "--gif", "x.gif")
    refused(capsys, r"NoImage-v0: .*render\(\) must return an image", "eval", "NoImage", "--gif", "x.gif")
    assert not Path("x.gif").exists()
    refused(capsys, "this is a folder that is not a run directory", "eval", ".")
    refused(capsys, "expected a run directory with metrics.jsonl", "plot", ".")
    best = torch.load("Blind/best.pt", weights_only=True)
    for policy in ({"strange": 1}, {k: v[:1] for k, v in best["policy"].items() if v.ndim}):
        torch.save(best | {"policy": policy}, "Blind/best.pt")
        refused(capsys, "Blind/best.pt does not fit the agent of Blind", "eval", "Blind")
    torch.save([1], "Blind/best.pt")
    refused(capsys, "Blind/best.pt does not fit the agent", "eval", "Blind")
    for line in ("3", '{"loss": 1}', '{"step": "a"}', '{"step": 1, "loss": "x"}'):
        Path("Blind/metrics.jsonl").write_text(line + "\n")
        refused(capsys, "metrics.jsonl: line 1: expected an object of a step and numbers", "plot", "Blind")
    Path("Blind/metrics.jsonl").write_text('{"step": 1}\n')
    refused(capsys, "nothing has been measured", "plot", "Blind")


def test_time_limit_of_a_plain_vector_environment() -> None:
    envs = Envs(AsyncVectorEnv([lambda: gymnasium.make("BadAction/Hang-v0")]), 0, step_timeout=0.3)
    with pytest.raises(EnvError, match=r"environment 0: step\(\) took longer than 0.3 s"):
        envs.step(np.array([1]))
    envs.close()


def small_a3c(name: str) -> tuple[A3CConfig, a3c.Shared]:
    config = A3CConfig(env_id=name, n_workers=1, hidden=(4,))
    shared = A3C(dataclasses.replace(config, env_id="Bad/NoImage-v0")).shared
    return config, shared


def test_a3c_worker_reports_failures_and_counts_steps(monkeypatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    config, shared = small_a3c(env_id("exit"))
    ours, theirs = multiprocessing.Pipe()
    ours.send(1_000)
    a3c.work(0, config, shared, theirs)
    assert re.search(r"Bad/Exit-v0: environment 0: step\(\) raised SystemExit: 0", ours.recv())
    assert shared.heartbeats.tolist() == [2 + 2]
    ours.send(1_000)
    ours.close()
    a3c.work(0, config, shared, theirs)  # the parent is gone: no traceback


def test_a3c_watches_only_started_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "START_LIMIT", 0.3)
    beats = np.zeros(2, np.int64)
    watch = worker_processes.Watch(beats, 0.05)
    time.sleep(0.1)
    watch.check(0)
    beats += 1
    watch.check(0)
    time.sleep(0.1)
    watch.check(0)  # it makes its environments
    time.sleep(0.3)
    with pytest.raises(EnvError, match=r"worker process 0 did not make its environments within 0.3 s: "):
        watch.check(0)
    beats += 1
    watch.check(0)
    time.sleep(0.1)
    beats[1] += 1
    watch.check(1)
    with pytest.raises(EnvError, match=r"worker process 0 made no step for 0.05 s, the limit of --step-timeout"):
        watch.check(0)


@pytest.mark.slow
def test_a3c_ends_a_hanging_worker() -> None:
    agent = A3C(A3CConfig(n_workers=1, total_steps=10**7, eval_every=10**7, checkpoint_every=500, hidden=(4,)))
    agent.iterate()
    processes = list(agent.envs.processes)
    agent.config.env.step_timeout = 1.0
    threading.Timer(0.05, os.kill, (processes[0].pid, signal.SIGSTOP)).start()

    def go_on() -> None:
        for _ in range(1_000):
            agent.iterate()

    with pytest.raises(EnvError, match="worker process 0 made no step for 1 s"):
        go_on()
    assert not any(process.is_alive() for process in processes)


def test_a3c_refuses_vectorization_async() -> None:
    with pytest.raises(ValueError, match=r"vectorization: .*async"):
        A3CConfig(env=EnvOptions("async"))


@pytest.mark.slow
def test_workers_of_a_killed_parent_end_silently() -> None:
    """Ctrl-C while the command still loads kills it by the signal; its workers must not print tracebacks then."""
    code = (
        "import os, signal\n"
        "from automl_ext import rl\n"
        "agent = rl.make('a2c', 'CartPole-v1', n_envs=2, vectorization='async')\n"
        "agent.envs.reset()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""
