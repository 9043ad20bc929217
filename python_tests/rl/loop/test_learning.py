"""``learn`` and ``predict`` of agents: callbacks, early ends, recurrent states, batches; sampled evaluations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from compare_runs import CLOCKS
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from policy_worlds import Bandit, envs_in
from rl_worlds import Scripted

from automl_ext import rl
from automl_ext.rl import A2C, A2CConfig
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.evaluate import play
from automl_ext.rl.loop.loop import Report, Training, train
from automl_ext.rl.reports.evaluate_run import evaluate_run

SHORT = {"total_steps": 400, "eval_every": 100, "eval_episodes": 2, "final_episodes": 2, "checkpoint_every": 1000}


def small(**options: Any) -> rl.Agent:
    return rl.make("a2c", **{**SHORT, "hidden": (8,), "n_envs": 2, **options})


def timeless(result: dict[str, Any] | None) -> dict[str, Any]:
    assert result is not None
    return {name: value for name, value in result.items() if name not in CLOCKS}


def same(one: rl.Agent, other: rl.Agent) -> bool:
    a, b = one.policy_state(), other.policy_state()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_learning_with_and_without_a_run_directory_gives_the_same(tmp_path: Path) -> None:
    alone, kept = small(), small()
    result = alone.learn()
    assert timeless(result) == timeless(kept.learn(out=tmp_path / "run"))
    assert timeless(result) == timeless(train(rl.A2C, alone.config, tmp_path / "command"))
    assert timeless(json.loads((tmp_path / "run/result.json").read_text())) == timeless(result)
    assert same(alone, kept)
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "command")]
    assert metrics[0] == metrics[1]
    assert not (set(result) & {"stopped_early"})


def test_steps_are_those_of_the_configuration_or_of_the_argument() -> None:
    agent, given = small(), small(total_steps=7)
    agent.learn()
    given.learn(400)
    assert same(agent, given)
    config = agent.config
    with pytest.raises(ValueError, match="total_steps: expected a number, since all 400 steps are done"):
        agent.learn()
    for wrong in (0, 1e5, "x"):
        with pytest.raises(ValueError, match="total_steps: expected an int of at least 1, got"):
            agent.learn(wrong)  # type: ignore[arg-type]
    before = agent.envs.steps
    result = agent.learn(100)
    assert result["env_steps"] >= before + 100
    assert result["steps_per_second"] * result["seconds"] == pytest.approx(agent.envs.steps - before)
    assert agent.config == dataclasses.replace(config, total_steps=before + 100)
    with pytest.raises(ValueError, match="resume: expected None without out"):
        agent.learn(100, resume="auto")


def test_beta_of_a_prioritized_replay_follows_the_steps() -> None:
    options = {"prioritized": True, "learning_starts": 100, "train_freq": 10, "gradient_steps": 1}
    agent = rl.make("dqn", **{**SHORT, **options, "hidden": (8,)})
    agent.set_total_steps(1000)
    assert agent.replay.beta_steps == 90


def test_a_run_is_resumed_in_python(tmp_path: Path) -> None:
    whole, part = small(), small()
    whole.learn(out=tmp_path / "whole")
    train(rl.A2C, part.config, tmp_path / "part", stop_after=150)
    part.learn(out=tmp_path / "part", resume="auto")
    assert same(whole, part)


def test_callback_sees_every_evaluation(tmp_path: Path) -> None:
    reports: list[Report] = []
    agent = small()
    result = agent.learn(out=tmp_path / "run", callback=reports.append)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [report.step for report in reports] == [row["step"] for row in rows]
    assert [report.eval_return for report in reports] == [row["eval_return"] for row in rows]
    for report, row in zip(reports, rows, strict=True):
        assert row == {"step": report.step, "eval_return": report.eval_return, **report.metrics}
        assert report.eval_returns.mean() == report.eval_return
        assert (report.total_steps, report.agent) == (400, agent)
    assert "episode_return" in reports[-1].metrics
    assert reports[-1].best_return == max(report.eval_return for report in reports)
    assert agent.best is not None
    assert agent.best["step"] == result["best_step"]


@pytest.mark.parametrize("out", ["run", None])
def test_callback_ends_the_training(tmp_path: Path, out: str | None) -> None:
    agent = small()
    path = None if out is None else tmp_path / out
    result = agent.learn(out=path, callback=lambda report: report.step < 200)
    assert 200 <= result["env_steps"] < 300
    assert result["stopped_early"] is True
    if path is not None:
        assert timeless(json.loads((path / "result.json").read_text())) == timeless(result)
        assert same(rl.load_run(path, "last"), agent)
    assert agent.learn(100)["env_steps"] >= 300
    assert "stopped_early" not in agent.learn(50, callback=lambda report: False)  # the last evaluation


def test_predicting_does_not_change_the_training() -> None:
    alone, watched = small(), small()
    alone.learn()
    watched.learn(callback=lambda report: report.agent.predict(np.zeros(4), deterministic=False) and None)
    assert same(alone, watched)


def test_predict_takes_one_observation_or_a_batch() -> None:
    agent = small(n_envs=3)
    agent.learn()
    batch = np.random.default_rng(0).standard_normal((20, 4)) * 3
    actions, state = agent.predict(batch)
    assert state is None
    assert (actions == agent.act(batch.astype(np.float32))).all()
    assert set(actions) == {0, 1}
    for one, action in zip(batch, actions, strict=True):
        single, _ = agent.predict(one.tolist())
        assert single == action
        assert np.ndim(single) == 0
        assert agent.spaces[1].contains(single)
    assert agent.predict(np.zeros((0, 4)))[0].shape == (0,)


@pytest.mark.parametrize(
    ("observation", "got"),
    [(np.zeros(3), r"float64 \[3\]"), (np.zeros((2, 2, 4)), r"\[2, 2, 4\]"), (["a"] * 4, r"<U1 \[4\]"), (0.0, r"\[\]")],
)
def test_wrong_observations_are_named(observation: Any, got: str) -> None:
    expected = r"observation: expected float32 \[4\] or a batch \[N, ...\] of it, got .*"
    with pytest.raises(ValueError, match=expected + got):
        small().predict(observation)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^observation: "):
        small().predict([[1, 2, 3, 4], [1, 2, 3]])


def test_a_number_is_no_observation_of_several_values() -> None:
    class Pair(Bandit):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.MultiDiscrete([3, 3])

        def observe(self) -> np.ndarray:
            return np.array([self.state, 0])

    agent = A2C(A2CConfig(hidden=(8,)), envs_in(Pair))
    assert agent.predict([1, 2])[0] in range(3)
    with pytest.raises(ValueError, match=r"observation: expected MultiDiscrete.* or a batch of it, got 3"):
        agent.predict(3)


def test_the_seed_of_an_evaluation_is_checked() -> None:
    with pytest.raises(ValueError, match=r"seed: expected an int in \[0, 2\*\*32\), got -1"):
        small().evaluate(1, seed=-1)


def test_observations_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"observation: expected finite numbers, got array\(\[ 0\., nan"):
        small().predict(np.array([0, np.nan, 0, 0]))


@pytest.mark.parametrize(("name", "options"), [("a2c", {}), ("reinforce", {}), ("dqn", {"final_epsilon": 0.5})])
def test_random_actions_come_from_the_policy(name: str, options: dict[str, Any]) -> None:
    class Two(Scripted):
        def __init__(self) -> None:
            super().__init__(0)

    agent = rl.make(name, Two, hidden=(8,), n_envs=2, **options)
    x = np.tile(np.array([0, 1, 1], np.float32), (4000, 1))
    greedy = agent.predict(x)[0]
    assert len(set(greedy)) == 1
    drawn, _ = agent.predict(x, deterministic=False)
    frequencies = np.bincount(drawn, minlength=5) / len(x)
    if name == "dqn":
        expected = np.full(5, 0.1)
        expected[greedy[0]] = 0.6
    else:
        with torch.no_grad():
            expected = agent.network.policy(torch.from_numpy(x[:1]))[0].softmax(0).numpy()  # type: ignore[attr-defined]
    assert frequencies == pytest.approx(expected, abs=0.04)  # five standard deviations


def dreamer() -> rl.Agent:
    sizes = {"deter": 8, "stoch": 4, "hidden": 8, "units": 8}
    agent = rl.make("dreamer", "CartPole-v1", n_envs=2, **sizes)
    with torch.no_grad():
        for parameter in [*agent.model.parameters(), *agent.actor.parameters()]:
            parameter.mul_(3)  # so that actions depend on the state
    return agent


def test_state_of_dreamer_is_passed_explicitly() -> None:
    agent = dreamer()
    x = np.random.default_rng(0).standard_normal((30, 3, 4)) * 3
    state, found, expected = None, [], []
    starts = np.zeros((30, 3), bool)
    starts[0], starts[10, 1], starts[20] = True, True, True
    for observations, starting in zip(x, starts, strict=True):
        actions, state = agent.predict(observations, state, starting)
        found.append(actions)
        agent.begin(starting)
        expected.append(agent.act(observations.astype(np.float32)))
    assert np.array_equal(found, expected)
    assert state is not None
    assert [part.shape for part in state] == [(3, 8), (3, 4), (3, 2)]
    forgetful = [agent.predict(observations)[0] for observations in x]
    assert not np.array_equal(found, forgetful)


def test_dreamer_predicts_for_one_observation() -> None:
    agent = dreamer()
    action, state = agent.predict(np.zeros(4))
    assert action in (0, 1)
    action, state = agent.predict(np.zeros(4), state, episode_start=False)
    again, _ = agent.predict(np.zeros(4), state, episode_start=True)
    assert again == agent.predict(np.zeros(4))[0]
    drawn = [int(agent.predict(np.zeros(4), deterministic=False)[0]) for _ in range(30)]
    assert set(drawn) == {0, 1}
    with pytest.raises(ValueError, match=r"state: expected arrays \[\[2, 8\], \[2, 4\], \[2, 2\]\], got \[\[1, 8\]"):
        agent.predict(np.zeros((2, 4)), state)
    with pytest.raises(ValueError, match=r"episode_start: expected bool \[1\]"):
        agent.predict(np.zeros(4), state, episode_start=1)


def test_restore_best_needs_training() -> None:
    with pytest.raises(ValueError, match="has not learned yet"):
        small().restore_best()


def test_tensorboard_has_the_groups_of_stable_baselines3(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small().learn(out=tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "eval/mean_reward", "time/fps", "train/policy_loss"}
    assert names <= set(events.Tags()["scalars"])
    assert {name.split("/")[0] for name in events.Tags()["scalars"]} == {"rollout", "eval", "time", "train"}
    assert all(event.value > 0 for event in events.Scalars("time/fps"))
    assert "steps_per_second" not in (tmp_path / "metrics.jsonl").read_text()


def test_policies_are_evaluated_in_environments_like_those_given() -> None:
    """Those of ``env_id`` may have the same spaces, and then the returns would be wrong."""
    config = rl.A2CConfig(total_steps=64, eval_every=64, eval_episodes=1, final_episodes=1)

    def half() -> gymnasium.Env:
        return gymnasium.wrappers.TransformReward(gymnasium.make("CartPole-v1"), lambda reward: reward - 0.5)

    returns = {}
    for env_id in ("", "Other-v0", "CartPole-v1"):  # the last one says that they are the same
        agent = rl.A2C(config, Envs(SyncVectorEnv([half]), 0, env_id=env_id))
        returns[env_id] = agent.evaluate(2)
        assert agent.learn()["env_steps"] >= 64
    assert (returns[""] == returns["Other-v0"]).all()
    assert (2 * returns[""] == returns["CartPole-v1"]).all()


FEW = {"total_steps": 320, "n_envs": 4, "eval_every": 160, "eval_episodes": 4, "final_episodes": 8, "hidden": (8,)}


def sampler(probability: float, **settings: object) -> A2C:
    """Return an agent that takes action 0 with this probability, and one of the two others otherwise."""
    agent = A2C(A2CConfig(hidden=(4,), **settings), envs_in(Bandit))  # type: ignore[arg-type]
    rest = (1 - probability) / 2
    logits = torch.tensor([probability, rest, rest]).log()
    agent.network.policy = lambda x: logits.expand(len(x), 3)  # type: ignore[method-assign]
    return agent


def test_actions_have_the_probabilities_of_the_policy() -> None:
    x = np.zeros((4000, 3), np.float32)
    for eval_sample, share in ((False, 1.0), (True, 0.6)):
        agent = sampler(0.6, eval_sample=eval_sample)
        agent.begin(np.ones(4000, bool))
        actions = agent.evaluation_actions(x)
        assert (actions == 0).mean() == pytest.approx(share, abs=0.03)
        assert (agent.act(x) == 0).all()


def test_an_evaluation_repeats_and_differs_between_environments() -> None:
    agent = sampler(0.4, eval_sample=True)
    rounds = [play(agent.evaluation_actions, envs_in(Bandit, n=64), agent.begin).returns for _ in range(2)]
    assert np.array_equal(*rounds)
    assert rounds[0].std() > 0


def test_training_does_not_depend_on_the_evaluation(tmp_path: Path) -> None:
    runs = {}
    for sample in (False, True):
        runs[sample] = train(A2C, A2CConfig(**FEW, eval_sample=sample), tmp_path / str(sample))  # type: ignore[arg-type]
    losses = []
    for sample in runs:
        lines = (tmp_path / str(sample) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["policy_loss"] for line in lines])
    assert losses[0] == losses[1]
    assert runs[True] != runs[False]
    means = {sample: evaluate_run(tmp_path / str(sample), episodes=40)["eval_return_mean"] for sample in runs}
    assert means[True] != means[False]
    assert means[True] == evaluate_run(tmp_path / "True", episodes=40)["eval_return_mean"]


def test_speeds_after_a_resume_do_not_count_earlier_steps(tmp_path: Path) -> None:
    agent = rl.make("a2c", hidden=(8,), eval_every=80, eval_episodes=1, final_episodes=1, checkpoint_every=80)
    agent.learn(80)
    before = agent.envs.steps
    agent.learn(80, out=tmp_path / "run")
    state = torch.load(max((tmp_path / "run/checkpoints").iterdir()) / "state.pt")
    assert state["start"] == (before, 0)
    training = Training(agent, agent.config)
    training.load_state_dict(state)
    assert training.start == before >= 80


def test_the_number_of_episodes_of_an_evaluation_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = rl.make("a2c", hidden=(8,))
    checked: dict[str, int] = {}
    monkeypatch.setattr(
        "automl_ext.rl.loop.train_config.check_environments", lambda name, n, *others: checked.update({name: n})
    )
    agent.evaluate(7)
    assert checked["episodes"] == 7
