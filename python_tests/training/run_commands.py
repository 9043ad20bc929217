"""Run commands with settings that make them short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GENOTYPE = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|none~2|"
NET = ["--subset", 120, "--epochs", 2, "--channels", 2]
COMMANDS: dict[str, list[Any]] = {
    "search gdas": [*NET, "--retrain-epochs", 1, "--retrain-channels", 2],
    "search random": [*NET, "--evaluator", "train", "--evaluations", 2],
    "search renas": [*NET, "--evaluator", "supernet", "--evaluations", 2],
    "retrain": [*NET, "--genotype", GENOTYPE],
    "compare": [*NET, "--random-cells", 1],
    "ensemble": [*NET, "--random-cells", 1],
    "nas-bench": ["--table", "table.npz", "--runs", 2, "--workers", 1, "--algorithms", "random"],
    "train a2c": ["--total-steps", 60, "--eval-every", 30, "--eval-episodes", 1, "--final-episodes", 1],
}


def command(*args: object) -> int:
    """Run a command in this process; return its exit code."""
    from automl_ext.cli import main

    return main([str(arg) for arg in args])


Refused = Callable[..., str]
