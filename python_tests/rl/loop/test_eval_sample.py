"""Evaluations with sampled actions (``eval_sample``): reproducible, and without an effect on training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_worlds import Bandit, envs_in

from automl_ext.rl import A2C, A2CConfig
from automl_ext.rl.loop.evaluate import play
from automl_ext.rl.loop.loop import train
from automl_ext.rl.reports.evaluate_run import evaluate_run

SHORT = {"total_steps": 320, "n_envs": 4, "eval_every": 160, "eval_episodes": 4, "final_episodes": 8, "hidden": (8,)}


def agent_of(probability: float, **settings: object) -> A2C:
    """Return an agent that takes action 0 with this probability, and one of the two others otherwise."""
    agent = A2C(A2CConfig(hidden=(4,), **settings), envs_in(Bandit))  # type: ignore[arg-type]
    rest = (1 - probability) / 2
    logits = torch.tensor([probability, rest, rest]).log()
    agent.network.policy = lambda x: logits.expand(len(x), 3)  # type: ignore[method-assign]
    return agent


def test_actions_have_the_probabilities_of_the_policy() -> None:
    x = np.zeros((4000, 3), np.float32)
    for eval_sample, share in ((False, 1.0), (True, 0.6)):
        agent = agent_of(0.6, eval_sample=eval_sample)
        agent.begin(np.ones(4000, bool))
        actions = agent.evaluation_actions(x)
        assert (actions == 0).mean() == pytest.approx(share, abs=0.03)
        assert (agent.act(x) == 0).all()


def test_an_evaluation_repeats_and_differs_between_environments() -> None:
    agent = agent_of(0.4, eval_sample=True)
    rounds = [play(agent.evaluation_actions, envs_in(Bandit, n=64), agent.begin).returns for _ in range(2)]
    assert np.array_equal(*rounds)
    assert rounds[0].std() > 0


def test_training_does_not_depend_on_the_evaluation(tmp_path: Path) -> None:
    runs = {}
    for sample in (False, True):
        runs[sample] = train(A2C, A2CConfig(**SHORT, eval_sample=sample), tmp_path / str(sample))  # type: ignore[arg-type]
    losses = []
    for sample in runs:
        lines = (tmp_path / str(sample) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["policy_loss"] for line in lines])
    assert losses[0] == losses[1]
    assert runs[True] != runs[False]
    means = {sample: evaluate_run(tmp_path / str(sample), episodes=40)["eval_return_mean"] for sample in runs}
    assert means[True] != means[False]
    assert means[True] == evaluate_run(tmp_path / "True", episodes=40)["eval_return_mean"]
