"""A3C: training with worker processes, errors of workers, and their termination."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from gymnasium.vector import AutoresetMode

from automl_ext.rl import A2C, A3C, A3CConfig
from automl_ext.rl.algorithms.a3c import Shared, leg
from automl_ext.rl.loop.loop import train
from automl_ext.training.errors import UserError

MODES = pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
SMALL = A3CConfig(total_steps=4_000, eval_every=2_000, eval_episodes=3, final_episodes=3, checkpoint_every=2_000)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids: list[int], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end, "worker processes are still running"
        time.sleep(0.05)


def test_workers_update_the_shared_parameters_and_a_killed_one_is_an_error() -> None:
    agent = A3C(dataclasses.replace(SMALL, total_steps=10**7))
    before = agent.shared.parameters.clone()
    measured = agent.iterate()
    assert 2_000 <= agent.envs.steps < 2_200
    assert not torch.equal(before, agent.shared.parameters)
    assert torch.equal(agent.learner.parameters.detach(), agent.shared.parameters)
    assert agent.shared.square_avg.max() > 0
    assert measured["cpu_seconds"] > 0
    assert len(agent.envs.episodes) > 16  # more than one per environment
    assert sum(episode.length for episode in agent.envs.episodes) <= agent.envs.steps
    pids = [process.pid for process in agent.envs.processes]
    assert len(set(pids)) == 2
    threading.Timer(0.05, os.kill, (pids[1], signal.SIGKILL)).start()

    def train_on() -> None:
        for _ in range(1_000):
            agent.iterate()

    with pytest.raises(UserError, match=r"worker process 1 died \(killed by SIGKILL\)"):
        train_on()
    wait_until_gone(pids, 5)


def test_a_server_of_workers_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(process: object) -> None:
        raise EOFError  # as multiprocessing does when its server dies while it imports PyTorch

    agent = A3C(SMALL)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    with pytest.raises(UserError, match=r"^--env-id CartPole-v1: worker process 0 died at its start$"):
        agent.iterate()


def test_epsilon_of_rmsprop_is_inside_the_root() -> None:
    """The update of a worker equals equation S3 of Mnih et al. 2016, g / √(s + ε), computed in NumPy."""
    learner = A2C(dataclasses.replace(SMALL, lr=0.1, lr_decay=False))
    before = learner.parameters.detach().clone()
    square_avg = torch.rand(before.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    shared = Shared(before.clone(), square_avg.clone(), mp.get_context("spawn").Value("q", 0), torch.zeros(1))
    leg(learner, shared, 1)
    g, s = (x.numpy().astype(np.float64) for x in (learner.parameters.grad, square_avg))
    s = 0.99 * s + 0.01 * g**2
    np.testing.assert_allclose(shared.square_avg.numpy(), s, rtol=1e-4)
    np.testing.assert_allclose(shared.parameters.numpy(), before.numpy() - 0.1 * g / np.sqrt(s + 1e-5), atol=1e-5)
    assert np.abs(g / np.sqrt(s + 1e-5) - g / (np.sqrt(s) + 1e-5)).max() > 1e-2  # ε outside the root is another update


@pytest.mark.slow
def test_trains_and_resumes(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, n_workers=1)
    assert train(A3C, config, tmp_path, stop_after=1_000) is None
    result = train(A3C, config, tmp_path, resume="auto")
    assert result is not None
    assert 4_000 <= result["env_steps"] < 4_200
    assert {"eval_return_mean", "eval_return_std", "best_eval_return", "seconds", "cpu_seconds"} < set(result)


def test_state_dict_restores_shared_state(tmp_path: Path) -> None:
    agent, other = A3C(SMALL), A3C(SMALL)
    agent.shared.square_avg.fill_(2.0)
    agent.shared.steps.value = 77
    agent.learner.parameters.data.fill_(3.0)
    other.load_state_dict(agent.state_dict())
    assert other.envs.steps == 77
    assert (other.shared.parameters == 3).all()
    assert (other.shared.square_avg == 2).all()


def test_new_workers_begin_without_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker that is still starting would count as one that hangs in a step."""
    agent = A3C(dataclasses.replace(SMALL, n_workers=1))
    agent.shared.heartbeats.fill_(9)
    seen: list[int] = []
    monkeypatch.setattr(agent.envs, "_reports", lambda: seen.append(int(agent.shared.heartbeats[0])) or [])
    with contextlib.suppress(Exception):  # there are no reports
        agent.envs.run(1)
    agent.envs.close()
    assert seen
    assert seen[0] < 9


def test_an_extra_of_your_own_that_workers_would_not_have_is_refused() -> None:
    class Mine:
        name, seams = "mine", frozenset({"rewards"})

    with pytest.raises(UserError, match="mine: not possible with a3c, which has no seam for: rewards"):
        A3C(SMALL).attach(Mine())  # type: ignore[arg-type]


def test_error_of_a_worker_is_raised_in_the_parent() -> None:
    agent = A3C(dataclasses.replace(SMALL, n_workers=1))
    agent.config.env_id = agent.envs.config.env_id = "NoSuch-v1"
    with pytest.raises(UserError, match=r"worker \d: .*NoSuch"):
        agent.iterate()
    assert not agent.envs.processes


def test_unsupported_settings_are_refused() -> None:
    for option, value in (("device", "cuda"), ("popart", True), ("normalize_observations", True)):
        with pytest.raises(ValueError, match=f"{option}.*: expected"):
            A3CConfig(**{option: value})  # type: ignore[arg-type]


# A process that a shell starts in the background inherits an ignored SIGINT; restore the default handler.
RUN = """
import signal
from automl_ext.rl import A3C, A3CConfig
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    agent = A3C(A3CConfig(n_workers=1, total_steps=10**8, eval_every=1_000, checkpoint_every=1_000))
    try:
        agent.iterate()
        print(*[process.pid for process in agent.envs.processes], flush=True)
        while True:
            agent.iterate()
    finally:
        agent.envs.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_parent(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 1
        if how == signal.SIGINT:  # a terminal sends Ctrl-C to the whole process group
            os.killpg(process.pid, how)
        else:
            process.kill()
        assert process.wait(20) != 0
        wait_until_gone(pids, 20)
    finally:  # if the test fails, do not leave workers running
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
