"""Draw learning curves from the evaluations in ``benchmarks/results/``: MinAtar, and Dreamer beside A2C.

    python tools/recorded_curves.py

It writes ``minatar_breakout.png``, ``minatar_freeway.png`` and ``dreamer_cartpole.png`` in ``docs/images/``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from automl_ext.rl.reports.plot import Curve, best_evaluation, draw_learning

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"


def recorded(row: dict[str, Any]) -> Curve:
    """Return the evaluations of a row, which are pairs [step, return] or an object from steps to returns."""
    pairs = row["evaluations"].items() if isinstance(row["evaluations"], dict) else row["evaluations"]
    steps, returns = np.array([(float(step), float(value)) for step, value in pairs]).T
    return Curve(row["command"].split()[2], {}, steps, returns, best_evaluation(steps, returns, {}))


def main() -> None:
    learning = json.loads((RESULTS / "rl_learning.json").read_text())
    for game in ("Breakout", "Freeway"):
        rows = [row for row in learning if f"MinAtar/{game}-v1" in row["command"] and "evaluations" in row]
        draw_learning(f"MinAtar/{game}-v1", [recorded(row) for row in rows], IMAGES / f"minatar_{game.lower()}.png")
    dreamer = json.loads((RESULTS / "rl_dreamer.json").read_text())["learning"]
    rows = [*dreamer["rows"], *dreamer["a2c"]]
    commands = [f"automl-ext train {name} --env-id CartPole-v1" for name in ("dreamer", "a2c")]
    rows = [row for row in rows if any(row["command"].startswith(command) for command in commands)]
    draw_learning("CartPole-v1", [recorded(row) for row in rows], IMAGES / "dreamer_cartpole.png")


if __name__ == "__main__":
    main()
