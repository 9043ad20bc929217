"""Numbers of tables are those of the recorded results, and a wrong one is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docs_tables import TABLES, rl, text
from docs_tables import __main__ as command
from docs_tables.figures import number, templates, with_numbers

RESULT = {
    "ratio": [2.41, 2.45, 2.5],
    "date": "2026-01-02",
    "runs": {"mean": 3.0},
    "rows": [{"op": "gae", "shape": [8, 2], "s": 2e-6}, {"op": "gae", "shape": [9, 2], "s": -3e-6}],
}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dqn.json").write_text(json.dumps(RESULT))
    monkeypatch.setattr(text, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "ROOT", tmp_path)


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("dqn ratio median .1f", "2.5"),
        ("dqn ratio 0 .2f", "2.41"),
        ("dqn ratio .2f", "2.41, 2.45, 2.50"),
        ("dqn ratio max *10 .0f", "25"),
        ("dqn date s", "2026-01-02"),
        ("dqn runs mean .1f", "3.0"),
        ("dqn rows op=gae shape=9x2 s *1e6 .3g", "−3"),
        ("dqn rows s *1e6 .0f", "2, −3"),
        ("dqn rows 'op=gae' count d", "2"),
        ("dqn 0 0 /2 .3f", "1.205"),
    ],
)
def test_words_lead_to_a_number(expression: str, shown: str) -> None:
    assert number(expression) == shown
    assert with_numbers(f"| DQN | {{{expression}}}× |\n") == f"| DQN | {shown}× |\n"


@pytest.mark.parametrize(
    "expression", ["dqn rate .2f", "nothing ratio .2f", "dqn rows op=gea s .2f", "dqn ratio 3 .2f"]
)
def test_words_that_lead_nowhere_are_named(expression: str) -> None:
    with pytest.raises(ValueError, match=f"figure '{expression}': "):
        with_numbers(f"| DQN | {{{expression}}} |\n")


def test_a_section_is_a_table() -> None:
    text = "Tables.\n\n## one\n\n| a |\n|---|\n| {dqn date s} |\n\n## two\n\n| b |\n"
    assert templates(text) == {"one": "| a |\n|---|\n| {dqn date s} |\n", "two": "| b |\n"}


def test_check_finds_a_planted_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(command, "pages", lambda: [page])
    monkeypatch.setitem(TABLES, "dqn", lambda: with_numbers("| {dqn ratio median .2f} |\n"))
    page.write_text("<!-- table: dqn -->\n\n| 3.45 |\n\n<!-- table end -->\n")
    assert command.main(check=True) == 1
    assert capsys.readouterr().out == "page.md: a table differs from its file\n"
    assert "3.45" in page.read_text()
    assert command.main(check=False) == 0
    assert page.read_text() == "<!-- table: dqn -->\n\n| 2.45 |\n\n<!-- table end -->\n"
    assert command.main(check=True) == 0
    monkeypatch.setitem(TABLES, "dqn", lambda: with_numbers("| {dqn ratios .2f} |\n"))
    for check in (True, False):
        assert command.main(check) == 1


def test_scores_are_compared_with_the_error_of_their_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(task: str, side: str, seed: int, found: float) -> dict[str, Any]:
        return {"algorithm": "ppo", "task": task, "side": side, "seed": seed, "return": found, "cpu_seconds": 2.0}

    rows = [row("grid", "ours", i, x) for i, x in enumerate((0.0, 4.0, 8.0))]
    rows += [row("grid", "sb3", i, x) for i, x in enumerate((-2.0, 2.0))]
    rows += [row("Acrobot", "ours", 0, -4.0), row("Acrobot", "sb3", 0, -2.0), row("Taxi", "ours", 0, 1.0)]
    ends = {name: {"random": -10.0, "best": 10.0, "settings": "defaults"} for name in ("grid", "Acrobot", "Taxi")}
    monkeypatch.setattr(rl, "load", lambda name: {"chosen_on": {"ppo": ["grid"]}, "ends": ends, "rows": rows})
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rl.rl_defaults().splitlines()[2:]]
    # Variances of the scores: 0.2² and 2 · 0.1².
    error = (0.2**2 / 3 + (2 * 0.1**2) / 2) ** 0.5
    grid, acrobot, taxi, chosen, others = table
    assert grid[3:] == ["0.70 ± 0.12", "2", "−2, 2", "0.50 ± 0.10", "2", f"+0.20 ± {error:.2f}"]
    assert acrobot[-1] == "−0.10"  # one seed has no error
    assert taxi[-4:] == ["–"] * 4  # not run
    assert (chosen[0], chosen[-1]) == ("PPO, mean: tasks that its defaults were chosen on", "+0.20")
    assert (others[0], others[-1]) == ("PPO, mean: other tasks", "−0.10")
    assert [rl.signed(x) for x in (-0.004, 0.6349, -0.006)] == ["+0.00", "+0.63", "−0.01"]


def test_the_check_needs_no_torch() -> None:
    """`make lint` runs it without the package."""
    code = "import sys; sys.modules['torch'] = None; import docs_tables.__main__ as m; sys.exit(m.main(check=True))"
    tools = Path(command.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=tools, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
