"""The names of scalars in TensorBoard."""

from __future__ import annotations

import pytest

from automl_ext.training.files.metrics import tag


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("episode_return", "rollout/ep_rew_mean"),
        ("episode_length", "rollout/ep_len_mean"),
        ("eval_return/MinAtar/Breakout-v0", "eval/mean_reward/MinAtar/Breakout-v0"),
        ("eval_return", "eval/mean_reward"),
        ("steps_per_second", "time/fps"),
        ("policy_loss", "train/policy_loss"),
        ("search_loss", "train/search_loss"),
        ("retrain_valid_accuracy", "valid/retrain_accuracy"),
        ("train_loss", "train/loss"),
        ("valid", "valid/valid"),
        ("best_score", "valid/best_score"),
        ("seconds", "time/seconds"),
    ],
)
def test_groups(name: str, expected: str) -> None:
    assert tag(name) == expected
