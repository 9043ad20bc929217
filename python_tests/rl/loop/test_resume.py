"""A run that is stopped and resumed equals one that is not, bit for bit: every algorithm, and extras with a state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compare_runs import same_runs

from automl_ext.parallel.seeds import run_seeds
from automl_ext.rl import EnvOptions
from automl_ext.rl.extras import RND, CountBonus, Extras, SelfImitation
from automl_ext.rl.registry import algorithm
from automl_ext.training.errors import UserError

SHORT: dict[str, Any] = {"total_steps": 360, "eval_every": 120, "eval_episodes": 2, "final_episodes": 2}
SHORT |= {"checkpoint_every": 90, "hidden": (8,)}
SEA: dict[str, Any] = {"env_id": "automl_ext/DeepSea-v0", "env": EnvOptions(env_kwarg=("size=4",)), "n_envs": 4}
Q: dict[str, Any] = {"learning_starts": 100, "train_freq": 32, "gradient_steps": 2, "batch_size": 16}
Q |= {"target_update_interval": 100, "buffer_size": 200}  # the ring is filled more than once
TEAM: dict[str, Any] = {"learning_starts": 100, "final_epsilon": 0.1}
NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
PPO = {"n_steps": 16, "n_epochs": 2, "n_envs": 4}


def with_extra(extra: Any, **options: Any) -> dict[str, Any]:
    return SEA | {"extras": Extras.of([extra])} | options


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a2c": ("a2c", {}),
    "a2c normalized": ("a2c", NORMALIZED | {"normalize_advantages": True}),
    "a2c count-bonus": ("a2c", with_extra(CountBonus(0.1, once=True))),
    "a2c rnd": ("a2c", with_extra(RND(0.1))),
    "a2c imitation_gain": ("a2c", with_extra(SelfImitation(4, batch_size=16), normalize_rewards=False)),
    "reinforce count-bonus": ("reinforce", with_extra(CountBonus(0.1))),
    "reinforce": ("reinforce", {"n_envs": 2}),
    "ppo": ("ppo", PPO),
    "ppo normalized": ("ppo", PPO | NORMALIZED | {"value_clip": 0.5, "target_kl": 1e-3}),
    "dqn": ("dqn", Q | {"normalize_observations": True}),
    "dqn rnd": ("dqn", with_extra(RND(0.1), **Q, n_step=1)),
    "rainbow": ("rainbow", Q),
    "vdn": ("vdn", TEAM),
    "qmix": ("qmix", TEAM),
}


@pytest.mark.parametrize("case", CASES)
def test_resumed_run_equals_uninterrupted_run(case: str, tmp_path: Path) -> None:
    name, options = CASES[case]
    found = algorithm(name)
    config = found.config(**SHORT | options)
    assert found.train(config, tmp_path / "whole") is not None
    assert found.train(config, tmp_path / "halted", stop_after=150) is None
    assert found.train(config, tmp_path / "halted", resume="auto", stop_after=60) is None
    assert found.train(config, tmp_path / "halted", resume="auto") is not None
    same_runs(tmp_path / "whole", tmp_path / "halted", {"updates_per_second"})
    if "extras" in options:
        metric = case.split()[1]
        for row in map(json.loads, (tmp_path / "whole/metrics.jsonl").read_text().splitlines()):
            assert row[metric] > 0
            assert -0.02 < row["episode_return"] < 1  # the task's: without a bonus


@pytest.mark.parametrize(
    ("name", "options", "schedules"),
    [
        ("a2c", {"lr_decay": False, "n_envs": 2, "n_steps": 5}, ""),
        ("ppo", PPO | {"lr_decay": True, "clip_decay": True}, "lr_decay, clip_decay"),
        ("dqn", Q | {"lr_decay": False}, "exploration_fraction"),
        ("rainbow", Q, "prioritized"),
    ],
)
def test_a_finished_run_goes_on_with_more_steps(
    name: str, options: dict[str, Any], schedules: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a schedule that depends on their number, it equals a run of as many steps, bit for bit."""
    found, out = algorithm(name), tmp_path / "run"
    longer, shorter = (found.config(**SHORT | options | {"total_steps": steps}) for steps in (480, 240))
    assert found.train(shorter, out) is not None
    assert found.train(longer, out, resume="auto", stop_after=1) is None
    printed = capsys.readouterr().err
    assert f"{out}: total_steps was 240 and is now 480" in printed
    assert (f"; {schedules}: the schedule changes here" in printed) == bool(schedules)
    assert not (out / "result.json").exists()
    result = found.train(longer, out, resume="auto")
    assert result is not None
    assert result["env_steps"] >= 480
    if not schedules:
        found.train(longer, tmp_path / "whole")
        same_runs(tmp_path / "whole", out)
    with pytest.raises(UserError, match="total_steps was 480 and is now 240; resume it with the same, or choose"):
        found.train(shorter, out, resume="auto")


def test_seeds_go_on_with_more_steps(tmp_path: Path) -> None:
    found = algorithm("a2c")
    longer, shorter = (found.config(**SHORT | {"total_steps": steps}) for steps in (400, 200))
    for config in (shorter, longer):
        result = run_seeds(found.train, "a2c", config, tmp_path / "seeds", [0, 1], resume="auto")
        assert result is not None
        assert min(one["env_steps"] for one in result["results"]) >= config.total_steps
