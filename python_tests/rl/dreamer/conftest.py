"""Fixtures for tests of Dreamer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("gymnasium")
import gymnasium


@pytest.fixture
def register_world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that registers ``build(*args)`` as an environment and returns its id."""

    def register(build: Any, *args: Any) -> str:
        monkeypatch.setitem(gymnasium.registry, "Small-v0", None)
        del gymnasium.registry["Small-v0"]
        gymnasium.register("Small-v0", functools.partial(build, *args))
        return "Small-v0"

    return register
