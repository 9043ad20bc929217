"""benchmarks/defaults.py: scores beside their formulas, masks in evaluations, rows that are made once, the picture."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT

DEFAULTS = runpy.run_path(str(ROOT / "benchmarks" / "defaults.py"))
ENDS = {name: {"random": -10.0, "best": 10.0} for name in ("grid", "Taxi")}


def row(task: str, side: str, seed: int, found: float) -> dict[str, Any]:
    return {"algorithm": "ppo", "task": task, "side": side, "seed": seed, "return": found, "cpu_seconds": 2.0}


def test_scores_are_compared_with_the_error_of_their_difference() -> None:
    rows = [row("grid", "ours", i, x) for i, x in enumerate((0.0, 4.0, 8.0))]
    rows += [row("grid", "sb3", i, x) for i, x in enumerate((-2.0, 2.0))] + [row("Taxi", "ours", 0, 1.0)]
    (line,) = DEFAULTS["compared"](rows, ENDS, "ppo")  # Taxi has one side only
    assert line["ours"]["score"] == pytest.approx((4 + 10) / 20)
    assert line["sb3"]["score"] == pytest.approx((0 + 10) / 20)
    assert line["difference"] == pytest.approx(0.2)
    assert line["error"] == pytest.approx((0.2**2 / 3 + (2 * 0.1**2) / 2) ** 0.5)  # variances 0.2² and 2 · 0.1²


def test_evaluations_use_the_masks_of_the_environment() -> None:
    task = DEFAULTS["TASKS"]["Taxi"]._replace(steps=1)
    act, _ = DEFAULTS["ours"]("ppo", task, 0)
    seen = []

    def recorded(observations: np.ndarray, mask: np.ndarray) -> np.ndarray:
        actions = act(observations, mask)
        seen.append(mask[np.arange(len(actions)), actions])
        return actions

    found = DEFAULTS["mean_return"](recorded, task, 1_000, episodes=2)
    assert found == -200  # one rollout teaches nothing, and without its mask pick-ups would cost 10
    assert np.all(seen)


def test_rows_are_made_once_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, calls = DEFAULTS["main"], []

    def trained(algorithm: str, task: Any, seed: int) -> tuple[Any, float]:
        calls.append(seed)
        return lambda observations, mask: np.zeros(len(observations), int), 1.0

    for side in ("ours", "sb3"):
        monkeypatch.setitem(main.__globals__, side, trained)
    file, picture = tmp_path / "defaults.json", tmp_path / "defaults.png"
    command = ["defaults.py", "--only", "grid", "--seeds", "2", "--json", str(file), "--picture", str(picture)]
    monkeypatch.setattr("sys.argv", command)
    main()
    assert calls == [0, 0, 1, 1]  # both sides of a seed before the next one
    rows = json.loads(file.read_text())["rows"]
    assert [(r["seed"], r["side"]) for r in rows] == [(0, "ours"), (0, "sb3"), (1, "ours"), (1, "sb3")]
    assert all(-2.5 <= r["return"] < -2 for r in rows)  # who only moves right hardly ever meets the goal
    main()
    assert len(calls) == 4
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a2c_learns_cartpole_in_few_steps() -> None:
    """The former defaults, n-step returns without an entropy bonus, ended at 89 to 354 (five seeds)."""
    task = DEFAULTS["TASKS"]["CartPole"]._replace(steps=30_000)
    act, _ = DEFAULTS["ours"]("a2c", task, 0)
    assert DEFAULTS["mean_return"](act, task, 1_000, episodes=10) > 400
