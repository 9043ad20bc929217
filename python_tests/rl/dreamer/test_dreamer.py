"""Dreamer: it learns, exactly resumes, and each part does what the paper says."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
import gymnasium
from compare_runs import newest, same, same_runs
from gymnasium import spaces
from rl_worlds import Scripted
from torch import Tensor

from automl_ext.rl.dreamer import Dreamer, DreamerConfig, train
from automl_ext.rl.dreamer import losses as L
from automl_ext.rl.dreamer.actions import actions_of
from automl_ext.rl.dreamer.imagination import imagine
from automl_ext.rl.dreamer.learner import Learner
from automl_ext.rl.dreamer.rssm import RSSM, Normal
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.loop.agent import envs_of
from automl_ext.rl.loop.evaluate import evaluate
from automl_ext.rl.presets import preset
from automl_ext.rl.replay.sequences import Sequences
from automl_ext.rl.reports.evaluate_run import evaluate_run
from automl_ext.rl.reports.imagination import draw_dream, dream
from automl_ext.rl.reports.plot import plot_runs
from automl_ext.training.errors import UserError


class Line(gymnasium.Env):
    """A point on [−1, 1] that an action moves by at most 0.2; pays its place, for ten steps."""

    def __init__(self, continuous: bool, images: bool = False) -> None:
        shape, kind = ((64, 64, 3), np.uint8) if images else ((2,), np.float32)
        self.observation_space = spaces.Box(0 if images else -1, 255 if images else 1, shape, kind)
        self.action_space = spaces.Box(-3, 1, (1,), np.float32) if continuous else spaces.Discrete(3, start=4)
        self.continuous, self.images = continuous, images

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-0.5, 0.5)), 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        push = (float(action[0]) + 1) / 2 if self.continuous else float(action) - 5
        self.x, self.t = min(max(self.x + 0.2 * push, -1), 1), self.t + 1
        return self._observe(), self.x, False, self.t == 10, {}

    def _observe(self) -> np.ndarray:
        if not self.images:
            return np.array([self.x, self.t / 10], np.float32)
        image = np.zeros((64, 64, 3), np.uint8)
        at = round((self.x + 1) * 28)
        image[28:36, at : at + 8] = 255
        return image


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch):
    def register(build: Any, *args: Any) -> str:
        monkeypatch.setitem(gymnasium.registry, "Small-v0", None)
        del gymnasium.registry["Small-v0"]
        gymnasium.register("Small-v0", functools.partial(build, *args))
        return "Small-v0"

    return register


SIZES = {"deter": 16, "stoch": 4, "hidden": 16, "units": 16, "depth": 2}
SIZES |= {"actor_layers": 1, "value_layers": 1, "continue_layers": 1, "reward_layers": 1, "encoder_layers": 1}
TINY = DreamerConfig(
    **SIZES,
    total_steps=120,
    prefill=40,
    pretrain=1,
    train_every=10,
    batch_size=3,
    sequence_length=5,
    horizon=3,
    eval_every=50,
    eval_episodes=2,
    final_episodes=2,
    checkpoint_every=30,
)


@pytest.mark.parametrize("continuous", [False, True])
def test_it_learns_where_to_go(world, continuous: bool) -> None:
    """Always to the right pays about 6.5, at random about 0, always to the left −6.5."""
    config = dataclasses.replace(
        TINY,
        env_id=world(Line, continuous),
        prefill=200,
        batch_size=8,
        sequence_length=10,
        horizon=6,
        continue_scale=0.0,
        model_lr=3e-3,
        actor_lr=3e-3,
        value_lr=3e-3,
        free_nats=0.1,
        entropy_scale=1e-2,
    )
    agent = Dreamer(config)
    for _ in range(40):
        agent.iterate()
    agent.learn(150)
    assert evaluate(agent.act, envs_of(config, 10, 1), agent.begin).mean() > 4.5


def test_the_gradient_of_imagination_reaches_the_policy_and_not_the_model(world) -> None:
    agent = Dreamer(dataclasses.replace(TINY, env_id=world(Line, True)))
    learner = agent.learner
    agent.iterate()
    start = torch.randn(7, learner.model.features)
    before = [x.clone() for x in (*learner.model.parameters(), *learner.actor.parameters())]
    learner.learn_behaviour(start)
    after = [*learner.model.parameters(), *learner.actor.parameters()]
    changed = [not torch.equal(x, y) for x, y in zip(before, after, strict=True)]
    model_size = len(list(learner.model.parameters()))
    assert not any(changed[:model_size])
    assert all(changed[model_size:])
    assert learner.optimizers[0].vector.grad.eq(0).all()
    assert all(p.requires_grad for p in learner.model.parameters())


def test_nothing_is_imagined_where_an_episode_was_over(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from padding nor from terminal states, and of the others from each."""
    learner = Dreamer(dataclasses.replace(TINY, env_id=world(Line, True))).learner
    valid = torch.tensor([[True, True], [True, True], [True, False]])
    terminated = torch.tensor([[False, False], [False, True], [False, False]])
    observations, actions = torch.randn(3, 2, 2), torch.randn(3, 2, 1)
    sequences = Sequences(observations, actions, torch.randn(3, 2), terminated, valid, valid)
    states: list[Tensor] = []
    learn_dynamics, learn_behaviour = learner.learn_dynamics, learner.learn_behaviour

    def dynamics(*args: Any) -> Any:
        features, measured = learn_dynamics(*args)
        states.append(features)
        return features, measured

    def behaviour(start: Tensor) -> Any:
        states.append(start)
        return learn_behaviour(start)

    monkeypatch.setattr(learner, "learn_dynamics", dynamics)
    monkeypatch.setattr(learner, "learn_behaviour", behaviour)
    assert all(x.isfinite() for x in learner.update(sequences).values())
    features, start = states
    assert torch.equal(start, torch.stack([features[0, 0], features[0, 1], features[1, 0], features[2, 0]]))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])
def test_actions_gradient_is_that_of_the_imagined_sum(space: gymnasium.Space) -> None:
    """By finite differences of a policy's bias, for continuous actions; for discrete ones it is not nothing."""
    torch.manual_seed(0)
    actions = actions_of(space)
    rssm = RSSM(actions.size, 5, deter=6, stoch=3, hidden=7).double().requires_grad_(False)
    bias = torch.zeros(actions.outputs, dtype=torch.float64, requires_grad=True)
    start = torch.randn(4, 9, dtype=torch.float64)
    noise = actions.noise((5, 4), torch.Generator().manual_seed(1)).double()
    state_noise = torch.randn(5, 4, 3, dtype=torch.float64)

    def total(bias: torch.Tensor) -> torch.Tensor:
        found = imagine(rssm, lambda x: bias.expand(len(x), -1), actions, start, noise, state_noise)
        assert [f.shape for f in found.features] == [(4, 9)] * 6
        assert found.entropy.shape == (5, 4)
        return sum(f.sin().sum() for f in found.features)

    if isinstance(space, spaces.Box):
        assert torch.autograd.gradcheck(total, (bias,))
    else:
        (gradient,) = torch.autograd.grad(total(bias), bias)
        assert gradient.abs().min() > 0
        assert gradient.sum().abs() < 1e-9  # a softmax does not change with a constant


def test_rssm_goes_along_sequences_as_step_by_step() -> None:
    torch.manual_seed(0)
    rssm = RSSM(2, 5, deter=6, stoch=3, hidden=7)
    embeddings, actions, noise = torch.randn(4, 2, 5), torch.randn(4, 2, 2), torch.randn(4, 2, 3)
    unrolled = rssm.observe(embeddings, actions, noise)
    assert unrolled.features.shape == (4, 2, 9)
    assert [x.shape for x in (*unrolled.posterior, *unrolled.prior)] == [(4, 2, 3)] * 4
    deter, stoch = rssm.initial(2)
    for t in range(4):
        x = torch.nn.functional.elu(rssm.from_stoch(stoch) + rssm.from_action(actions[t]))
        deter = rssm.cell(x, deter)
        hidden = torch.nn.functional.elu(rssm.from_deter(deter) + rssm.from_embedding(embeddings[t]))
        mean, raw = rssm.posterior_out(hidden).chunk(2, -1)
        std = torch.nn.functional.softplus(raw) + 0.1
        stoch = mean + std * noise[t]
        torch.testing.assert_close(unrolled.posterior.std[t], std)
        torch.testing.assert_close(unrolled.features[t], torch.cat([deter, stoch], -1))
        torch.testing.assert_close(unrolled.prior.mean[t], rssm.prior(deter).mean)


def test_losses() -> None:
    p = Normal(torch.randn(5, 3), torch.rand(5, 3) + 0.1)
    q = Normal(torch.randn(5, 3), torch.rand(5, 3) + 0.1)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(*p), torch.distributions.Normal(*q)).sum(-1)
    torch.testing.assert_close(L.kl_divergence(p, q), kl)
    few, many = torch.tensor(2.0, requires_grad=True), torch.tensor(4.0, requires_grad=True)
    (L.free_nats_loss(few, 3.0) + L.free_nats_loss(many, 3.0)).backward()
    assert (few.grad, many.grad) == (0, 1)
    terminated = torch.tensor([True, False])
    confident = L.continue_loss(torch.tensor([-9.0, 9.0]), terminated)
    assert confident.max() < 1e-3 < 8 < L.continue_loss(torch.tensor([9.0, -9.0]), terminated).min()
    valid = torch.tensor([[True, True], [True, False]])
    assert L.masked_mean(torch.tensor([[1.0, 2.0], [3.0, 99.0]]), valid) == 2


def test_imagined_returns_stop_counting_where_the_episode_is_over() -> None:
    rewards, values = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    continues = torch.tensor([[1.0], [0.0], [1.0]], requires_grad=True)
    returns, weights = L.imagined_returns(rewards, values, continues, 0.5, 1.0)
    assert returns.flatten().tolist() == [1 + 0.5 * 2, 2, 4 + 0.5 * 30]
    assert weights.flatten().tolist() == [1, 0.5, 0]
    returns[0].sum().backward()
    assert continues.grad.flatten().tolist() == [0.5 * 2, 0.5 * 0.5 * (4 + 0.5 * 30), 0]
    assert L.imagined_returns(rewards, values, None, 0.5, 0.0)[0].flatten().tolist() == [6, 12, 19]


@pytest.mark.parametrize("continuous", [False, True])
def test_interrupted_and_resumed_is_the_uninterrupted_run(tmp_path: Path, continuous: bool) -> None:
    config = dataclasses.replace(TINY, env_id="Pendulum-v1" if continuous else "CartPole-v1", n_envs=2)
    train(config, tmp_path / "whole")
    parts = tmp_path / "parts"
    assert train(config, parts, stop_after=25) is None  # before anything is learned
    assert train(config, parts, resume="auto", stop_after=41) is None
    result = train(config, parts, resume="auto")
    assert result is not None
    assert result["updates"] == newest(parts)[1]["agent"]["learner"]["updates"] == 10  # one more at first
    assert result["updates_per_second"] > 0
    same_runs(tmp_path / "whole", parts, {"updates_per_second"})


KILLABLE = """
import json, sys
from automl_ext.rl.dreamer import DreamerConfig, train
train(DreamerConfig(**json.loads(sys.argv[2])), sys.argv[1], resume="auto")
"""


@pytest.mark.slow  # quicker: test_interrupted_and_resumed_is_the_uninterrupted_run, and rl_killed.py on a toy
def test_killed_is_uninterrupted(tmp_path: Path) -> None:
    settings = SIZES | {"total_steps": 300, "prefill": 40, "pretrain": 1, "train_every": 5, "batch_size": 3}
    settings |= {"sequence_length": 5, "horizon": 3, "eval_every": 100, "eval_episodes": 2, "final_episodes": 2}

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", KILLABLE, str(out), json.dumps(settings | {"checkpoint_every": 20})]
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert start(tmp_path / "whole").wait(300) == 0
    killed = tmp_path / "killed"
    process = start(killed)
    while not any(int(p.name.split("-")[-1]) >= 160 for p in killed.glob("checkpoints/step-*")):
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "result.json").exists()
    assert start(killed).wait(300) == 0
    same_runs(tmp_path / "whole", killed, {"updates_per_second"})


def test_where_environments_cannot_be_saved_new_episodes_begin(tmp_path: Path, world) -> None:
    config = dataclasses.replace(TINY, env_id=world(Line, False), train_every=7)
    train(config, tmp_path / "run", stop_after=60)
    before = newest(tmp_path / "run")[1]["agent"]["replay"]
    with pytest.warns(UserWarning, match="its state cannot be saved; new episodes start"):
        train(config, tmp_path / "run", resume="auto", stop_after=4)
    after = newest(tmp_path / "run")[1]["agent"]["replay"]
    assert max(before["lengths"]) <= max(after["lengths"]) == 11
    assert after["lengths"][: len(before["lengths"])] == before["lengths"]
    assert after["lengths"][len(before["lengths"])] == before["going_on"][0]  # cut where the run was


def test_nothing_is_remembered_across_episodes() -> None:
    agent = Dreamer(dataclasses.replace(TINY, env_id="Pendulum-v1", n_envs=2))
    agent.begin(np.array([True, True]))
    rng = np.random.default_rng(0)
    first = rng.standard_normal((3, 2, 3)).astype(np.float32)
    alone = [agent.act(x) for x in first]
    agent.act(first[0])
    agent.begin(np.array([True, False]))
    again = [agent.act(x) for x in first]
    for t in range(3):
        assert np.array_equal(alone[t][0], again[t][0])
        assert not np.array_equal(alone[t][1], again[t][1])
    agent.begin(np.ones(5, bool))  # other environments
    assert agent.act(np.zeros((5, 3), np.float32)).shape == (5, 1)


def test_in_training_the_memory_begins_with_the_episode(world) -> None:
    """Scripted's episodes have two to four steps; whatever went before, the state at the first observation is alike."""
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    from automl_ext.rl.envs.vector import Envs

    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        vector = SyncVectorEnv([functools.partial(Scripted, i) for i in range(2)], autoreset_mode=mode)
        agent = Dreamer(dataclasses.replace(TINY, prefill=0), Envs(vector, 0))
        starts = []
        for _ in range(20):
            starting = agent.envs.starting
            assert np.array_equal(starting, agent.envs.observations[:, 2] == 0)
            agent.memory = agent.memory.forget(starting)
            assert agent.memory.deter[starting].abs().sum() == 0
            assert agent.memory.action[~starting].abs().sum(1).bool().all()
            starts.append(starting)
            actions = agent.explore(agent.envs.observations)
            agent.envs.step(agent.actions.to_env(actions))
        assert np.sum(starts, 0).min() >= 4


def test_an_evaluation_leaves_training_as_it_was(tmp_path: Path) -> None:
    for name, every in (("one", 120), ("two", 10)):
        train(dataclasses.replace(TINY, eval_every=every), tmp_path / name)
    same(*(newest(tmp_path / name)[1]["agent"] for name in ("one", "two")))


@pytest.mark.parametrize(
    "space", [spaces.MultiDiscrete([2, 2]), spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(0, 3, (1,), np.int64)]
)
def test_actions_it_does_not_take(space: gymnasium.Space) -> None:
    with pytest.raises(UserError, match="dreamer takes Discrete and bounded Box"):
        actions_of(space)


@pytest.mark.parametrize(
    ("space", "given", "expected"),
    [
        (spaces.Discrete(3, start=4), [[0, 0, 1], [1, 0, 0]], [6, 4]),
        (spaces.Box(np.float32([-2, 0]), np.float32([2, 1])), [[0, 0], [1, -1]], [[0, 0.5], [2, 0]]),
    ],
)
def test_actions_as_the_environment_wants_them(space: gymnasium.Space, given: list, expected: list) -> None:
    actions = actions_of(space)
    to_env = actions.to_env(torch.tensor(given, dtype=torch.float32))
    assert to_env.tolist() == expected
    assert all(space.contains(a) for a in to_env)
    drawn = actions.random(50, torch.Generator().manual_seed(0))
    assert all(space.contains(a) for a in actions.to_env(drawn))
    noisy = actions.explore(drawn, 0.5, torch.Generator().manual_seed(0))
    assert (noisy != drawn).any(1).any()
    assert all(space.contains(a) for a in actions.to_env(noisy))


def test_observations_it_does_not_take(world) -> None:
    config = dataclasses.replace(TINY, env_id="FrozenLake-v1")
    with pytest.raises(UserError, match="observations"):
        Dreamer(config)


def test_images(world) -> None:
    config = preset("pixels", dataclasses.replace(TINY, env_id=world(Line, True, True)))
    small = {name: getattr(TINY, name) for name in (*SIZES, "prefill", "pretrain", "batch_size", "sequence_length")}
    agent = Dreamer(dataclasses.replace(config, **small, train_every=50, horizon=3, env=EnvOptions()))
    agent.iterate()
    first = agent.learn(1)["observation_loss"]
    assert agent.replay.episodes[0].arrays["observations"].dtype == np.uint8
    assert agent.learn(15)["observation_loss"] < first
    sequences = agent.replay.sample(2, 5)
    prepared = agent.learner.model.prepare(sequences.observations)
    assert (prepared.min(), prepared.max()) == (-0.5, 0.5)
    decoded = agent.learner.model.decode(torch.zeros(5, 2, agent.learner.model.features))
    assert decoded.shape == prepared.shape


@pytest.mark.parametrize(
    ("name", "value"), [("horizon", 0), ("sequence_length", 1), ("prefill", -1), ("gamma", 1.5), ("observation_std", 0)]
)
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        DreamerConfig(**{name: value})


def test_presets_are_of_some_algorithm(tmp_path: Path) -> None:
    assert preset("vector", DreamerConfig()).prefill <= 1000
    with pytest.raises(UserError, match=r"--preset: expected one of .*, got 'minatar'"):
        preset("minatar", DreamerConfig())


def test_no_reward_is_learned_where_none_was_paid() -> None:
    def reward_loss(rewards: Tensor) -> float:
        learner = Learner(TINY, spaces.Box(-1, 1, (3,), np.float32), actions_of(spaces.Discrete(2)), (0, 1))
        all_valid, paid = torch.ones(4, 2, dtype=torch.bool), torch.ones(4, 2, dtype=torch.bool)
        paid[0, 0] = False
        observations, actions = torch.ones(4, 2, 3), torch.zeros(4, 2, 2)
        sequences = Sequences(observations, actions, rewards, ~all_valid, all_valid, paid)
        return float(learner.learn_dynamics(sequences)[1]["reward_loss"])

    ones = torch.ones(4, 2)
    first, other = ones.clone(), ones.clone()
    first[0, 0], other[0, 1] = 5, 5
    assert reward_loss(first) == reward_loss(ones) != reward_loss(other)


def test_at_the_papers_size() -> None:
    """Its layers' parameters, counted by hand, and an update of one short sequence."""
    config = preset("paper", DreamerConfig())
    action_space = spaces.Box(-1, 1, (6,), np.float32)
    learner = Learner(config, spaces.Box(0, 255, (64, 64, 3), np.uint8), actions_of(action_space), (0, 1))

    def dense(*sizes: int) -> int:
        return sum((i + 1) * o for i, o in itertools.pairwise(sizes))

    def convolution(inputs: int, outputs: int, side: int) -> int:
        return inputs * outputs * side**2 + outputs

    encoder = sum(convolution(i, o, 4) for i, o in ((3, 32), (32, 64), (64, 128), (128, 256)))
    decoder = dense(230, 1024) + convolution(1024, 128, 5) + convolution(128, 64, 5)
    decoder += convolution(64, 32, 6) + convolution(32, 3, 6)
    gru = 3 * (200 * 200 + 200 * 200 + 2 * 200)
    rssm = dense(30 + 6, 200) + gru + dense(200, 200, 60) + dense(200 + 1024, 200, 60)
    reward = dense(230, 400, 400, 1)
    assert sum(p.numel() for p in learner.model.parameters()) == encoder + decoder + rssm + reward
    assert learner.optimizers[1].vector.numel() == dense(230, 400, 400, 400, 400, 12)
    assert learner.optimizers[2].vector.numel() == dense(230, 400, 400, 400, 1)
    sequences = Sequences(
        torch.randint(256, (3, 1, 64, 64, 3), dtype=torch.uint8),
        torch.rand(3, 1, 6),
        torch.rand(3, 1),
        torch.zeros(3, 1, dtype=torch.bool),
        torch.ones(3, 1, dtype=torch.bool),
        torch.ones(3, 1, dtype=torch.bool),
    )
    before = [optimizer.vector.detach().clone() for optimizer in learner.optimizers]
    measured = learner.update(sequences)
    assert all(np.isfinite(float(x)) for x in measured.values())
    for optimizer, old, lr in zip(learner.optimizers, before, (6e-4, 8e-5, 8e-5), strict=True):
        change = (optimizer.vector.detach() - old).abs().max()
        assert change == pytest.approx(lr, rel=0.01)  # Adam's first step


def test_a_dream_is_real_as_long_as_it_sees(world, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for images in (False, True):
        config = dataclasses.replace(TINY, env_id=world(Line, True, images))
        agent = Dreamer(config)
        found = dream(agent, envs_of(config, 1, 0), context=4)
        assert found.context == 4
        assert len(found.real) == len(found.imagined) == len(found.imagined_rewards) == 11
        assert found.real_rewards[1:].any()
        assert found.real.shape == found.imagined.shape
        draw_dream(found, tmp_path / "dream.png")
        assert (tmp_path / "dream.png").stat().st_size > 2000
    short = dream(agent, envs_of(config, 1, 0), context=50, steps=3)
    assert len(short.real) == short.context == 4


def test_runs_are_drawn_beside_those_of_others(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from automl_ext.rl.actor_critic import a2c

    train(TINY, tmp_path / "dreamer")
    settings = {"total_steps": 200, "eval_every": 100, "eval_episodes": 1, "final_episodes": 1}
    a2c.train(a2c.A2CConfig(**settings), tmp_path / "a2c")
    written = plot_runs([tmp_path / "dreamer", tmp_path / "a2c"], tmp_path)
    assert [path.name for path in written] == ["curves.png", "imagined.png", "curves.png", "learning.png"]
    assert evaluate_run(tmp_path / "dreamer", 2)["policy"] == "best"
