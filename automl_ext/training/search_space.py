"""Search spaces of configurations: the values that a tuner may try, declared in the annotation of a field.

    @dataclass
    class Config:
        lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 3e-4
        activation: Annotated[str, Categories("relu", "tanh")] = "relu"

:func:`search_space` reads the declarations; it works without any tuner.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from automl_ext.training.checks import LARGEST
from automl_ext.training.files.reading import short

MOST_INTEGER = 2**53  # larger ones are no exact floats


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; integers for a field of type int.

    Args:
        low, high: bounds; ints for an int field.
        log: the logarithm is uniform, not the number; both bounds are above 0.

    Raises:
        ValueError: a bound is beyond ±1e30, or ±2^53 if both are integers; ``low`` is not below ``high``; or ``log``
            with a bound that is not above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        largest = MOST_INTEGER if self.whole else LARGEST
        if not -largest <= self.low < self.high <= largest:
            got = f"{short(self.low)} and {short(self.high)}"
            raise ValueError(f"Range: expected low < high within ±{largest:g}, got {got}")
        if self.log and self.low <= 0:
            raise ValueError(f"Range: log needs low above 0, got {self.low}")

    @property
    def whole(self) -> bool:
        """True if the values are integers, that is, if both bounds are."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        number = type(value) is int or (type(value) is float and not self.whole)
        return number and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        return f"{'an int' if self.whole else 'a number'} from {self.low:g} to {self.high:g}"


class Categories:
    """A choice among several values without an order.

    Args:
        values: at least two different finite numbers, strings, booleans or None.

    Raises:
        ValueError: fewer than two values, equal ones, or a number that is not finite: no file of a trial can hold it.
    """

    def __init__(self, *values: str | float | bool | None) -> None:
        if len(values) < 2 or any(
            a is b or (a == b and type(a) is type(b)) for i, a in enumerate(values) for b in values[:i]
        ):
            raise ValueError(f"Categories: expected at least two different values, got {values}")
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise ValueError(f"Categories: expected finite numbers, got {values}")
        self.values = values

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(known) and value == known for known in self.values)

    def __repr__(self) -> str:
        return f"Categories{self.values}"

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Categories) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


Values = Range | Categories
Space = Mapping[str, Values]  # dotted name of a field -> its values


def search_space(config: Any, prefix: str = "") -> dict[str, Values]:
    """Return the declared values of a dataclass's fields, and of the dataclasses in it, by dotted name.

    Args:
        config: a dataclass, or an instance whose fields may hold other dataclasses than their annotations.
        prefix: start of the names.
    """
    found: dict[str, Values] = {}
    hints = typing.get_type_hints(config if isinstance(config, type) else type(config), include_extras=True)
    for field in dataclasses.fields(config):
        hint, name = hints[field.name], prefix + field.name
        if typing.get_origin(hint) is typing.Annotated:
            found.update((name, values) for values in hint.__metadata__ if isinstance(values, (Range, Categories)))
            hint = typing.get_args(hint)[0]
        inner = hint if isinstance(config, type) else getattr(config, field.name)
        if dataclasses.is_dataclass(inner):
            found |= search_space(inner, f"{name}.")
    return found


def with_point(config: Any, point: Mapping[str, Any]) -> Any:
    """Return a copy of a configuration with other values of some fields, given by dotted name.

    Raises:
        ValueError: the configuration's own checks refuse a value.
        KeyError: there is no such field.
    """
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in point.items():
        first, _, rest = name.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = value
        else:
            own[first] = value
    if unknown := {*own, *inner} - {field.name for field in dataclasses.fields(config)}:
        raise KeyError(*sorted(unknown))
    own |= {name: with_point(getattr(config, name), values) for name, values in inner.items()}
    return dataclasses.replace(config, **own)
