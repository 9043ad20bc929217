"""Test cases: their results and their random generators."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass
class Finding:
    """The result of one case.

    Attributes:
        what: a description of the input.
        outcome: a short name of the kind of result; the report counts the results of each kind.
        violation: a description of the fault; None if there is none.
        detail: the evidence for a violation, for example the end of stderr.
    """

    what: str
    outcome: str
    violation: str | None = None
    detail: str = ""


def rng_of(seed: int, kind: str, index: int) -> random.Random:
    """Return the random generator of one case. It is independent of other cases, so each case can be replayed alone."""
    return random.Random(f"{seed}:{kind}:{index}")


def short(value: object, length: int = 200) -> str:
    """Return a shortened ``repr`` of a value, or its type if ``repr`` fails (an int of 5,000 digits)."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} without a repr: {type(error).__name__}>"
    return text if len(text) <= length else f"{text[: length - 20]}… ({len(text)} chars)"
