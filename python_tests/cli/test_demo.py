"""The demonstration of ``make``: its four parts, and that finished parts are not repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from automl_ext import demo
from automl_ext.bench.cases import peers
from automl_ext.cli import COMMANDS
from automl_ext.training.errors import UserError
from automl_ext.training.files.lock import Lock


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make every part small; returns the folder of the demonstration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "SECONDS", 1e-3)
    monkeypatch.setattr(
        demo, "SHAPES", demo.SHAPES | {"rows": [(8, 4)], "mixed": [(4, 2, 2, 3, 3)], "returns": [(4, 2)]}
    )
    changes = {"runs": 2, "workers": 1, "algorithms": ("random", "rea")}
    monkeypatch.setattr(demo, "STRATEGIES", dataclasses.replace(demo.STRATEGIES, **changes))
    monkeypatch.setattr(
        demo, "AGENT", dataclasses.replace(demo.AGENT, total_steps=100, eval_every=50, final_episodes=1)
    )
    changes = {"subset": 100, "epochs": 1, "retrain_epochs": 1, "channels": 2, "retrain_channels": 2}
    monkeypatch.setattr(demo, "CELL", dataclasses.replace(demo.CELL, **changes))
    threads = torch.get_num_threads()
    yield Path("demo")
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_parts_print_a_table_and_draw_a_picture(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "load", lambda: ({}, {"entmax": "not installed: pip install x"}))
    demo.demo(small)
    printed = capsys.readouterr().out
    pictures = ("ops/ops.png", "strategies/nas_bench.png", "agent/learning.png", "cell/cell.png")
    for text in (*demo.OPS, "1. Ops", "2. Search", "3. An agent", "4. A cell", "random", "rea", "test accuracy"):
        assert text in printed
    assert "entmax package: not installed: pip install x" in printed
    for picture in pictures:
        assert f"picture: demo/{picture}" in printed
        assert (small / picture).stat().st_size > 1000
    commands = [line.split("automl-ext ")[1] for line in printed.splitlines() if line.startswith("for real: ")]
    assert len(commands) == 4
    assert [command for command in commands if not command.startswith(tuple(COMMANDS))] == []

    def repeated(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("measure", "nas_bench", "algorithm", "search_supernet"):
        monkeypatch.setattr(demo, name, repeated)
    demo.demo(small)
    assert capsys.readouterr().out == printed


def test_a_part_is_locked(small: Path) -> None:
    (small / "agent").mkdir(parents=True)
    lock = Lock(small / "agent")
    try:
        with pytest.raises(UserError, match="in use by process"):
            demo.agent(small / "agent")
    finally:
        lock.release()
