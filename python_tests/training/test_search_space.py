"""Declared search spaces: what is read from annotations, and points put into configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest

from automl_ext.training.search_space import Categories, Range, search_space, with_point


@dataclass
class Inner:
    width: Annotated[int, Range(8, 128, log=True)] = 64
    seed: int = 0


@dataclass
class Outer:
    lr: Annotated[float, "a note", Range(1e-5, 1e-1, log=True)] = 1e-3
    kind: Annotated[str | None, Categories("a", None)] = "a"
    inner: Annotated[Inner, "another note"] = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.lr > 0.05:
            raise ValueError(f"lr: expected at most 0.05, got {self.lr}")


def test_the_space_has_declared_fields_and_nested_ones():
    assert search_space(Outer) == {
        "lr": Range(1e-5, 1e-1, log=True),
        "kind": Categories("a", None),
        "inner.width": Range(8, 128, log=True),
    }
    assert search_space(Outer)["inner.width"].whole
    assert not search_space(Outer)["lr"].whole


def test_a_point_replaces_fields_and_leaves_the_configuration_as_it_was():
    config = Outer()
    changed = with_point(config, {"lr": 0.01, "inner.width": 16})
    assert (changed.lr, changed.kind, changed.inner) == (0.01, "a", Inner(width=16))
    assert config == Outer()


def test_a_point_is_checked():
    with pytest.raises(ValueError, match=r"lr: expected at most 0\.05"):
        with_point(Outer(), {"lr": 0.06})
    with pytest.raises(KeyError, match="depth"):
        with_point(Outer(), {"inner.depth": 2})


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1), (1, 10**400)])
def test_a_range_needs_finite_ordered_bounds(bounds):
    with pytest.raises(ValueError, match="low < high within"):
        Range(*bounds)


def test_a_logarithmic_range_is_positive():
    with pytest.raises(ValueError, match="log needs low above 0"):
        Range(0, 1, log=True)


def test_a_choice_has_different_values():
    with pytest.raises(ValueError, match="two different values"):
        Categories("a")
    with pytest.raises(ValueError, match="two different values"):
        Categories("a", "a")
    assert Categories(1, True).values == (1, True)
    with pytest.raises(ValueError, match="expected finite numbers"):
        Categories(1.0, float("inf"))
