"""Fixtures of the tests of tuning."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the pictures of each run and do not render them, which takes most of the time of a short run.

    A test of the files calls ``monkeypatch.undo()`` first.
    """
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda *args, **options: None)
