"""benchmarks/augmentation.py: images of the tasks, extras of the variants, rows that are made once, and their table."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from docs_tables import rl as tables
from docs_tables import text
from paths import ROOT

AUGMENTATION = runpy.run_path(str(ROOT / "benchmarks" / "augmentation.py"))


@pytest.mark.parametrize(
    ("task", "package", "shape"),
    [("CartPole", "pygame", (4, 64, 64, 3)), ("MiniGrid Empty-6x6", "minigrid", (48, 48, 3))],
)
def test_agents_see_images_and_have_the_extras(task: str, package: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip(package)
    for variant, names in (("without", set()), ("both", {"augment", "contrastive"})):
        agent = AUGMENTATION["made"](task, variant, 3, 2_000)
        assert agent.envs.observation_space.shape == shape
        assert agent.envs.observations.dtype == np.uint8
        assert agent.seams.names == names
        assert (agent.config.seed, agent.config.total_steps) == (3, 2_000)
        agent.close()


class Agent:
    """Stands in for an agent that takes 400 steps at once."""

    updates = 0

    def __init__(self, value: float) -> None:
        self.envs, self.value = SimpleNamespace(steps=0), value

    def iterate(self) -> None:
        self.envs.steps += 400

    def evaluate(self, episodes: int, seed: int) -> np.ndarray:
        return np.full(episodes, self.value + seed - 1_000)

    def close(self) -> None: ...


def test_rows_are_made_once_and_fill_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, calls = AUGMENTATION["main"], []

    def made(task: str, variant: str, seed: int, steps: int) -> Any:
        calls.append((seed, variant))
        return Agent(20.0 if variant == "shift" else 10.0)

    monkeypatch.setitem(main.__globals__, "made", made)
    file = tmp_path / "augmentation.json"
    command = ["augmentation.py", "--only", "CartPole", "--variant", "without", "shift", "--steps", "1000"]
    monkeypatch.setattr("sys.argv", [*command, "--json", str(file), "--seeds", "0"])
    main()
    monkeypatch.setattr("sys.argv", [*command, "--json", str(file), "--seeds", "0", "1"])
    main()
    assert calls == [(0, "without"), (0, "shift"), (1, "without"), (1, "shift")]
    rows = json.loads(file.read_text())
    assert [row["return"] for row in rows] == [10.0, 20.0, 11.0, 21.0]
    assert all(row["cpu"] for row in rows)
    monkeypatch.setattr(text, "RESULTS", tmp_path)
    lines = tables.augmentation().splitlines()
    assert lines[2] == "| CartPole | without | 1,000 | 10, 11 | 10 ± 0 | 0 |"
    assert lines[3].startswith("| CartPole | shift | 1,000 | 20, 21 |")
    assert len(lines) == 4
