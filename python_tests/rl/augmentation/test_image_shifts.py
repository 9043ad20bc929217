"""Augmentation of images: shifts, RAD and DrQ in Q-learning, DrAC in A2C."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("gymnasium")
from gymnasium.vector import AutoresetMode
from policy_worlds import World, envs_in
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence

from automl_ext.cli import main
from automl_ext.rl import A2C, DQN, A2CConfig, Batch, DQNConfig
from automl_ext.rl.augmentation.batches import ShiftedBatch, average_copies
from automl_ext.rl.augmentation.drac import DrAC
from automl_ext.rl.augmentation.shift import RandomShift, image_axes, random_shift
from automl_ext.rl.envs.catch import Catch
from automl_ext.rl.loop.extensions import Acted
from automl_ext.rl.networks.distributions import Categorical as CategoricalPolicy
from automl_ext.rl.networks.distributions import DiagonalGaussian
from automl_ext.training.seeding import generator

CATCH = "automl_ext/Catch-v0"


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator(1), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(64, 3, 7, 9), (64, 7, 9, 3), (64, 2, 7, 9, 3)], ids=str)
def test_shift_equals_padding_and_cropping(shape: tuple[int, ...]) -> None:
    """Every result is one of the 25 crops of the image padded with its border; all crops occur."""
    first = 2 if shape[-1] == 9 else len(shape) - 3
    x, axes = images(*shape), (first, first + 1)
    shifted = random_shift(x, 2, generator(0), axes)
    assert (shifted.shape, shifted.dtype) == (x.shape, x.dtype)
    planes = x.movedim(axes, (-2, -1))
    padded = F.pad(planes.reshape(64, -1, 7, 9).float(), (2, 2, 2, 2), mode="replicate")
    result, found = shifted.movedim(axes, (-2, -1)).reshape(64, -1, 7, 9).float(), set()
    for i in range(64):
        crops = {(r, c): padded[i, :, r : r + 7, c : c + 9] for r in range(5) for c in range(5)}
        place = [k for k, crop in crops.items() if torch.equal(crop, result[i])]
        assert len(place) == 1
        found.add(place[0])
    assert len(found) > 15
    assert {r for r, _ in found} == {c for _, c in found} == {0, 1, 2, 3, 4}


def test_axes_of_images() -> None:
    cases = {(4, 84, 84): (2, 3), (128, 84, 84): (2, 3), (10, 10, 4): (1, 2), (10, 10, 10): (1, 2), (64, 48, 3): (1, 2)}
    for shape, axes in (cases | {(3, 64, 48): (2, 3), (4, 64, 64, 3): (2, 3)}).items():
        assert image_axes(shape) == axes, shape


def test_observations_that_cannot_be_shifted_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, text in (
        (["dqn", "--augment", "rad"], "augment: expected images, [n, n, channels] or [channels, n, n], got "),
        (["a2c", "--drac", "0.1"], "drac: expected images"),
        (["dqn", "--env-id", CATCH, "--augment", "drq", "--augment-shift", "14"], "augment_shift: expected below the "),
    ):
        assert main(["train", *flags, "--out", str(tmp_path / "run")]) == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def dqn(**options: Any) -> DQN:
    settings: dict[str, Any] = {"n_envs": 4, "hidden": (16,), "batch_size": 8, "learning_starts": 0, "train_freq": 4}
    settings |= {"gradient_steps": 1, "env_id": CATCH, "augment_shift": 2, "total_steps": 1_000}
    return DQN(DQNConfig(**(settings | options)))


def filled(agent: DQN) -> DQN:
    while agent.envs.steps < 60:
        agent.replay.add(agent.envs.step(agent.explore(agent.envs.observations)))
    return agent


class Recorded(ShiftedBatch):
    """Keep the batch before and after the augmentation."""

    def __call__(self, batch: Batch) -> Batch:
        self.seen = batch, super().__call__(batch)
        return self.seen[1]


def test_drq_averages_the_targets_and_the_loss_over_two_shifts() -> None:
    """The gradient equals that of eq. 1 to 3 of Yarats et al. 2021, computed from the same shifts."""
    agent = filled(dqn(augment="drq", double=True, max_grad_norm=1e9))
    learner = agent.learner
    assert learner.augmentation is not None
    learner.augmentation = recorded = Recorded(learner.augmentation.shift, learner.augmentation.copies)
    before = {name: p.detach().clone() for name, p in learner.online.named_parameters()}
    learner.update(agent.replay, 1)
    gradient = torch.cat([p.grad.flatten() for p in learner.online.parameters() if p.grad is not None])
    (batch, shifted), n = recorded.seen, 8
    for field in ("actions", "returns", "discounts", "terminated", "indices"):
        assert torch.equal(getattr(shifted, field), torch.cat([getattr(batch, field)] * 2)), field
    assert not torch.equal(shifted.observations[:n], shifted.observations[n:])
    learner.online.load_state_dict(before, strict=False)
    with torch.no_grad():
        targets = []
        for k in range(2):
            following = shifted.next_observations[k * n : (k + 1) * n]
            best = learner.online(following).argmax(1, keepdim=True)
            value = learner.target(following).gather(1, best).squeeze(1)
            targets.append(batch.returns + batch.discounts * value)
        y = (targets[0] + targets[1]) / 2
    loss = 0.0
    for m in range(2):
        q = learner.online(shifted.observations[m * n : (m + 1) * n]).gather(1, batch.actions[:, None]).squeeze(1)
        loss = loss + F.smooth_l1_loss(q, y) / 2
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.online.parameters()))])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_average_of_distributions() -> None:
    probs = torch.rand(6, 5, generator=generator(0)).softmax(-1)
    expected = (probs[:3] + probs[3:]) / 2
    assert torch.equal(average_copies(probs, 2), torch.cat([expected, expected]))


def test_rad_shifts_the_batch() -> None:
    agent = filled(dqn(augment="rad"))
    batch = agent.replay.sample(200)
    assert agent.learner.augmentation is not None
    shifted = agent.learner.augmentation(batch)
    for field in fields(batch):
        same = torch.equal(getattr(shifted, field.name), getattr(batch, field.name))
        assert same == (not field.name.endswith("observations")), field.name


@pytest.mark.parametrize("switches", [{"prioritized": True}, {"distributional": True, "n_step": 3}], ids=str)
def test_drq_with_other_parts(switches: dict[str, Any]) -> None:
    agent = filled(dqn(augment="drq", **switches))
    agent.learner.update(agent.replay, 3)
    assert agent.learner.updates == 3


def test_divergence_equals_that_of_torch() -> None:
    p, q = torch.randn(2, 5, 3, generator=generator(0))
    policy = CategoricalPolicy(gymnasium.spaces.Discrete(3))
    expected = kl_divergence(Categorical(logits=p), Categorical(logits=q))
    torch.testing.assert_close(policy.divergence(p, q), expected)
    gauss = DiagonalGaussian(gymnasium.spaces.Box(-1, 1, (3,), np.float32))
    gauss.log_std.data = torch.tensor([-0.5, 0.0, 1.0])
    std = gauss.log_std.exp()
    expected = kl_divergence(Normal(p, std), Normal(q, std)).sum(-1)
    torch.testing.assert_close(gauss.divergence(p, q), expected.detach())


def a2c(**options: Any) -> A2C:
    settings: dict[str, Any] = {"env_id": CATCH, "n_envs": 4, "hidden": (16,), "drac": 0.5, "augment_shift": 2}
    return A2C(A2CConfig(**(settings | options)))


def test_drac_loss_and_its_targets() -> None:
    agent = a2c()
    (term,) = agent.extra_losses
    assert isinstance(term, DrAC)
    observations = torch.from_numpy(np.concatenate([agent.envs.observations] * 2))
    weights = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.25, 0, 0, 0])
    other = RandomShift("drac", agent.envs.observation_space, 2, 0)
    other.load_state_dict(term.state_dict())
    loss, metrics = term.loss(agent.network, Acted(observations, torch.zeros(8, dtype=torch.int64), weights))
    with torch.no_grad():
        logits, values = agent.network(observations)
    shifted_logits, shifted_values = agent.network(other(observations))
    kl = kl_divergence(Categorical(logits=logits), Categorical(logits=shifted_logits))
    expected = 0.5 * (weights * (kl + (values - shifted_values) ** 2)).sum()
    torch.testing.assert_close(loss, expected)
    assert loss.item() == pytest.approx(0.5 * (metrics["drac_policy"] + metrics["drac_value"]).item())
    gradients = [torch.autograd.grad(x, list(agent.network.parameters())) for x in (loss, expected)]
    torch.testing.assert_close(*gradients)  # none through the original observations


def test_drac_makes_the_policy_invariant() -> None:
    agent = a2c(drac=1.0)
    (term,) = agent.extra_losses
    agent.network.policy_head.weight.data.mul_(100)  # far from the uniform policy
    rng = np.random.default_rng(0)
    observations = torch.from_numpy(rng.integers(0, 2, (64, 14, 14, 1)).astype(np.uint8) * 255)
    batch = Acted(observations, torch.zeros(64, dtype=torch.int64), torch.full((64,), 1 / 64))
    optimizer = torch.optim.Adam(agent.network.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        agent.parameters.grad.zero_()
        loss, _ = term.loss(agent.network, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


class Bars(World):
    """A contextual bandit: the action must be the direction of a bar in the middle of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 255, (9, 9, 1), np.uint8)

    def first(self) -> int:
        return int(self.np_random.integers(2))

    def move(self, action: int) -> tuple[float, bool, bool]:
        return float(action == self.state), True, False

    def observe(self) -> np.ndarray:
        return self.bar(self.state, 4, 4)

    @staticmethod
    def bar(direction: int, row: int, column: int) -> np.ndarray:
        image = np.zeros((9, 9, 1), np.uint8)
        if direction:
            image[row, column - 1 : column + 2] = 255
        else:
            image[row - 1 : row + 2, column] = 255
        return image


def test_drac_generalizes_to_places_that_training_does_not_show() -> None:
    places = [(row, column) for row in range(2, 7) for column in range(2, 7)]
    images = np.array([Bars.bar(direction, *place) for direction in (0, 1) for place in places])
    correct = {}
    for weight in (0.0, 1.0):
        config = A2CConfig(hidden=(32,), optimizer="adam", lr=2e-3, ent_coef=0.01, drac=weight, augment_shift=2)
        agent = A2C(config, envs_in(Bars, mode=AutoresetMode.SAME_STEP))
        for _ in range(150):
            agent.iterate()
        actions = agent.act(images)
        assert actions[[12, 37]].tolist() == [0, 1]  # the places of the training
        correct[weight] = float(np.mean(actions == np.repeat([0, 1], len(places))))
    assert correct[1.0] > 0.95
    assert correct[0.0] < 0.8


def test_catch() -> None:
    """The ball falls one row per step; the reward tells whether the paddle is below it; boards are at all places."""
    env, corners, rewards = Catch(), set(), []
    for episode in range(200):
        observation, _ = env.reset(seed=0 if episode == 0 else None)
        assert env.observation_space.contains(observation)
        over, steps = False, 0
        while not over:
            ball, paddle = env.column, env.paddle
            action = 1 + np.sign(ball - paddle) if episode % 2 else 1
            previous = np.argwhere(observation[..., 0])
            observation, reward, over, truncated, _ = env.step(action)
            steps += 1
            assert not truncated
            assert over or len(previous) == 2
        rewards.append(reward)
        assert steps == 6
        corners.add((env.top, env.left))
    assert len(corners) == 16
    assert set(rewards[1::2]) == {1.0}  # six steps are enough to reach every column
    assert set(rewards[0::2]) == {1.0, -1.0}


RUNS = {
    "dqn": ["--augment", "drq", "--buffer-size", "300", "--learning-starts", "50", "--train-freq", "40"],
    "a2c": ["--drac", "0.1"],
}


@pytest.mark.parametrize("name", RUNS)
def test_resumed_run_equals_uninterrupted_run(name: str, tmp_path: Path) -> None:
    flags = ["train", name, "--env-id", CATCH, "--total-steps", "400", "--n-envs", "4", "--hidden", "16"]
    flags += ["--augment-shift", "2", "--checkpoint-every", "100", "--eval-every", "200", "--eval-episodes", "4"]
    flags += ["--final-episodes", "4", *RUNS[name]] + ["--gradient-steps", "2"] * (name == "dqn")
    assert main([*flags, "--out", str(tmp_path / "whole")]) == 0
    assert main([*flags, "--out", str(tmp_path / "halted"), "--stop-after", "230"]) in (0, 3)
    assert not (tmp_path / "halted/result.json").exists()
    assert main([*flags, "--out", str(tmp_path / "halted"), "--resume", "auto"]) == 0
    runs = [tmp_path / run for run in ("whole", "halted")]
    assert len({(run / "metrics.jsonl").read_text() for run in runs}) == 1
    assert len({json.loads((run / "result.json").read_text())["eval_return_mean"] for run in runs}) == 1
    states = [torch.load(run / "best.pt", weights_only=True)["policy"] for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    if name == "a2c":
        assert "drac_policy" in (tmp_path / "whole/metrics.jsonl").read_text()
