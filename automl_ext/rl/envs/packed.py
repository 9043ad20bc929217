"""Observations of several parts, and action masks: one row of bytes for each observation.

Dict, Tuple, Discrete, MultiDiscrete and MultiBinary observations are packed into one array, each part in its own dtype.
Rollouts, replays and checkpoints keep such rows like other arrays. The networks unpack them. An action mask is stored
as a part of its observation; networks read it by :meth:`PackedBox.mask`, but it is not one of their inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.spaces import Box
from torch import Tensor

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

MASK = "action_mask"  # key of the mask in a Dict observation and in the info dictionary
TAKERS = "; reinforce, a2c, a3c, ppo, dqn and rainbow take them"
STORED = {"bool", "uint8", "int8", "int16", "int32", "int64", "float32"}  # other dtypes become float32
COUNTED = (spaces.Discrete, spaces.MultiDiscrete)  # parts that networks see as one-hot vectors


class ObservationPart(NamedTuple):
    """A part of an observation.

    Attributes:
        name: its keys, with dots between them; empty if the observation is the part.
        space: its space, which is neither a Dict nor a Tuple.
        dtype: dtype in which it is stored.
        start, stop: its bytes in a row.
    """

    name: str
    space: Any
    dtype: np.dtype
    start: int
    stop: int

    @property
    def is_image(self) -> bool:
        return len(self.space.shape) > 2

    @property
    def features(self) -> int:
        """Number of inputs of a network, if the part is a vector."""
        if isinstance(self.space, COUNTED):
            return int(self.counts[0].sum())
        return math.prod(self.space.shape)

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of values of a Discrete or MultiDiscrete part, and the first values, [K] each."""
        nvec = self.space.n if isinstance(self.space, spaces.Discrete) else self.space.nvec
        return np.ravel(nvec), np.ravel(self.space.start)


class PackedBox(Box):
    """A Box of the bytes of observations: uint8 [bytes].

    Args:
        space: the environment's space.
        actions: sizes of the discrete actions that the observations have a mask for, see :func:`mask_sizes`; empty
            without masks. The mask is the key ``action_mask`` of a Dict ``space``, or it is passed to :meth:`pack`.

    Attributes:
        parts: the parts, without the mask.

    Raises:
        UserError: a space that has no arrays, such as Text; or a key ``action_mask`` of another size.
    """

    def __init__(self, space: gymnasium.Space, actions: Sequence[int] = ()) -> None:
        self.space, self.actions = space, tuple(int(n) for n in actions)
        self.parts: list[ObservationPart] = []
        self._own_mask: int | None = None  # its place among the parts, if the mask is a key of the space
        at = 0
        for i, (name, part) in enumerate(named_parts(space)):
            if name == MASK and has_mask(space):
                self._own_mask = i
                if part.shape != (sum(self.actions),):
                    raise UserError(f"observation {MASK}: expected shape [{sum(self.actions)}], got {short(part)}")
                continue
            dtype = np.dtype(part.dtype if str(part.dtype) in STORED else np.float32)
            size = math.prod(part.shape) * dtype.itemsize
            self.parts.append(ObservationPart(name, part, dtype, at, at + size))
            at += size
        self._mask_at = at
        super().__init__(0, 255, (at + sum(self.actions),), np.uint8)

    def __repr__(self) -> str:
        return f"{self.space}" + f" with masks of {sum(self.actions)} actions" * bool(self.actions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedBox) and (self.space, self.actions) == (other.space, other.actions)

    @property
    def images(self) -> list[ObservationPart]:
        """The parts with three or more axes, for convolutions."""
        return [part for part in self.parts if part.is_image]

    @property
    def features(self) -> int:
        """Number of entries of :meth:`vectors`."""
        return sum(part.features for part in self.parts if not part.is_image)

    def pack(self, observations: Any, n: int, masks: Any = None) -> np.ndarray:
        """Return n observations in the form of the space, each array with a first axis n, as uint8 [n, bytes].

        Args:
            observations: in the form of the space, for example a dict of arrays [n, ...].
            n: number of observations.
            masks: the masks [n, actions] if they are not a key of the space.

        Raises:
            ValueError: a missing part; another shape or dtype; a number that is not finite or not in a Discrete space.
        """
        out = np.empty((n, *self.shape), np.uint8)
        arrays = list(values(self.space, observations))
        if self._own_mask is not None:
            masks = arrays.pop(self._own_mask)
        for part, array in zip(self.parts, arrays, strict=True):
            where = f"observation {part.name}".rstrip()
            x = _checked(where, array, (n, *part.space.shape), part.space.dtype)
            _check_values(where, part, x)
            out[:, part.start : part.stop] = np.ascontiguousarray(x, part.dtype).reshape(n, -1).view(np.uint8)
        if self.actions:
            out[:, self._mask_at :] = _checked(MASK, masks, (n, sum(self.actions)), np.dtype(np.float64)) != 0
        return out

    def by_key(self, observations: Any, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return the parts of observations in the form of the space, by name, and the masks.

        The methods below take them in place of packed observations.
        """
        parts = dict(zip((name for name, _ in named_parts(self.space)), values(self.space, observations), strict=True))
        return parts if mask is None else parts | {MASK: mask}

    def mask(self, observations: Any) -> Any:
        """Return the masks of packed observations, bool [N, actions], an array or a tensor. True: allowed."""
        masks = observations[MASK] if isinstance(observations, dict) else observations[:, self._mask_at :]
        return masks != 0

    def free_stuck(self, observations: np.ndarray) -> np.ndarray:
        """Allow all actions, in place, in packed observations that allow none; return where, bool [N].

        No action is taken in such a state, but networks compute its value.
        """
        first = np.cumsum((0, *self.actions[:-1]))  # of each action
        stuck: np.ndarray = ~np.asarray(np.logical_or.reduceat(self.mask(observations), first, axis=1).all(axis=1))
        observations[stuck, self._mask_at :] = 1
        return stuck

    def vectors(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """Return the vectors of packed observations side by side, float32 [N, features].

        Bytes are divided by the largest value of their space. Discrete numbers become one-hot vectors.

        Args:
            observations: packed; or the result of :meth:`by_key`, as in exported policies.
        """
        found = [self._vector(part, observations) for part in self.parts if not part.is_image]
        if found:
            return torch.cat(found, 1)
        some = self._read(self.parts[0], observations)
        return torch.zeros(some.shape[0], 0, device=some.device)

    def pictures(self, observations: Tensor | dict[str, Tensor]) -> list[Tensor]:
        """Return the images of packed observations, float32 [N, *shape] each, scaled like :meth:`vectors`."""
        return [_scaled(self._read(part, observations), part) for part in self.images]

    def _read(self, part: ObservationPart, observations: Tensor | dict[str, Tensor]) -> Tensor:
        dtype = getattr(torch, str(part.dtype))
        if isinstance(observations, dict):
            return observations[part.name].to(dtype)
        rows = observations[:, part.start : part.stop].clone(memory_format=torch.contiguous_format)  # aligned
        return rows.view(dtype).view(len(rows), *part.space.shape)

    def _vector(self, part: ObservationPart, observations: Tensor | dict[str, Tensor]) -> Tensor:
        x = self._read(part, observations)
        if not isinstance(part.space, COUNTED):
            return _scaled(x, part).reshape(x.shape[0], math.prod(part.space.shape))
        sizes, first = part.counts
        possible = np.arange(sizes.max())
        places = torch.from_numpy(np.flatnonzero(possible < sizes[:, None])).to(x.device)
        numbers = x.reshape(x.shape[0], len(sizes)) - torch.from_numpy(first.astype(np.int64)).to(x.device)
        one_hot = numbers.unsqueeze(2) == torch.arange(len(possible), device=x.device)
        return one_hot.flatten(1)[:, places].float()


def packed_space(space: gymnasium.Space, action_space: gymnasium.Space) -> gymnasium.Space:
    """Return the space of observations as agents get them: a Box as it is, other spaces packed.

    Raises:
        UserError: a space without numbers, or a mask for actions that are neither Discrete nor MultiDiscrete.
    """
    if not isinstance(space, Box):
        space = PackedBox(space, mask_sizes(action_space) if has_mask(space) else ())
    if 0 in space.shape:
        raise UserError(f"observations: expected numbers, got shape {space.shape}")
    return space


def float32_array(observations: np.ndarray) -> np.ndarray:
    """Convert observations of any float dtype to float32, in C order. Other dtypes are kept.

    Networks compute in float32, and a float64 replay would take twice the memory.
    """
    dtype = np.float32 if observations.dtype.kind == "f" else observations.dtype
    return np.ascontiguousarray(observations, dtype)


def float32_space(space: gymnasium.Space) -> gymnasium.Space:
    """Return the space of the observations that :func:`float32_array` returns."""
    if not isinstance(space, Box) or space.dtype.kind != "f" or space.dtype == np.float32:
        return space
    with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite
        return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def observation_bytes(space: gymnasium.Space) -> int:
    """Return the size in bytes of one observation of an array space."""
    return math.prod(space.shape or ()) * np.dtype(space.dtype or np.float32).itemsize


def has_mask(space: gymnasium.Space) -> bool:
    """Return whether a space is a Dict with the key ``action_mask``."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces


def mask_sizes(space: gymnasium.Space) -> tuple[int, ...]:
    """Return the number of values of each component of a discrete action. A mask has as many entries as their sum.

    Raises:
        UserError: the action space is neither Discrete nor MultiDiscrete.
    """
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(space.nvec.ravel().tolist())
    raise UserError(f"{MASK}: expected Discrete or MultiDiscrete actions, got {short(space)}")


def masked_space(space: gymnasium.Space) -> PackedBox | None:
    """Return the space if its observations have masks, else None."""
    return space if isinstance(space, PackedBox) and space.actions else None


def check_not_packed(space: gymnasium.Space | None, who: str, hint: str = "") -> None:
    """Check that observations are plain arrays.

    Raises:
        UserError: they have several parts, are Discrete or have masks; the message begins with ``who`` and ends with
            ``hint``.
    """
    if isinstance(space, PackedBox):
        raise UserError(f"{who}: expected arrays (a Box space) without action masks, got {short(space)}{hint}")


def named_parts(space: gymnasium.Space, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and space of every part of a space that is neither a Dict nor a Tuple.

    Raises:
        UserError: a space without arrays of a fixed size, such as Text.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        keyed = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in keyed:
            yield from named_parts(part, f"{name}.{key}" if name else str(key))
    elif isinstance(space, (Box, *COUNTED, spaces.MultiBinary)) and 0 not in (space.shape or ()):
        yield name, space
    else:
        raise UserError(f"observations{f' {name}' * bool(name)}: expected arrays of numbers, got {short(space)}")


def values(space: gymnasium.Space, observation: Any, name: str = "") -> Iterator[Any]:
    """Yield the values of the parts of an observation, in the order of :func:`named_parts`.

    Raises:
        ValueError: a part is missing.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield observation
        return
    keyed = list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))
    kind: Any = dict if isinstance(space, spaces.Dict) else (tuple, list)
    if not isinstance(observation, kind) or len(observation) != len(keyed):
        got = sorted(map(str, observation)) if isinstance(observation, dict) else short(observation)
        raise ValueError(f"observation{f' {name}' * bool(name)}: expected {short(space)}, got {got}")
    for key, part in keyed:
        if isinstance(observation, dict) and key not in observation:
            raise ValueError(f"observation {name}: expected the key {key!r}, got {sorted(map(str, observation))}")
        yield from values(part, observation[key], f"{name}.{key}" if name else str(key))


def add_axis(space: gymnasium.Space, observation: Any) -> Any:
    """Return one observation as a batch of one: its arrays with a first axis of length 1."""
    if isinstance(space, spaces.Dict):
        return {key: add_axis(part, observation[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(add_axis(part, x) for part, x in zip(space.spaces, observation, strict=True))
    return np.asarray(observation)[None]


def as_batch(observation: Any, space: gymnasium.Space, mask: Any = None) -> tuple[np.ndarray, bool]:
    """Convert an observation, or a batch, to an array [N, ...]. Return also whether it was a single one.

    Raises:
        ValueError: a wrong shape or dtype, values that are not finite, or a missing, unexpected or empty mask.
    """
    takes_mask = isinstance(space, PackedBox) and bool(space.actions) and not has_mask(space.space)
    if takes_mask != (mask is not None):
        expected = "an array of numbers" if takes_mask else "None: the environment has none in its info dictionaries"
        raise ValueError(f"action_mask: expected {expected}, got {short(mask)}")
    if isinstance(space, PackedBox):
        first, (_, part) = next(values(space.space, observation)), next(named_parts(space.space))
        single = np.ndim(first) == len(part.shape)
        if not single and np.ndim(first) != len(part.shape) + 1:
            raise ValueError(f"observation: expected {short(space.space)} or a batch of it, got {short(observation)}")
        if single:
            observation, mask = add_axis(space.space, observation), None if mask is None else np.asarray(mask)[None]
        packed = space.pack(observation, 1 if single else len(first), mask)
        if space.actions and space.free_stuck(packed).any():
            raise ValueError("action_mask: expected at least one allowed value of each action, got all False")
        return packed, single
    try:
        found = np.asarray(observation)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"observation: {short(error)}") from None
    shape, dtype = space.shape or (), np.dtype(space.dtype or np.float32)
    if found.shape not in (shape, (*found.shape[:1], *shape)) or not np.can_cast(found.dtype, dtype, "same_kind"):
        raise ValueError(
            f"observation: expected {dtype} {list(shape)} or a batch [N, ...] of it, got {found.dtype} "
            f"{list(found.shape)}"
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"observation: expected finite numbers, got {short(observation)}")
    single = found.shape == shape
    return np.ascontiguousarray(found[None] if single else found, dtype), single


def _checked(where: str, given: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of a shape, whose dtype can be cast within its kind."""
    try:
        x = np.asarray(given)
    except Exception:  # ragged lists, or the object's own conversion
        x = np.empty((), object)
    if x.shape != shape or not np.can_cast(x.dtype, dtype, "same_kind"):
        raise ValueError(f"{where}: expected {dtype} {list(shape)}, got {x.dtype} {list(x.shape)}")
    return x


def _check_values(where: str, part: ObservationPart, x: np.ndarray) -> None:
    """Check one number for each environment: finite, and within the range of a Discrete space."""
    if x.dtype.kind == "f":
        wrong, expected = ~np.isfinite(x), "finite numbers"
    elif isinstance(part.space, COUNTED):
        first = part.space.start
        after = first + (part.space.n if isinstance(part.space, spaces.Discrete) else part.space.nvec)
        wrong, expected = (x < first) | (x >= after), f"values of {part.space}"
    else:
        return
    if wrong.any():
        row = np.flatnonzero(wrong.reshape(len(x), -1).any(axis=1))[0]
        raise ValueError(f"{where}: expected {expected}, got {x[row][wrong[row]].flat[0]} in environment {row}")


def _scaled(x: Tensor, part: ObservationPart) -> Tensor:
    return x.float() * byte_scale(part.space)


def byte_scale(space: Any) -> float:
    """Return the factor of observations: for bytes 1 / (the largest value of their space), else 1."""
    return 1 / max(float(space.high.max()), 1) if isinstance(space, Box) and space.dtype == np.uint8 else 1.0
