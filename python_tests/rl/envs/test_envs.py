"""Environments: autoreset modes, final observations, values that are not finite, dead workers, options, evaluation."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from rl_worlds import Scripted

from automl_ext.rl.envs.callables import env_id_of
from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import Envs, Episode, make_envs
from automl_ext.rl.loop.evaluate import evaluate
from automl_ext.training.errors import UserError

SYNC, ASYNC = SyncVectorEnv, functools.partial(AsyncVectorEnv, context="fork")
NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


def scripted(vector=SYNC, mode=NEXT, n_envs=3, bad=None, **kwargs) -> Envs:
    makers = [functools.partial(Scripted, i, bad) for i in range(n_envs)]
    return Envs(vector(makers, autoreset_mode=mode), seed=0, **kwargs)


def transitions(envs: Envs, steps: int) -> list[list[tuple]]:
    """Return each environment's valid transitions. Actions depend on observations, so that modes are comparable."""
    found: list[list[tuple]] = [[] for _ in range(envs.n_envs)]
    for _ in range(steps):
        actions = (envs.observations[:, 1] + envs.observations[:, 2]).astype(np.int64) % 5
        step = envs.step(actions)
        for i in np.flatnonzero(step.valid):
            found[i].append(tuple(np.asarray(part[i]).tolist() for part in step[:-1]))
    envs.close()
    return found


def expected(env: int, count: int) -> list[tuple]:
    rows = []
    for episode in range(count):
        length = 2 + (env + episode) % 3
        for t in range(length):
            action, over, natural = (episode + t) % 5, t + 1 == length, episode % 2 == 0
            now, then = [env, episode, t], [env, episode, t + 1]
            rows.append((now, action, action + 10.0 * (t + 1), then, over and natural, over and not natural))
    return rows[:count]


@pytest.mark.parametrize("vector", [SYNC, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED], ids=["next step", "same step", "disabled"])
def test_all_autoreset_modes_give_the_same_true_transitions(vector, mode) -> None:
    envs = scripted(vector, mode)
    for env, rows in enumerate(transitions(envs, 30)):
        assert len(rows) >= 20
        assert rows == expected(env, len(rows))
    restarts = len(envs.episodes) - 1 if mode is NEXT else 0  # at most one episode has just ended
    assert 3 * 30 - envs.steps in range(restarts - 2, restarts + 2)


@pytest.mark.parametrize("mode", [NEXT, SAME], ids=["next step", "same step"])
def test_episodes_and_steps_are_counted_without_restarts(mode) -> None:
    envs = scripted(mode=mode, n_envs=1)
    valid = [bool(envs.step(np.array([1])).valid[0]) for _ in range(7)]
    assert valid == ([True, True, False, True, True, True, False] if mode is NEXT else [True] * 7)
    assert envs.episodes == [Episode(1 + 10 + 1 + 20, 2, 0), Episode(3 + 10 + 20 + 30, 3, 0)]
    assert envs.steps == sum(valid)


def test_reward_clip_does_not_change_returns() -> None:
    envs = scripted(n_envs=1, reward_clip=1.0)
    rewards = [float(envs.step(np.array([1])).rewards[0]) for _ in range(2)]
    assert rewards == [1.0, 1.0]
    assert envs.episodes[0].episode_return == 32
    assert evaluate(lambda x: np.ones(len(x), np.int64), scripted(reward_clip=0.5)).tolist() == [32, 63, 104]


def test_evaluation_counts_the_first_episode_of_each_environment() -> None:
    for mode in (NEXT, SAME, DISABLED):
        returns = evaluate(lambda x: np.ones(len(x), np.int64), scripted(mode=mode, n_envs=3))
        assert returns.tolist() == [32, 63, 104]


@pytest.mark.parametrize("what", ["reward", "observation"])
@pytest.mark.parametrize("mode", [NEXT, SAME], ids=["next step", "same step"])
@pytest.mark.parametrize("episode_step", [(0, 1), (0, 3)], ids=["within an episode", "in its final step"])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_numbers_that_are_not_finite_are_refused_by_environment_and_step(what, mode, episode_step) -> None:
    envs = scripted(mode=mode, bad=(what, 1, *episode_step))
    with pytest.raises(UserError, match=f"{what}: not finite in environment 1 at its step {episode_step[1]}"):
        transitions(envs, 5)


def test_large_numbers_are_finite() -> None:
    envs = scripted(n_envs=1)
    envs._check_finite("observation", np.full(3, 3e38, np.float32), np.zeros(3, np.float32))


@pytest.mark.parametrize("victim", [0, 2])
def test_killed_worker_is_named_and_the_others_end(victim) -> None:
    envs = scripted(ASYNC)
    envs.step(np.zeros(3, np.int64))
    processes = list(envs.vector.processes)
    os.kill(processes[victim].pid, signal.SIGKILL)
    processes[victim].join()
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"process of environment {victim} died \(killed by SIGKILL\) .*at step 2"):
        envs.step(np.zeros(3, np.int64))
    envs.close()
    assert time.monotonic() - started < 10
    assert not any(process.is_alive() for process in processes)
    envs.close()  # a second call does nothing


def test_workers_end_when_environments_are_closed() -> None:
    envs = scripted(ASYNC)
    envs.close()
    assert not any(process.is_alive() for process in envs.vector.processes)


@pytest.mark.filterwarnings("ignore:.*ERROR")
def test_environment_error_is_raised_and_workers_end() -> None:
    envs = scripted(ASYNC)
    with pytest.raises(EnvError, match=r"ValueError: could not convert"):
        envs.step(np.array(["a", "b", "c"]))
    processes = list(envs.vector.processes)
    envs.close()
    assert not any(process.is_alive() for process in processes)


def test_observations_are_in_c_order() -> None:
    envs = make_envs("CartPole-v1", 3, 0)
    step = envs.step(np.zeros(3, np.int64))
    assert envs.observations.flags.c_contiguous
    assert step.next_observations.flags.c_contiguous


@pytest.mark.parametrize(
    ("env_id", "options", "error", "text"),
    [
        ("Nope-v0", {}, UserError, "--env-id Nope-v0: Environment `Nope` doesn't exist"),
        ("CartPole-v77", {}, UserError, "--env-id CartPole-v77"),
        ("", {}, UserError, "--env-id"),
        ("CartPole-v1", {"vectorization": "vector_entry_point", "frame_stack": 2}, UserError, "sync or async"),
        ("Acrobot-v1", {"vectorization": "vector_entry_point"}, UserError, "vector entry point"),
        ("no_such_module:Env-v0", {}, UserError, "no_such_module"),
    ],
)
def test_environment_that_cannot_be_made_is_one_line(env_id, options, error, text) -> None:
    with pytest.raises(error, match=re.escape(text)) as caught:
        make_envs(env_id, 2, 0, EnvOptions(**options))
    assert "\n" not in str(caught.value)


def test_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "minatar.gym", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "automl_ext[minatar]"')):
        make_envs("MinAtar/Breakout-v1", 1, 0)


class Loose(SyncVectorEnv):
    """A vector environment whose restarts return a reward and the flags of the last step."""

    def step(self, actions: Any) -> Any:
        restarting = self._autoreset_envs.copy()
        observations, rewards, terminated, truncated, info = super().step(actions)
        return observations, rewards + 7 * restarting, terminated | restarting, truncated | restarting, info


def test_what_a_restart_returns_is_no_part_of_an_episode() -> None:
    rows = transitions(scripted(Loose), 30)
    assert all(found == expected(env, len(found)) for env, found in enumerate(rows))
    envs = scripted(Loose, n_envs=1)
    valid = [bool(envs.step(np.array([1])).valid[0]) for _ in range(7)]
    assert valid == [True, True, False, True, True, True, False]
    assert [episode.episode_return for episode in envs.episodes] == [32, 63]


def test_an_autoreset_mode_that_is_missing_is_named() -> None:
    vector = SyncVectorEnv([functools.partial(Scripted, 0)])
    for mode in (None, "NextStep"):
        vector.metadata = {"autoreset_mode": mode}
        with pytest.raises(UserError, match=rf"metadata\['autoreset_mode'\], got {mode!r}"):
            Envs(vector, 0)


def test_final_observations_that_are_missing_are_named() -> None:
    vector = SyncVectorEnv([functools.partial(Scripted, 0)])  # NEXT_STEP
    vector.metadata = {"autoreset_mode": SAME}
    with pytest.raises(EnvError, match=r"step\(\) returned no final_obs in its info .*at step 2"):
        transitions(Envs(vector, 0), 2)


def test_observations_that_are_not_arrays_are_refused() -> None:
    class Talking(Scripted):
        def __init__(self) -> None:
            super().__init__(0)
            self.observation_space = gymnasium.spaces.Text(4)

    with pytest.raises(UserError, match="observations: expected arrays of numbers, got Text"):
        Envs(SyncVectorEnv([Talking]), 0)


@pytest.mark.parametrize("vectorization", ["auto", "sync", "async"])
def test_frames_are_stacked(vectorization) -> None:
    envs = make_envs("CartPole-v1", 2, 0, EnvOptions(vectorization, frame_stack=3))
    try:
        step = envs.step(np.zeros(2, np.int64))
        assert step.next_observations.shape == (2, 3, 4)
        np.testing.assert_array_equal(step.next_observations[:, :2], step.observations[:, 1:])
    finally:
        envs.close()


def test_adjacent_seeds_have_no_episode_in_common() -> None:
    first = {tuple(x) for seed in range(4) for x in make_envs("Acrobot-v1", 4, seed).observations.tolist()}
    assert len(first) == 16


def test_box2d() -> None:
    pytest.importorskip("Box2D")
    envs = make_envs("LunarLander-v3", 2, 0)
    assert envs.step(np.zeros(2, np.int64)).next_observations.shape == (2, 8)


@pytest.mark.parametrize("game", ["Breakout", "Freeway", "Seaquest"])
def test_minatar_observations_are_bool_and_depend_on_the_seed(game) -> None:
    pytest.importorskip("minatar")
    runs = [make_envs(f"MinAtar/{game}-v1", 2, seed) for seed in (0, 0, 1)]
    rng, seen = np.random.default_rng(0), [[], [], []]
    for _ in range(100):
        actions = rng.integers(0, 3, 2)
        for run, observed in zip(runs, seen, strict=True):
            observed.append(run.step(actions).next_observations)
    assert seen[0][0].dtype == bool
    assert seen[0][0].shape[1:3] == (10, 10)
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_atari() -> None:
    pytest.importorskip("ale_py")
    envs = make_envs("ALE/Pong-v5", 2, 0)
    step = envs.step(np.zeros(2, np.int64))
    assert step.next_observations.shape == (2, 4, 84, 84)
    assert step.next_observations.dtype == np.uint8
    assert make_envs("ALE/Pong-v5", 1, 0, EnvOptions(frame_stack=2)).observations.shape == (1, 2, 84, 84)
    with pytest.raises(UserError, match="vectorization: expected auto for Atari, got sync"):
        make_envs("ALE/Pong-v5", 1, 0, EnvOptions("sync"))


@pytest.mark.parametrize(
    ("env_id", "stack", "frames"),
    [("CartPole-v1", None, 1), ("CartPole-v1", 3, 3), ("ALE/Pong-v5", None, 4), ("ALE/Pong-v5", 2, 2)],
)
def test_frame_stack_of_the_observations(env_id, stack, frames) -> None:
    if env_id.startswith("ALE/"):
        pytest.importorskip("ale_py")
    envs = make_envs(env_id, 1, 0, EnvOptions(frame_stack=stack))
    assert envs.frame_stack == frames
    assert frames == 1 or envs.observations.shape[1] == frames


def test_atari_rewards_are_not_clipped() -> None:
    pytest.importorskip("ale_py")
    envs, rng = make_envs("ALE/MsPacman-v5", 2, 0), np.random.default_rng(0)
    assert max(envs.step(rng.integers(0, 9, 2)).rewards.max() for _ in range(100)) == 10


def test_lives_end_episodes_in_training_only() -> None:
    """Random play of Breakout loses five lives per game. Returns, lengths and observations are those of the games."""
    pytest.importorskip("ale_py")
    lives, games = (make_envs("ALE/Breakout-v5", 2, 0, EnvOptions(terminal_on_life_loss=on)) for on in (True, False))
    rng, lost, over = np.random.default_rng(0), 0, 0
    for _ in range(400):
        actions = rng.integers(0, 4, 2)
        ours, whole = lives.step(actions), games.step(actions)
        assert np.array_equal(ours.next_observations, whole.next_observations)
        assert (ours.terminated >= whole.terminated).all()
        lost, over = lost + ours.terminated.sum(), over + whole.terminated.sum()
    assert over
    assert 5 * over <= lost < 5 * over + 10
    assert lives.episodes == games.episodes
    for envs in (lives, games):
        envs.close()
    with pytest.raises(UserError, match="terminal_on_life_loss: expected one Atari game"):
        make_envs("CartPole-v1", 1, 0, EnvOptions(terminal_on_life_loss=True))


def test_action_repeat_stops_at_the_episodes_end() -> None:
    from automl_ext.rl.envs.wrappers import ActionRepeat

    env = ActionRepeat(Scripted(0), 3)  # episodes of 2, 3 and 4 steps; the reward of step t is 10 t + action
    env.reset()
    assert env.step(1)[1:4] == (11 + 21, True, False)
    env.reset()
    assert env.step(0)[1:4] == (60, False, True)
    env.reset()
    assert env.step(0)[1:4] == (60, False, False)
    assert env.step(2)[1:4] == (42, True, False)


def test_pixels_are_the_rendered_image() -> None:
    pytest.importorskip("pygame")
    envs = make_envs("CartPole-v1", 2, 0, EnvOptions(pixels=True))
    assert envs.observations.shape == (2, 64, 64, 3)
    assert envs.observations.dtype == np.uint8
    assert envs.observation_space.contains(envs.observations[0])
    assert envs.observations.std() > 5  # a cart on white
    first = envs.observations
    for _ in range(5):  # in one step it moves by less than a pixel
        step = envs.step(np.array([0, 1]))
    assert not np.array_equal(first, step.next_observations)
    envs.close()
    with pytest.raises(UserError, match="pixels: expected vectorization sync or async"):
        make_envs("CartPole-v1", 2, 0, EnvOptions("vector_entry_point", pixels=True))


class SameArray(gymnasium.Env[Any, Any]):
    """Writes every observation, an image, into one array; the episodes have three steps."""

    observation_space, action_space = gymnasium.spaces.Box(0, 9, (3, 3, 1), np.uint8), gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.array = np.zeros((3, 3, 1), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.array[:] = 0
        return self.array, {}

    def step(self, action: Any) -> Any:
        self.array += 1
        return self.array, 0.0, False, bool(self.array[0, 0, 0] == 3), {}


@pytest.mark.parametrize("options", [EnvOptions(), EnvOptions(vectorization="async")], ids=["sync", "async"])
def test_an_environment_may_return_the_same_array_in_every_step(options: EnvOptions) -> None:
    """Otherwise the final observation of a truncated episode is the first one of the next."""

    envs = make_envs(env_id_of(SameArray), 2, 0, options)
    steps = [envs.step(np.zeros(2, int)) for _ in range(5)]
    envs.close()
    valid = [step for step in steps if step.valid.all()]
    assert [step.observations[0, 0, 0, 0] for step in valid][:4] == [0, 1, 2, 0]
    assert [step.next_observations[0, 0, 0, 0] for step in valid][:4] == [1, 2, 3, 1]


def test_stacked_frames_of_the_same_array_differ() -> None:
    envs = make_envs(env_id_of(SameArray), 1, 0, EnvOptions(frame_stack=3))
    seen = [envs.observations[0, :, 0, 0, 0].tolist()]
    seen += [envs.step(np.zeros(1, int)).next_observations[0, :, 0, 0, 0].tolist() for _ in range(3)]
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_a_callable_that_makes_several_agents_is_refused() -> None:
    with pytest.raises(UserError, match=r"env: expected a single agent, .* pettingzoo/MODULE:FUNCTION"):
        make_envs(env_id_of(type("Team", (), {"possible_agents": ["a"]})), 1, 0)


def test_actions_have_the_dtype_of_their_space() -> None:
    """Gymnasium's ``Discrete.contains`` refuses other integers."""

    class Bytes(Scripted):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(0)
            self.action_space = gymnasium.spaces.Discrete(3, dtype=np.int8)

        def step(self, action: Any) -> Any:
            assert self.action_space.contains(action)
            return super().step(action)

    envs = make_envs(env_id_of(Bytes), 2, 0)
    assert envs.step(np.ones(2, np.int64)).actions.dtype == np.int64


def test_step_timeout_is_for_worker_processes_only() -> None:
    """A step in this process cannot be interrupted; test_env_faults.py has the worker that hangs."""

    class Slow(Scripted):
        def step(self, action: Any) -> Any:
            time.sleep(0.05)
            return super().step(action)

    envs = make_envs(env_id_of(lambda: Slow(0)), 2, 0, EnvOptions("sync", step_timeout=0.01))
    assert envs.step(np.zeros(2, np.int64)).valid.all()
    envs.close()


def test_missing_dm_control_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "automl_ext\[dmc\]"'):
        make_envs("dmc/cartpole-swingup", 1, 0)


def test_episodes_of_dm_control_depend_on_the_seed_and_are_truncated() -> None:
    pytest.importorskip("dm_control")
    envs = [make_envs("dmc/cartpole-swingup", 2, seed, EnvOptions(action_repeat=2)) for seed in (0, 0, 1)]
    assert envs[0].observation_space.shape == (5,)
    assert np.array_equal(envs[0].observations, envs[1].observations)
    assert not np.array_equal(envs[0].observations, envs[2].observations)
    one = envs[0]
    assert not np.array_equal(*one.observations)
    for _ in range(500):
        step = one.step(np.ones((2, 1), np.float32))
    assert step.truncated.all()
    assert not step.terminated.any()
    assert [episode.length for episode in one.episodes] == [500, 500]
    assert one.observations.dtype == np.float32
    for each in envs:
        each.close()


@pytest.mark.parametrize(("name", "text"), [("cartpole-nothing", "not"), ("cartpole", "expected dmc/DOMAIN-TASK")])
def test_unknown_tasks_of_dm_control_are_refused(name: str, text: str) -> None:
    pytest.importorskip("dm_control")
    with pytest.raises(UserError, match=text):
        make_envs(f"dmc/{name}", 1, 0)


def test_few_environments_are_stepped_one_by_one() -> None:
    few, more = (make_envs("CartPole-v1", count, 0).vector for count in (3, 4))
    assert isinstance(few, SyncVectorEnv)
    assert not isinstance(more, SyncVectorEnv)
