"""Random shifts of images: crops, RAD and DrQ in Q-learning."""

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
from torch import Tensor

from automl_ext.cli import main
from automl_ext.rl import DQN, Batch, DQNConfig
from automl_ext.rl.envs.catch import Catch
from automl_ext.rl.extras import Extras, Shift
from automl_ext.rl.extras.shift import ShiftedBatch, image_axes, random_shift
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
        assert image_axes(gymnasium.spaces.Box(0, 1, shape)) == axes, shape


def test_observations_that_cannot_be_shifted_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, text in (
        (["dqn", "--shift.copies", "1"], "shift: expected images, [n, n, channels] or [channels, n, n], got "),
        (["dqn", "--env-id", CATCH, "--shift.copies", "2", "--shift.pixels", "14"], "shift.pixels: expected below "),
    ):
        assert main(["train", *flags, "--out", str(tmp_path / "run")]) == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def dqn(copies: int, **options: Any) -> DQN:
    settings: dict[str, Any] = {"n_envs": 4, "hidden": (16,), "batch_size": 8, "learning_starts": 0, "train_freq": 4}
    settings |= {"gradient_steps": 1, "env_id": CATCH, "total_steps": 1_000, "extras": Extras.of([Shift(copies, 2)])}
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
    agent = filled(dqn(2, double=True, max_grad_norm=1e9))
    (shift,) = agent.seams.batch
    assert isinstance(shift, ShiftedBatch)
    agent.seams.batch[0] = recorded = Recorded(shift.axes, shift.pixels, shift.copies, shift.rng)
    before = {name: p.detach().clone() for name, p in agent.online.named_parameters()}
    agent.update(1)
    gradient = torch.cat([p.grad.flatten() for p in agent.online.parameters() if p.grad is not None])
    (batch, shifted), n = recorded.seen, 8
    for field in ("actions", "returns", "discounts", "terminated", "indices"):
        assert torch.equal(getattr(shifted, field), torch.cat([getattr(batch, field)] * 2)), field
    assert not torch.equal(shifted.observations[:n], shifted.observations[n:])
    agent.online.load_state_dict(before, strict=False)
    with torch.no_grad():
        targets = []
        for k in range(2):
            following = shifted.next_observations[k * n : (k + 1) * n]
            best = agent.online(following).argmax(1, keepdim=True)
            value = agent.target(following).gather(1, best).squeeze(1)
            targets.append(batch.returns + batch.discounts * value)
        y = (targets[0] + targets[1]) / 2
    loss = 0.0
    for m in range(2):
        q = agent.online(shifted.observations[m * n : (m + 1) * n]).gather(1, batch.actions[:, None]).squeeze(1)
        loss = loss + F.smooth_l1_loss(q, y) / 2
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(agent.online.parameters()))])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_average_of_distributions() -> None:
    probs = torch.rand(6, 5, generator=generator(0)).softmax(-1)
    expected = (probs[:3] + probs[3:]) / 2
    found = ShiftedBatch((2, 3), 1, 2, generator(0)).targets(probs)
    assert torch.equal(found, torch.cat([expected, expected]))


def test_rad_shifts_the_batch() -> None:
    agent = filled(dqn(1))
    batch = agent.replay.sample(200)
    shifted = agent.seams.transformed(batch)
    for field in fields(batch):
        same = torch.equal(getattr(shifted, field.name), getattr(batch, field.name))
        assert same == (not field.name.endswith("observations")), field.name


@pytest.mark.parametrize("switches", [{"prioritized": True}, {"distributional": True, "n_step": 3}], ids=str)
def test_drq_with_other_parts(switches: dict[str, Any]) -> None:
    agent = filled(dqn(2, **switches))
    agent.update(3)
    assert agent.updates == 3


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


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    flags = ["train", "dqn", "--env-id", CATCH, "--total-steps", "400", "--n-envs", "4", "--hidden", "16"]
    flags += ["--shift.pixels", "2", "--checkpoint-every", "100", "--eval-every", "200", "--eval-episodes", "4"]
    flags += ["--final-episodes", "4", "--shift.copies", "2", "--buffer-size", "300", "--learning-starts", "50"]
    flags += ["--train-freq", "40", "--gradient-steps", "2"]
    assert main([*flags, "--out", str(tmp_path / "whole")]) == 0
    assert main([*flags, "--out", str(tmp_path / "halted"), "--stop-after", "230"]) in (0, 3)
    assert not (tmp_path / "halted/result.json").exists()
    assert main([*flags, "--out", str(tmp_path / "halted"), "--resume", "auto"]) == 0
    runs = [tmp_path / run for run in ("whole", "halted")]
    assert len({(run / "metrics.jsonl").read_text() for run in runs}) == 1
    assert len({json.loads((run / "result.json").read_text())["eval_return_mean"] for run in runs}) == 1
    states = [torch.load(run / "best.pt", weights_only=True)["policy"] for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
