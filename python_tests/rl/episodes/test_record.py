"""Recording of episodes, and their files."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rl_worlds import Scripted

from automl_ext import rl
from automl_ext.cli import main
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.replay.episode_files import FIELDS, read_episodes, recorded_in, write_episodes
from automl_ext.rl.replay.episodes import RecordedEpisode, as_recorded
from automl_ext.rl.reports.record import RecordCommand, record, record_run
from automl_ext.summary import print_recording
from automl_ext.training.config import to_dict
from automl_ext.training.errors import UserError


def played(mode: AutoresetMode = AutoresetMode.NEXT_STEP, epsilon: float = 0.0, limit: int = 100) -> Any:
    envs = Envs(SyncVectorEnv([lambda i=i: Scripted(i) for i in range(4)], autoreset_mode=mode), 0, reward_clip=1.0)
    rng = np.random.default_rng(0)
    return record(lambda x: np.arange(4), envs, lambda starting: None, epsilon, rng, limit)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_episodes_are_whole_and_do_not_touch(mode: AutoresetMode) -> None:
    for i, episode in enumerate(played(mode)):
        steps = 2 + i % 3
        assert episode.observations.tolist() == [[i, 0, t] for t in range(steps + 1)]
        assert episode.actions.tolist() == [i] * steps
        assert episode.rewards.tolist() == [i + 10 * t for t in range(1, steps + 1)]  # not clipped
        assert episode.terminations.tolist() == [False] * (steps - 1) + [True]
        assert not episode.truncations.any()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("CartPole-v1", "CartPole-v1"), (7.0, None), (["a", "b"], None), ("x" * 300, "x" * 200), (None, None)],
)
def test_the_environment_that_a_file_names(tmp_path: Path, name: Any, expected: str | None) -> None:
    np.savez(tmp_path / "data.npz", **({} if name is None else {"env_id": np.array(name)}))
    assert recorded_in(str(tmp_path / "data.npz")) == expected


def test_a_limit_of_steps_truncates() -> None:
    found = played(limit=3)
    assert [len(episode.actions) for episode in found] == [2, 3, 3, 2]
    assert [bool(episode.truncations[-1]) for episode in found] == [False, False, True, False]
    assert [bool(episode.terminations[-1]) for episode in found] == [True, True, False, True]


def test_the_probability_of_random_actions() -> None:
    envs = Envs(SyncVectorEnv([lambda i=i: Scripted(i) for i in range(400)]), 0)
    never = np.full(400, 7)  # no action of the space: counts the actions of the policy
    found = record(lambda x: never, envs, lambda starting: None, 0.25, np.random.default_rng(0), 100)
    actions = np.concatenate([episode.actions for episode in found])
    assert np.mean(actions != 7) == pytest.approx(0.25, abs=0.04)
    assert set(actions.tolist()) == {0, 1, 2, 3, 4, 7}


def test_a_file_holds_the_episodes(tmp_path: Path) -> None:
    write_episodes(tmp_path / "data.npz", played(), "Scripted-v0")
    for found, expected in zip(read_episodes(str(tmp_path / "data.npz")), played(), strict=True):
        for x, y in zip(found, expected, strict=True):
            assert x.dtype == y.dtype
            assert np.array_equal(x, y)


class Executes:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("executed",)


def damaged(path: Path, **changes: Any) -> str:
    write_episodes(path, played(), "Scripted-v0")
    with np.load(path) as arrays:
        content = {**arrays, **changes}
    np.savez(path, **{name: x for name, x in content.items() if x is not None})
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, "rewards is missing"),
        ({"lengths": np.array([2, 3, 4, 1])}, "lengths|expected numbers"),
        ({"lengths": np.array([2**62, 2**62, 2**62, 2**62])}, "lengths: expected a sum of"),
        ({"lengths": np.array([-1, 5, 5, 2])}, "lengths: expected positive integers"),
        ({"lengths": np.zeros(0, int)}, "lengths: expected positive integers"),
        ({"rewards": np.full(11, np.nan)}, "rewards: expected finite numbers"),
        ({"rewards": np.zeros((11, 2))}, r"rewards: expected shape \[11\], got \[11, 2\]"),
        ({"terminations": np.zeros(11)}, "terminations: expected numbers .*got float64"),
        ({"observations": np.zeros(3)}, r"observations: expected numbers \[15, ...\], got float64 \[3\]"),
        ({"actions": np.array([Executes()] * 11)}, "not a readable npz file of plain arrays"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_episodes(damaged(tmp_path / "data.npz", **changes))
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(pickle.dumps(Executes()))
    os.mkfifo(tmp_path / "pipe")
    irregular = "expected a regular file, .* is a "
    for name, message in (
        ("data.npz", "not a readable npz file"),
        ("none.npz", "not a readable npz file"),
        (".", f"{irregular}folder"),
        ("pipe", f"{irregular}pipe"),
        ("/dev/zero", f"{irregular}device"),
    ):
        with pytest.raises(UserError, match=message):
            read_episodes(str(tmp_path / name))
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    (tmp_path / "data.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"holds \['x'\], expected episodes: observations, .*lengths is missing"):
        read_episodes(str(tmp_path / "data.npz"))


def test_data_sets_of_minari(monkeypatch: pytest.MonkeyPatch) -> None:
    class DataSet:
        def iterate_episodes(self) -> Any:
            fields = {"id": 0, "infos": {}} | {name: np.zeros(3) for name in FIELDS}
            fields |= {"observations": np.zeros((4, 2)), "actions": np.zeros(3, int)}
            yield types.SimpleNamespace(**fields)

    def load_dataset(name: str) -> DataSet:
        if name != "toy/walk-v0":
            raise ValueError("no such\ndata set")
        return DataSet()

    monkeypatch.setitem(sys.modules, "minari", types.SimpleNamespace(load_dataset=load_dataset))
    (episode,) = read_episodes("minari:toy/walk-v0")
    assert episode.observations.dtype == np.float32
    with pytest.raises(UserError, match="--episodes minari:other: no such data set"):
        read_episodes("minari:other")
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs minari: pip install .automl_ext\[minari\]"):
        read_episodes("minari:toy/walk-v0")


def test_episodes_of_wrong_lengths_are_refused() -> None:
    good = played()[0]
    with pytest.raises(ValueError, match="episode 1: observations: expected length 3, got 2"):
        as_recorded([good, good._replace(observations=good.observations[:2])])
    with pytest.raises(ValueError, match="at least one step"):
        as_recorded([])
    assert isinstance(as_recorded([good._asdict()])[0], RecordedEpisode)


def test_the_command_records_a_run(tmp_path: Path, capsys: Any) -> None:
    options = {"total_steps": 50, "eval_every": 50, "eval_episodes": 1, "final_episodes": 1}
    agent = rl.make("a2c", "CartPole-v1", hidden=(4,), n_envs=1, **options)
    agent.learn(out=tmp_path / "run")

    def recorded(*arguments: str) -> bytes:
        out = tmp_path / "new/data.npz"
        out.unlink(missing_ok=True)
        assert main(["record", str(tmp_path / "run"), "--out", str(out), "--episodes", "34", *arguments]) == 0
        return out.read_bytes()

    first = recorded()
    episodes = read_episodes(str(tmp_path / "new/data.npz"))
    assert len(episodes) == 34
    best = rl.load_run(tmp_path / "run")
    for episode in episodes[::11]:
        assert np.array_equal(best.act(episode.observations[:-1]), episode.actions)
    assert recorded() == first
    recorded("--epsilon", "1", "--seed", "1")
    actions = np.concatenate([e.actions for e in read_episodes(str(tmp_path / "new/data.npz"))])
    assert 0.3 < actions.mean() < 0.7
    assert "automl-ext train bc --episodes " in " ".join(capsys.readouterr().out.split())
    for arguments, message in [
        (["--episodes", "0"], "--episodes: expected at least 1, got 0"),
        (["--epsilon", "1.5"], "--epsilon: expected a number in .0, 1., got 1.5"),
        (["--out", "data.npy"], "--out: expected a file NAME.npz, got data.npy"),
        (["--out", str(tmp_path / "new/data.npz")], "--out: .*data.npz exists: choose another file, or delete it"),
    ]:
        assert main(["record", str(tmp_path / "run"), "--out", "x.npz", *arguments]) == 2
        assert re.search(message, capsys.readouterr().err)
    assert main(["record", str(tmp_path / "none"), "--out", "x.npz"]) == 2
    assert "none: expected a run directory, it does not exist" in capsys.readouterr().err


def test_dreamer_records_its_own_actions_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recurrent state holds the last action: a random one instead would be unknown to it."""
    agent = types.SimpleNamespace(algorithm="dreamer", envs=types.SimpleNamespace(close=lambda: None))
    monkeypatch.setattr("automl_ext.rl.reports.record.agent_of", lambda *_: (None, agent))
    with pytest.raises(UserError, match=r"--epsilon: expected 0 or 1 for dreamer, got 0.5"):
        record_run(RecordCommand(tmp_path, tmp_path / "new.npz", epsilon=0.5))


def test_the_next_command_is_for_the_environment_of_the_run(tmp_path: Path, capsys: Any) -> None:
    stored = {"env_id": "Acrobot-v1", "env": to_dict(EnvOptions(env_kwarg=("a=1", "b=2")))}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    print_recording(tmp_path, Path("x.npz"), {"episodes": 1, "steps": 2, "return_mean": 0.0, "return_std": 0.0})
    text = " ".join(capsys.readouterr().out.split())
    assert "automl-ext train bc --env-id Acrobot-v1 --env-kwarg a=1 --env-kwarg b=2 --episodes x.npz" in text
