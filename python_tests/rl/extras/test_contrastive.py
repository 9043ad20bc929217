"""Prediction of latent states: formulas, moving averages, what the encoder learns, and resumed runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
from gymnasium.spaces import Box
from torch import Tensor

from automl_ext.cli import main
from automl_ext.rl import A2C, DQN, A2CConfig, Batch, DQNConfig, EnvOptions
from automl_ext.rl.extras import Contrastive, Extras, Shift
from automl_ext.rl.extras.contrastive import MOMENTUM, LatentPrediction, contrastive_loss
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.training.errors import UserError
from automl_ext.training.seeding import generator

NOISE = "automl_ext.rl.envs.wrappers:NoiseDimensions"


def batch_of(observations: Tensor, actions: Tensor, following: Tensor) -> Batch:
    n = len(actions)
    zeros, no = torch.zeros(n), torch.zeros(n, dtype=torch.bool)
    return Batch(observations, actions, zeros, following, zeros, no, torch.ones(n), torch.arange(n))


def network(inputs: int = 6, actions: int = 3) -> QNetwork:
    torch.manual_seed(0)
    return QNetwork(Box(-9, 9, (inputs,)), actions, (16, 8))


def test_loss() -> None:
    p, t = torch.randn(2, 5, 4, generator=generator(0), dtype=torch.float64)
    p_unit, t_unit = p / p.norm(dim=1, keepdim=True), t / t.norm(dim=1, keepdim=True)
    exps = (p_unit @ t_unit.T / 0.5).exp()
    expected = -np.mean([np.log((exps[i, i] / exps[i].sum()).item()) for i in range(5)])
    assert contrastive_loss(p, t, 0.5).item() == pytest.approx(expected)


def test_targets_come_from_a_moving_average_and_have_no_gradient() -> None:
    online = network()
    term = LatentPrediction(2.0, online, 1e-3, seed=1)
    old_encoder, old_projection = copy.deepcopy(term.encoder), copy.deepcopy(term.models["projection"])
    with torch.no_grad():
        for p in term.encoder.parameters():
            p.add_(1.0)
    s, following = torch.randn(2, 7, 6, generator=generator(0))
    actions = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    loss, metrics = term.loss(online, batch_of(s, actions, following))
    assert metrics["contrastive"].item() == pytest.approx(loss.item() / 2)
    with torch.no_grad():
        for average, p in zip(old_encoder.parameters(), term.encoder.parameters(), strict=True):
            average.copy_(MOMENTUM * average + (1 - MOMENTUM) * p)
        targets = old_projection(old_encoder(following))
    inputs = torch.cat([term.encoder(s), torch.eye(3)[actions]], 1)
    predictions = term.models["predictor"](term.models["projection"](term.models["model"](inputs)))
    expected = 2 * contrastive_loss(predictions, targets)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(x, list(term.encoder.parameters())) for x in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0][0].norm() > 0


def test_encoder_learns_what_can_be_predicted() -> None:
    """The action rotates a state of two dimensions; eight more are noise. The encoder leaves the noise out."""
    online, rng = network(10, 2), np.random.default_rng(0)
    term = LatentPrediction(1.0, online, 3e-3, seed=1)
    optimizer = torch.optim.Adam(term.encoder.parameters(), 3e-3)

    def part_of_noise() -> float:
        weight = online.head[0].weight.detach()
        return float(weight[:, 2:].square().mean() / weight[:, :2].square().mean())

    before = part_of_noise()
    for _ in range(400):
        angle, actions = rng.uniform(0, 2 * np.pi, 64), rng.integers(2, size=64)
        turned = angle + np.where(actions == 1, 1.0, -1.0)
        states = [np.stack([np.cos(x), np.sin(x)], 1) for x in (angle, turned)]
        pair = [np.concatenate([x, rng.standard_normal((64, 8))], 1).astype(np.float32) for x in states]
        batch = batch_of(torch.from_numpy(pair[0]), torch.from_numpy(actions), torch.from_numpy(pair[1]))
        optimizer.zero_grad()
        loss, _ = term.loss(online, batch)
        loss.backward()
        optimizer.step()
        term.step()
    assert part_of_noise() < 0.5 * before


def test_network_without_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^contrastive: expected at least two layers"):
        LatentPrediction(1.0, QNetwork(Box(-1, 1, (3,)), 2, (8,)), 1e-3, 0)
    assert main(["train", "dqn", "--contrastive.weight", "1", "--hidden", "8", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: contrastive: expected at least two layers")
    assert not (tmp_path / "run").exists()


def test_the_predicting_network_of_images_stays_small() -> None:
    """Images have thousands of features; a square matrix of them would cost more than the agent."""
    online = QNetwork(Box(0, 255, (14, 14, 1), np.uint8), 3, (64,))
    term = LatentPrediction(1.0, online, 1e-3, seed=1)
    assert online.body.features > 2000
    assert max(p.numel() for p in term.models["model"].parameters()) <= 256 * (online.body.features + 3)


def test_images_and_the_other_parts() -> None:
    switches: dict[str, Any] = {"prioritized": True, "noisy": True, "n_step": 2}
    settings: dict[str, Any] = {"n_envs": 4, "hidden": (8,), "batch_size": 8, "learning_starts": 0, "train_freq": 16}
    settings |= {"env_id": "automl_ext/Catch-v0", "gradient_steps": 2, **switches}
    settings["extras"] = Extras.of([Shift(1, 2), Contrastive()])
    agent = DQN(DQNConfig(**settings))
    metrics = agent.iterate()
    assert agent.updates == 2
    assert 0 <= metrics["contrastive"] < 10


def test_noise_dimensions() -> None:
    config = DQNConfig(env=EnvOptions(wrapper=(NOISE,)), n_envs=2, seed=3)
    envs = [DQN(config).envs for _ in range(2)]
    assert envs[0].observation_space.shape == (54,)
    rows = []
    for _ in range(100):
        assert np.array_equal(envs[0].observations, envs[1].observations)  # from the seed
        rows.append(envs[0].observations)
        for one in envs:
            one.step(np.array([0, 1]))
    noise = np.array(rows)[..., 4:]
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.1  # differs between environments
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.1  # and between steps


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    flags = [
        "train",
        "dqn",
        "--wrapper",
        NOISE,
        "--contrastive.weight",
        "1",
        "--normalize-observations",
        "--total-steps",
        "400",
    ]
    flags += ["--hidden", "8", "8", "--learning-starts", "50", "--train-freq", "40", "--gradient-steps", "2"]
    flags += ["--checkpoint-every", "100", "--eval-every", "200", "--eval-episodes", "2", "--final-episodes", "2"]
    assert main([*flags, "--out", str(tmp_path / "whole")]) == 0
    assert main([*flags, "--out", str(tmp_path / "halted"), "--stop-after", "230"]) in (0, 3)
    assert not (tmp_path / "halted/result.json").exists()
    assert main([*flags, "--out", str(tmp_path / "halted"), "--resume", "auto"]) == 0
    runs = [tmp_path / run for run in ("whole", "halted")]
    assert len({(run / "metrics.jsonl").read_text() for run in runs}) == 1
    assert "contrastive" in (runs[0] / "metrics.jsonl").read_text()
    assert len({json.loads((run / "result.json").read_text())["eval_return_mean"] for run in runs}) == 1
    states = [torch.load(run / "best.pt", weights_only=True)["policy"] for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_copies_of_a_state_are_not_told_apart() -> None:
    with pytest.raises(UserError, match=r"contrastive: expected shift.copies 1 or 0 with it, got 2"):
        DQN(DQNConfig("automl_ext/Catch-v0", extras=Extras.of([Contrastive(), Shift()])))
    with pytest.raises(UserError, match="contrastive: not possible with a2c, which has no replay"):
        A2C(A2CConfig(extras=Extras.of([Contrastive()])))
