"""Environments that are given as objects: one Env, vector environments, EnvPool."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, NormalizeReward
from gymnasium.wrappers.vector import ClipReward, NormalizeObservation, RecordEpisodeStatistics
from rl_worlds import Scripted
from space_worlds import MaskedByKey
from test_envs import expected, transitions

from automl_ext import rl
from automl_ext.rl.envs.given import as_vector, unbatched
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.loop import train
from automl_ext.training.errors import UserError

MODES = list(AutoresetMode)
IN_PLACE = "cannot be made again: policies are evaluated in the training environments"


SHORT = {"total_steps": 200, "eval_every": 100, "eval_episodes": 2, "final_episodes": 2, "checkpoint_every": 100}
SMALL: dict[str, dict[str, Any]] = {
    "dqn": {"hidden": (8,), "learning_starts": 50, "train_freq": 50, "gradient_steps": 2},
}


def small(name: str, env: Any, **options: Any) -> Any:
    return rl.make(name, env, **{**SHORT, **SMALL.get(name, {"hidden": (8,)}), **options})


class Short(Scripted):
    """A world that ``gymnasium.make`` makes."""

    def __init__(self) -> None:
        super().__init__(0)


gymnasium.register("Short-v0", Short)


class FakePool(gymnasium.Env):
    """The interface of an older EnvPool: it steps a batch, with the spaces of one environment, or of the batch."""

    def __init__(self, n: int = 3, batched: bool = False, space: Any = None) -> None:
        self.vector = SyncVectorEnv([functools.partial(Scripted, i) for i in range(n)])
        self.observation_space = self.vector.observation_space if batched else self.vector.single_observation_space
        self.action_space = self.vector.action_space if batched else self.vector.single_action_space
        self.config = {"num_envs": n}

    def reset(self) -> Any:  # type: ignore[override]
        return self.vector.reset()

    def step(self, actions: Any) -> Any:
        assert actions.shape == (len(self.vector.envs),)
        return self.vector.step(actions)


class Plain:
    """:class:`FakePool` that is no environment of Gymnasium, with single observations and batched actions."""

    def __init__(self) -> None:
        self.pool = FakePool()
        self.observation_space, self.num_envs = self.pool.observation_space, 3
        self.action_space = spaces.MultiDiscrete([5, 5, 5])
        self.reset, self.step = self.pool.reset, self.pool.step


@pytest.mark.parametrize("make", [FakePool, functools.partial(FakePool, batched=True), Plain])
def test_a_pool_gives_the_true_transitions(make: Any) -> None:
    agent = rl.make("a2c", make(), hidden=(8,))
    assert agent.config.n_envs == 3
    assert agent.spaces == (spaces.Box(-1, 100, (3,)), spaces.Discrete(5))
    fresh = Envs(as_vector(make()), 0)
    first = int(fresh.observations[0, 1])  # the spaces of a batch are recognized by an observation
    for env, rows in enumerate(transitions(fresh, 30)):
        assert len(rows) >= 20
        assert rows == [row for row in expected(env, 90) if row[0][1] >= first][: len(rows)]


def test_an_agent_learns_in_a_pool_and_is_evaluated_there() -> None:
    agent = small("ppo", FakePool())
    with pytest.warns(UserWarning, match=IN_PLACE) as caught:
        assert agent.learn()["env_steps"] >= 200
    assert len(caught) == 3  # one evaluation, and the last and the best policy
    assert str(caught[0].message).startswith("evaluation: FakePool(num_envs=3) cannot")
    with pytest.warns(UserWarning, match=IN_PLACE):
        assert agent.evaluate(7).shape == (7,)


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_envpool_itself(tmp_path: Path) -> None:
    envpool = pytest.importorskip("envpool", reason="EnvPool is no dependency: pip install envpool")
    made = functools.partial(envpool.make, "CartPole-v1", env_type="gymnasium", seed=3, max_episode_steps=12)
    envs, twin = Envs(as_vector(made(num_envs=3)), 0), made(num_envs=3)
    now, _ = twin.reset()
    running, lengths = np.ones(3, bool), np.zeros(3)
    returns: list[tuple[float, int, int]] = []
    for t in range(60):
        actions = np.array([t % 2, 0, 1])
        step = envs.step(actions)
        then, rewards, terminated, truncated, _ = twin.step(actions)
        assert (step.observations == now).all()
        assert (step.next_observations[running] == then[running]).all()
        assert (step.valid == running).all()
        lengths += rewards
        for i in np.flatnonzero(terminated | truncated):
            returns.append((lengths[i], lengths[i], i))
            lengths[i] = 0
        assert (step.truncated == truncated).all()
        running, now = ~(terminated | truncated), then
    assert envs.episodes == returns
    assert {length for length, _, i in returns if i == 0} == {12}  # truncated, in NEXT_STEP
    agent = small("dqn", made(num_envs=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # evaluations are in others
        warnings.filterwarnings("ignore", ".*precision lowered")  # EnvPool's own
        agent.learn(out=tmp_path / "run")
    assert agent.evaluate(5).max() <= 12
    other = small("dqn", made(num_envs=4))
    train(lambda _: other, agent.config, tmp_path / "part", stop_after=90)
    with pytest.warns(UserWarning, match="its state cannot be saved; new episodes start"):
        small("dqn", made(num_envs=4)).learn(out=tmp_path / "part", resume="auto")
    with pytest.raises(UserError, match="expected EnvPool with batch_size = num_envs, got 2 of 4 environments"):
        rl.make("dqn", made(num_envs=4, batch_size=2))
    with pytest.raises(UserError, match=r"observation_space must be a gymnasium.Space, got None; .*'gymnasium'"):
        rl.make("dqn", envpool.make("CartPole-v1", env_type="dm", num_envs=2))


@pytest.mark.parametrize("name", ["ppo", "dqn", "reinforce"])
def test_one_environment_or_several(name: str) -> None:
    several = gymnasium.make_vec("CartPole-v1", num_envs=3)
    for env, n in ((gymnasium.make("CartPole-v1"), 1), (several, 3)):
        agent = small(name, env, total_steps=60)
        assert (agent.config.env_id, agent.config.n_envs, agent.envs.n_envs) == ("given/CartPole-v1", n, n)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            if name == "dqn":
                warnings.filterwarnings("ignore", "nothing was learned")
            first = agent.learn()["env_steps"]
            assert agent.learn(50)["env_steps"] >= first + 50
            assert agent.evaluate(4).shape == (4,)


def vectors() -> dict[str, Any]:
    several = [functools.partial(Scripted, i) for i in range(2)]
    one = Scripted(0)
    return {
        **{f"sync {mode.value}": lambda m=mode: SyncVectorEnv(several, autoreset_mode=m) for mode in MODES},
        **{f"async {mode.value}": lambda m=mode: AsyncVectorEnv(several, autoreset_mode=m) for mode in MODES},
        "statistics": lambda: RecordEpisodeStatistics(SyncVectorEnv(several)),
        "made": lambda: gymnasium.make("Short-v0"),
        "one": lambda: one,
        "the same": lambda: SyncVectorEnv([lambda: one]),
        "clipped": lambda: ClipReward(SyncVectorEnv(several), 0, 1),
        "clipped async": lambda: ClipReward(AsyncVectorEnv(several), 0, 1),
    }


@pytest.mark.parametrize("kind", vectors())
def test_evaluations_are_in_others_where_they_can_be_made(kind: str) -> None:
    agent = rl.make("a2c", vectors()[kind](), hidden=(8,))
    again = kind not in ("one", "the same", "clipped", "clipped async")
    agent.act = lambda observations: np.ones(len(observations), np.int64)  # type: ignore[method-assign]
    before = agent.envs.observations.copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: fork() with several threads
        returns = agent.evaluate(3)
    assert bool(caught) != again
    if again:
        assert returns.tolist() == [32, 32 if kind == "made" else 63, 32]
        assert (agent.envs.observations == before).all()
    elif "clipped" in kind:
        assert returns.tolist() == [3, 4, 2]  # rewards of 1: of the episodes 1 of both, and 3 of the first one
    else:
        assert returns.tolist() == (
            [63, 32, 104] if kind == "one" else [63, 104, 32]
        )  # of the episodes 1, 3, 5 or 2, 3
    agent.iterate()
    agent.close()


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_nothing_is_learned_across_episodes_that_were_aborted(name: str) -> None:
    """Neither after an evaluation in the training environments nor after steps of their owner."""
    vector = ClipReward(SyncVectorEnv([functools.partial(Scripted, i) for i in range(2)]), 0, 100)
    options: Any = {"n_step": 3, "learning_starts": 10_000} if name == "dqn" else {"n_steps": 5}
    agent = rl.make(name, vector, hidden=(8,), eval_every=7, eval_episodes=1, final_episodes=1, **options)
    steps: list[Any] = []
    step = agent.envs.step
    agent.envs.step = lambda *given: steps.append(step(*given)) or steps[-1]  # type: ignore[method-assign, func-returns-value]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agent.learn(40)
        vector.reset()
        vector.step(np.zeros(2, np.int64))
        agent.learn(40)
    for taken in steps:
        moved = taken.next_observations - taken.observations
        assert (moved[taken.valid] == (0, 0, 1)).all()
    if name == "dqn":
        batch = agent.replay.sample(2_000)
        moved = (batch.next_observations - batch.observations).numpy()
        assert (moved[:, :2] == 0).all()
        assert set(moved[:, 2]) == {1, 2, 3}


class OwnArray(gymnasium.Env):
    """It returns the same array from every call. An episode has three steps."""

    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self) -> None:
        self.t = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t[:] = 0
        return self.t, {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.t, 1.0, bool(self.t == 3), False, {}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_final_observations_of_an_environment_that_reuses_its_array(mode: AutoresetMode) -> None:
    envs = Envs(SyncVectorEnv([OwnArray] * 2, autoreset_mode=mode), 0)
    steps = [envs.step(np.zeros(2, np.int64)) for _ in range(7)]
    found = [(float(s.observations[0, 0]), float(s.next_observations[0, 0])) for s in steps if s.valid[0]]
    assert found[:6] == [(0, 1), (1, 2), (2, 3)] * 2


def test_dict_observations_and_masks_of_a_vector_environment() -> None:
    MaskedByKey.invalid = 0
    for mode in MODES:
        agent = small("ppo", SyncVectorEnv([MaskedByKey] * 2, autoreset_mode=mode))
        assert agent.learn()["env_steps"] >= 200
    assert MaskedByKey.invalid == 0


def test_wrappers_of_one_environment_are_made_again() -> None:
    env = FlattenObservation(FrameStackObservation(gymnasium.make("CartPole-v1"), 2))
    agent = rl.make("a2c", env, hidden=(8,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agent.evaluate(2).shape == (2,)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda: gymnasium.make_vec("CartPole-v1", 2),
            {"n_envs": 3},
            "n_envs: expected 2, as the environment has, got 3",
        ),
        (Scripted, {"frame_stack": 2}, "make: frame_stack: expected an environment id, .*; wrap it before"),
        (lambda: NormalizeReward(Short()), {}, "env: NormalizeReward: its statistics .*normalize_rewards=True"),
        (
            lambda: NormalizeObservation(gymnasium.make_vec("CartPole-v1", 2)),
            {},
            "env: NormalizeObservation: its statistics would be missing",
        ),
        (lambda: SyncVectorEnv([lambda: NormalizeReward(Short())]), {}, "env: NormalizeReward"),
        (
            lambda: lambda: gymnasium.make_vec("CartPole-v1", 2),
            {},
            "one environment, got several: pass what it returns",
        ),
    ],
)
def test_what_is_not_possible_is_named(make: Any, options: dict[str, Any], message: str) -> None:
    env = make(0) if make is Scripted else make()
    with pytest.raises(UserError, match=message) as error:
        rl.make("a2c", env, **options)
    assert "\n" not in str(error.value)


def test_a_preset_that_an_environment_does_not_get_warns() -> None:
    with pytest.warns(UserWarning, match="env: pixels: not applied to an environment that exists"):
        rl.make("dreamer", gymnasium.make("CartPole-v1", render_mode="rgb_array"), preset="pixels").close()


def test_options_of_a_saved_agent_that_an_environment_does_not_get_are_named(tmp_path: Path) -> None:
    path = small("a2c", "CartPole-v1", action_repeat=2).save(tmp_path / "agent.pt")
    with pytest.warns(UserWarning, match="env: action_repeat: not applied to an environment that exists"):
        rl.load(path, env=gymnasium.make("CartPole-v1")).close()


def test_actions_have_the_dtype_of_their_space() -> None:
    env = gymnasium.make("CartPole-v1")
    env.action_space = gymnasium.spaces.Discrete(2, dtype=np.int32)
    agent = small("a2c", env)
    assert env.action_space.contains(agent.predict(np.zeros(4, np.float32))[0])
    agent.close()


def test_saved_agents_and_runs_of_objects(tmp_path: Path) -> None:
    agent = small("a2c", gymnasium.make_vec("CartPole-v1", num_envs=2))
    agent.learn(out=tmp_path / "run")
    path = agent.save(tmp_path / "agent.pt")
    loaded = rl.load(path)
    x = np.zeros((3, 4), np.float32)
    assert (loaded.predict(x)[0] == agent.predict(x)[0]).all()
    for call in (loaded.learn, loaded.evaluate, functools.partial(rl.load_run, tmp_path / "run")):
        with pytest.raises(
            UserError, match=r"was the Python object 'CartPole-v1': pass env= to rl.load or rl.load_run"
        ):
            call()
    returns = agent.evaluate(3)
    sync = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")
    found = [rl.load(path, env=env) for env in (gymnasium.make("CartPole-v1"), sync, "CartPole-v1")]
    assert len({tuple(loaded.evaluate(3)) for loaded in found}) == 1
    assert all(loaded.learn(20)["env_steps"] >= 20 for loaded in found)
    again = rl.load_run(tmp_path / "run", "last", env=gymnasium.make_vec("CartPole-v1", num_envs=2))
    assert (again.evaluate(3) == returns).all()
    with pytest.raises(UserError, match="expected the spaces of the agent"):
        rl.load(path, env=Short())


def test_an_agent_of_recorded_episodes_is_evaluated_in_an_object() -> None:
    agent = rl.make("bc", gymnasium.make("CartPole-v1"), hidden=(8,), total_steps=4, eval_episodes=2, final_episodes=2)
    zeros = np.zeros((5, 4), np.float32)
    flags = np.arange(4) == 3
    fields = {"observations": zeros, "actions": np.ones(4, np.int64), "rewards": np.ones(4, np.float32)}
    agent.set_episodes([fields | {"terminations": flags, "truncations": ~flags & flags}])
    assert agent.learn()["env_steps"] == 4
    assert agent.evaluate(2).shape == (2,)


def test_an_agent_that_was_made_with_envs_learns() -> None:
    """It was refused: policies were evaluated in other environments."""
    envs = Envs(SyncVectorEnv([functools.partial(Scripted, i) for i in range(2)]), 0)
    agent = rl.A2C(rl.A2CConfig(hidden=(8,), total_steps=40, eval_episodes=2, final_episodes=2), envs)
    assert agent.learn()["env_steps"] >= 40


@pytest.mark.parametrize("n", [1, 3])
def test_the_space_of_one_of_equal_environments(n: int) -> None:
    single = spaces.Dict(
        {
            "box": spaces.Box(np.float32([0, -1]), np.float32([2, 3])),
            "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
            "choice": spaces.Discrete(5, start=2),
        }
    )
    assert unbatched(batch_space(single, n), n) == single
    different = spaces.Box(np.float32([[0], [0]]), np.float32([[1], [2]]))
    assert unbatched(different, 2) is different
