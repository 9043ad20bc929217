"""Lanes of agents: validity and ends of episodes, padding, saved states, errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from policy_worlds import Staggered, Together, lanes_of

from automl_ext.rl import A2C, A2CConfig, DQNConfig, EnvOptions, make, make_envs
from automl_ext.rl.algorithms.dqn import DQN
from automl_ext.rl.envs.guard import EnvError
from automl_ext.rl.envs.lanes import Lanes
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.saved import space_from_dict, space_to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import check_trusted, own_names

SPREAD = "pettingzoo/mpe2.simple_spread_v3"


def test_an_agent_that_is_done_waits_without_transitions() -> None:
    envs = lanes_of(Staggered, copies=1)
    np.testing.assert_array_equal(envs.observations, [[0, 0, 1, 0], [0, 0, 0, 1]])
    steps = [envs.step(np.array([0, 1])) for _ in range(5)]
    assert [s.valid.tolist() for s in steps] == [[True, True]] * 2 + [[False, True]] * 2 + [[True, True]]
    assert [s.terminated.tolist() for s in steps] == [[False, False], [True, False]] + [[False, False]] * 3
    assert [s.truncated[1].item() for s in steps] == [False, False, False, True, False]
    assert [s.rewards.tolist() for s in steps] == [[1, 1], [1, 1], [0, 1], [0, 1], [1, 1]]
    np.testing.assert_array_equal(steps[1].next_observations, [[2, 0, 1, 0], [2, 20, 0, 1]])
    np.testing.assert_array_equal(steps[3].next_observations[1], [4, 40, 0, 1])  # the final one
    np.testing.assert_array_equal(steps[4].observations, [[0, 0, 1, 0], [0, 0, 0, 1]])
    assert [tuple(e) for e in envs.episodes] == [(2.0, 2, 0), (4.0, 4, 1)]
    assert envs.steps == 8


def test_lengths_and_starts_of_later_episodes() -> None:
    envs = lanes_of(Staggered, copies=1)
    starts = []
    for _ in range(10):
        starts.append(envs.starting.tolist())
        envs.step(np.array([1, 0]))
    assert [(e.length, e.env) for e in envs.episodes] == [(2, 0), (4, 1), (2, 0), (4, 1), (2, 0)]
    assert [t for t in range(10) if starts[t][1]] == [0, 4, 8]
    assert {0, 4, 8} <= {t for t in range(10) if starts[t][0]}


def test_only_a_critic_sees_the_observations_of_the_others() -> None:
    envs = lanes_of(Staggered, copies=2, central=True)
    for _ in range(2):
        envs.step(np.zeros(4, int))
    np.testing.assert_array_equal(envs.observations[:2], [[2, 0, 1, 0, 2, 20], [2, 20, 0, 1, 2, 0]])
    assert (envs.observation_space.own, envs.observation_space.visible) == (2, 4)
    assert envs.observation_space.groups(envs.observations).tolist() == [0, 1, 0, 1]
    with pytest.raises(UserError, match="central_critic"):
        DQN(DQNConfig(), envs)


def test_actions_depend_on_the_agent_and_waiting_lanes_teach_nothing() -> None:
    """With shared weights, a must choose 0 and b must choose 1; V(b) counts four steps, then bootstraps."""
    config = A2CConfig(lr=2e-2, optimizer="adam", hidden=(16,), gamma=0.5, normalize_rewards=False)
    agent = A2C(config, lanes_of(Staggered, copies=4))
    for _ in range(90):
        agent.iterate()
    assert agent.act(agent.envs.observations).tolist() == [0, 1] * 4
    values = agent.network(torch.from_numpy(lanes_of(Staggered, copies=1).observations))[1]
    assert values.tolist() == pytest.approx([1.5, 2.0], abs=0.15)  # 1 + γ, and 1 / (1 − γ)


def test_q_learning_stores_no_steps_of_waiting_lanes() -> None:
    agent = DQN(DQNConfig(learning_starts=64, train_freq=8, gradient_steps=4, hidden=(16,)), lanes_of(Staggered))
    for _ in range(10):
        agent.iterate()
    assert len(agent.replay) == agent.envs.steps
    batch = agent.replay.sample(200)
    assert (batch.observations[:, 0] < 2 + 2 * batch.observations[:, 3]).all()


def test_simulators_of_mpe_are_saved_exactly() -> None:
    pytest.importorskip("mpe2")
    rng, envs, others = np.random.default_rng(0), make_envs(SPREAD, 2, 0), make_envs(SPREAD, 2, 1)
    assert envs.observations.shape == (6, 18 + 3)
    for _ in range(30):
        envs.step(rng.integers(5, size=6))
    assert others.load_state_dict(envs.state_dict())
    for _ in range(40):
        actions = rng.integers(5, size=6)
        for a, b in zip(envs.step(actions), others.step(actions), strict=True):
            np.testing.assert_array_equal(a, b)


def test_errors_name_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="expected a module of pettingzoo or mpe2"):
        make_envs("pettingzoo/os", 1, 0)
    with pytest.raises(UserError, match="no_such"):
        make_envs("pettingzoo/automl_ext.no_such", 1, 0)
    with pytest.raises(UserError, match="does not define parallel_env"):
        make_envs("pettingzoo/automl_ext.rl.envs.tasks", 1, 0)
    with pytest.raises(UserError, match="frame_stack"):
        make_envs("pettingzoo/automl_ext.rl.envs.two_step", 1, 0, EnvOptions(frame_stack=2))
    with pytest.raises(UserError, match="central_critic: expected an environment of PettingZoo"):
        make_envs("CartPole-v1", 1, 0, EnvOptions(central_critic=True))
    monkeypatch.setitem(sys.modules, "mpe2", None)
    with pytest.raises(ModuleNotFoundError, match=r"automl_ext\[multi-agent\]"):
        make_envs(SPREAD, 1, 0)

    class Unlike(Together):
        def action_space(self, agent: str) -> spaces.Discrete:
            return spaces.Discrete(2 + (agent == "b"))

    with pytest.raises(UserError, match="one action space"):
        Lanes([Unlike])


def test_agents_that_take_turns_are_refused() -> None:
    class Turns(Together):
        def agent_iter(self) -> None: ...

    with pytest.raises(
        UserError, match="expected a parallel environment of PettingZoo, got one whose agents take turns"
    ):
        Lanes([Turns])


def test_an_agent_that_never_starts_is_refused() -> None:
    class Late(Together):
        def reset(self, seed=None, options=None):
            result = super().reset()
            self.agents = ["a"]
            return result

    with pytest.raises(UserError, match="must start all of the agents"):
        Envs(Lanes([Late]), 0)


def changed(**changes: Any) -> Envs:
    """Return two agents whose environment returns other values: functions of what it returns now, by position."""

    class Changed(Together):
        def step(self, actions: Any) -> Any:
            results = list(super().step(actions))
            for place, change in ((int(name[1:]), change) for name, change in changes.items()):
                results[place] = change(results[place])
            return tuple(results)

    return Envs(Lanes([Changed]), 0)


FAULTS = {
    "of agent b float64 \\[1\\], expected float64 \\[2\\] by its space": {"_0": lambda x: x | {"b": np.zeros(1)}},
    "of agent a float64 \\[3\\], expected float64 \\[1\\] by its space": {"_0": lambda x: x | {"a": np.zeros(3)}},
    "observations has no entry of agent b": {"_0": lambda x: {"a": x["a"]}},
    "rewards has no entry of agent a": {"_1": lambda x: {"b": x["b"]}},
    "returned rewards of agent a None, expected a number": {"_1": lambda x: x | {"a": None}},
    "terminations has no entry of agent a": {"_2": lambda x: {}},
    "truncations has no entry of agent a": {"_3": lambda x: {}},
}


@pytest.mark.parametrize("text", FAULTS)
def test_mistakes_of_an_environment_are_named(text: str) -> None:
    with pytest.raises(EnvError, match=rf"step\(\).*{text}"):
        changed(**FAULTS[text]).step(np.zeros(2, int))


def test_results_of_another_number_are_refused() -> None:
    class Four(Together):
        def step(self, actions: Any) -> Any:
            return super().step(actions)[:4]

    with pytest.raises(EnvError, match=r"step\(\) must return \(observations, rewards, .*as PettingZoo's API says"):
        Envs(Lanes([Four]), 0).step(np.zeros(2, int))


def test_rewards_may_be_arrays_of_one_number() -> None:
    step = changed(_1=lambda x: {agent: np.full(1, 3.0) for agent in x}).step(np.zeros(2, int))
    assert step.rewards.tolist() == [3, 3]


def test_an_environment_needs_no_more_than_the_interface() -> None:
    class Plain(Together):
        def __getattribute__(self, name: str) -> Any:
            if name in ("render_mode", "metadata"):
                raise AttributeError(name)
            return super().__getattribute__(name)

    assert Envs(Lanes([Plain]), 0).vector.render_mode is None


@pytest.mark.parametrize("made", [None, type("NoAgents", (), {"possible_agents": []})()])
def test_an_environment_without_agents_is_refused(made: Any) -> None:
    with pytest.raises(UserError, match="expected a parallel environment of PettingZoo with possible_agents, got "):
        Lanes([lambda: made])


def test_own_modules_need_trust_and_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "pettingzoo/policy_worlds:Together"
    assert list(own_names({"env_id": name})) == [name]
    check_trusted([name], ["policy_worlds"], "config")
    with pytest.raises(UserError, match="--trust policy_worlds"):
        check_trusted([name], [], "config")
    agent = make("a2c", name, total_steps=64, n_envs=2, hidden=(8,))
    assert set(agent.learn()) >= {"eval_return/a", "eval_return/b"}
    saved = space_from_dict(space_to_dict(agent.spaces[0]))
    assert (saved, saved.names, saved.visible) == (agent.spaces[0], ("a", "b"), 4)


def test_action_masks_are_refused() -> None:
    class Masked(Together):
        def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
            observations, _ = super().reset(seed, options)
            return observations, {agent: {"action_mask": np.array([1, 0])} for agent in observations}

    with pytest.raises(UserError, match="action_mask: not possible with several agents"):
        lanes_of(Masked)


def test_infos_may_be_missing() -> None:
    class Silent(Together):
        def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], Any]:
            return super().reset(seed, options)[0], None

    lanes_of(Silent).close()


@pytest.mark.parametrize("env_id", ["CartPole-v1,CartPole-v0", "pettingzoo/automl_ext.rl.envs.two_step"])
def test_lives_are_those_of_one_atari_game(env_id: str) -> None:
    with pytest.raises(UserError, match="terminal_on_life_loss: expected one Atari game"):
        make_envs(env_id, 1, 0, EnvOptions(terminal_on_life_loss=True))
