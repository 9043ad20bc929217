"""Colors that color-blind readers can tell apart (Okabe and Ito 2008), without the yellow, which is faint on white.

An algorithm has the same color in every picture.
"""

from __future__ import annotations

from collections.abc import Iterable

BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
BLACK, BROWN, GRAY, FAINT = "#222222", "#7A5230", "#7F7F7F", "#C4C4C4"
PALETTE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, BROWN)
ALGORITHMS = {
    # architecture search
    "gdas": BLUE,
    "entmax-gdas": RED,
    "darts": GREEN,
    "random": GRAY,
    "rea": BLUE,
    "renas": RED,
    "renas-history": GREEN,
    "successive-halving": PURPLE,
    # reinforcement learning
    "reinforce": ORANGE,
    "a2c": BLUE,
    "a3c": SKY,
    "dqn": GREEN,
    "rainbow": RED,
    "dreamer": PURPLE,
    "ppo": BLACK,
    "vdn": GREEN,
    "qmix": RED,
}


def color_of(algorithm: str) -> str:
    """Return the color of an algorithm; black if it has none."""
    return ALGORITHMS.get(algorithm, BLACK)


def distinct_colors(algorithms: Iterable[str]) -> list[str]:
    """Return one color per line: the algorithm's color for its first line, and an unused color for every other line."""
    wanted = [ALGORITHMS.get(name) for name in algorithms]
    taken: set[str] = set()
    colors: list[str] = []
    for color in wanted:
        if color is None or color in taken:
            free = [other for other in PALETTE if other not in taken and other not in wanted]
            color = free[0] if free else PALETTE[len(colors) % len(PALETTE)]
        taken.add(color)
        colors.append(color)
    return colors
