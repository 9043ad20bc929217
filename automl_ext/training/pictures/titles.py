"""Words and numbers for the titles of pictures: algorithm, data set, accuracy, size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

ALGORITHMS = {
    "auto": "search auto",
    "gdas": "GDAS",
    "entmax-gdas": "entmax-GDAS",
    "darts": "DARTS",
    "random": "random search",
    "reinforce": "REINFORCE",
    "rea": "REA",
    "renas": "ReNAS",
    "renas-history": "ReNAS (history)",
    "successive-halving": "successive halving",
    "nas-bench": "search strategies",
    "retrain": "training of one cell",
    "compare": "comparison of cells",
    "ensemble": "ensemble",
    "score": "best cell by training-free scores",
    "a2c": "A2C",
    "a3c": "A3C",
    "ppo": "PPO",
    "dqn": "DQN",
    "rainbow": "Rainbow",
    "bc": "behavior cloning",
    "cql": "CQL",
    "iql": "IQL",
    "dreamer": "Dreamer",
    "vdn": "VDN",
    "qmix": "QMIX",
}
DATA = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "own": "own images"}


def algorithm_name(name: str | None) -> str:
    """Return an algorithm's name as papers write it."""
    return ALGORITHMS.get(name or "", name or "run")


def data_name(spec: Any) -> str:
    """Return the name of a data set: ``digits``, ``CIFAR-10``, or the file or folder of ``folder:PATH``."""
    kind, colon, path = str(spec).partition(":")
    return DATA.get(kind) or (Path(path).name or kind if colon else kind)


def percent(accuracy: Any) -> str:
    """Format an accuracy, a fraction of at most 1 or in percent."""
    return f"{100 * accuracy if accuracy <= 1 else accuracy:.1f} %"


def count(number: float) -> str:
    """Format a count with at most three digits: 950, 56 k, 0.3 M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size or (unit == "M" and number >= 1e5):
            value = number / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}".replace(".0 ", " ")
    return f"{number:.0f}"


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value of a result can be shown. Results are read from files that may be damaged."""
    return type(value) in (int, float)
