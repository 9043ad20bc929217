"""Test cases: how they are named, what they return, and how they draw random numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass
class Finding:
    """The result of one case.

    Attributes:
        what: the input, for a reader.
        outcome: a short class name, counted in the report.
        violation: what went wrong; None if nothing did.
        detail: the evidence for a violation, for example the end of stderr.
    """

    what: str
    outcome: str
    violation: str | None = None
    detail: str = ""


def rng_of(seed: int, kind: str, index: int) -> random.Random:
    """The random numbers of one case. They depend on no other case, so each case can be replayed alone."""
    return random.Random(f"{seed}:{kind}:{index}")


def short(value: object, length: int = 200) -> str:
    """``repr`` of a value, shortened; values whose ``repr`` fails (an int of 5,000 digits) give their type."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} without a repr: {type(error).__name__}>"
    return text if len(text) <= length else f"{text[: length - 20]}… ({len(text)} chars)"
