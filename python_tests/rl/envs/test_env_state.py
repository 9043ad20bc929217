"""Restored environments continue exactly like the saved ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.envs.vector import make_envs
from automl_ext.training.files.checkpoint import check_state

CLASSIC = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
MINATAR = [f"MinAtar/{game}-v1" for game in ("Breakout", "Freeway", "Seaquest", "Asterix", "SpaceInvaders")]
CASES = [(name, EnvOptions()) for name in CLASSIC + MINATAR]
CASES += [("CartPole-v1", EnvOptions("sync")), ("MountainCar-v0", EnvOptions(frame_stack=3))]


def through_a_file(state):
    check_state(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def actions_of(envs, steps, seed=0):
    envs.vector.action_space.seed(seed)
    return [envs.vector.action_space.sample() for _ in range(steps)]


@pytest.mark.parametrize(("env_id", "options"), CASES, ids=[f"{name} {o.vectorization}" for name, o in CASES])
def test_restored_environments_continue_bit_for_bit(env_id, options) -> None:
    if env_id.startswith("MinAtar"):
        pytest.importorskip("minatar")
    envs, states, steps, known = make_envs(env_id, 3, 5, options), {}, [], {}
    actions = actions_of(envs, 260 + 260)
    for number, chosen in enumerate(actions):
        if number in (0, 1, 260):
            states[number] = through_a_file(envs.state_dict())
        steps.append(envs.step(chosen))
        known[number + 1] = list(envs.episodes)
    for before, later in ((0, 40), (1, 40), (260, 260)):  # the last: long enough for time limits and new episodes
        other = make_envs(env_id, 3, 99, options)
        assert other.load_state_dict(states[before]) is True
        for one, chosen in zip(steps[before : before + later], actions[before : before + later], strict=True):
            for x, y in zip(one, other.step(chosen), strict=True):
                assert x.dtype == y.dtype
                assert x.tobytes() == y.tobytes()
        assert (known[before + later], 3 * (before + later)) == (other.episodes, other.steps)
    assert envs.episodes or "Continuous" in env_id or "Freeway" in env_id  # their episodes are longer


def test_restored_environments_share_no_memory_with_the_state() -> None:
    envs = make_envs("CartPole-v1", 2, 0)
    state = through_a_file(envs.state_dict())
    envs.load_state_dict(state)
    first = envs.step(np.zeros(2, np.int64)).next_observations
    for _ in range(30):
        envs.step(np.zeros(2, np.int64))
    envs.load_state_dict(state)
    assert np.array_equal(envs.step(np.zeros(2, np.int64)).next_observations, first)


@pytest.mark.parametrize("options", [EnvOptions("async")])
def test_without_saved_simulators_new_episodes_depend_on_seed_and_steps(options) -> None:
    envs = make_envs("Acrobot-v1", 2, 0, options)
    for actions in actions_of(envs, 5):
        envs.step(actions)
    state = through_a_file(envs.state_dict())
    envs.close()
    assert state["simulators"] is None
    begun = []
    for _ in range(2):
        other = make_envs("Acrobot-v1", 2, 0, options)
        fresh = other.observations
        with pytest.warns(UserWarning, match="its state cannot be saved; new episodes start"):
            assert other.load_state_dict(state) is False
        assert other.steps == 10
        assert not np.array_equal(other.observations, fresh)
        begun.append(other.observations)
        other.close()
    assert np.array_equal(*begun)


def test_state_of_other_environments_is_refused() -> None:
    state = make_envs("CartPole-v1", 4, 0).state_dict()
    with pytest.raises(ValueError, match=r"observations: expected float32 \[3, 4\], got float32 \[4, 4\]"):
        make_envs("CartPole-v1", 3, 0).load_state_dict(state)
    with pytest.raises(ValueError, match="environments: expected those of SyncVectorEnv"):
        make_envs("CartPole-v1", 4, 0, EnvOptions("sync")).load_state_dict(state)


def test_unknown_simulators_are_not_saved() -> None:
    pytest.importorskip("Box2D")
    assert make_envs("LunarLander-v3", 1, 0).state_dict()["simulators"] is None
