"""Fixtures of the tests of architecture search."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def unrendered_figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that the test saves, in order; they are not rendered, which takes most of the time of a picture."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **options: figures.append(figure))
    return figures
