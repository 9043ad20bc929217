"""One-line errors for environments that raise exceptions or violate Gymnasium's API.

Every call of an environment's own code goes through :class:`Guard` (a single environment) or
:class:`automl_ext.rl.envs.vector.Envs` (an environment's own vector version). Both turn an exception, ``SystemExit``
included, into an :class:`EnvError` by :func:`fault`. ``KeyboardInterrupt`` is not converted.
"""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

import gymnasium
import numpy as np
import torch
from torch.utils import _device

from automl_ext.rl.envs.packed import MASK, named_parts, values
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.user_code import is_in_user_code, raised

STEP = "(observation, reward, terminated, truncated, info)"
NUMBERS = (float, int, np.floating, np.integer, np.bool_)

_PACKAGES = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (gymnasium, np))


class EnvError(UserError):
    """An environment failed. The message names the environment, the call and the location of an exception."""


def fault(where: str, call: str, error: BaseException) -> BaseException:
    """Convert an exception of an environment's code: ``raise fault(...) from None``.

    KeyboardInterrupt and UserError are returned unchanged.

    Args:
        where: names the environment, the start of the message.
        call: the call that failed, for example ``step()``.
        error: the exception.
    """
    if isinstance(error, (KeyboardInterrupt, UserError)):
        return error
    if isinstance(error, ValueError) and "values to unpack" in str(error) and not is_in_user_code(error):
        form = "(observation, info)" if call == "reset()" else STEP
        return EnvError(f"{where}: {call} must return {form}, as Gymnasium's API says: {short(error)}")
    return EnvError(f"{where}: {call} {raised(error, _PACKAGES)}")


class Guard(gymnasium.Wrapper):
    """A stateless wrapper that checks the results of one environment.

    It changes some of them. A rendered image becomes uint8 [height, width, 3] (:func:`rgb`). Observations are copied,
    because an environment may write each one into the same array. From info dictionaries, only action masks are kept:
    nothing else is used, and Gymnasium's vector environments fail on some entries.

    Raises:
        EnvError: an exception in ``reset``, ``step`` or ``render``; a result that does not follow Gymnasium's API; an
            observation whose shape or dtype does not fit the observation space; a reward that is not a number; a flag
            that is neither a bool nor 0 or 1.
    """

    def __init__(self, env: gymnasium.Env, where: str) -> None:
        super().__init__(env)
        self.where = where
        space = env.observation_space
        self._box = isinstance(space, gymnasium.spaces.Box)
        self._shape = space.shape
        self._dtype: Any = space.dtype

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        try:
            result: Any = self.env.reset(seed=seed, options=options)
        except BaseException as error:
            raise fault(self.where, "reset()", error) from None
        if not isinstance(result, tuple) or len(result) != 2:
            raise EnvError(f"{self.where}: reset() must return (observation, info), got {_form(result)}")
        self._check(result[0], "reset()")
        return copy.deepcopy(result[0]), _mask_in(result[1])

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            result: Any = self.env.step(action)
        except BaseException as error:
            raise fault(self.where, "step()", error) from None
        if not isinstance(result, tuple) or len(result) != 5:
            raise EnvError(f"{self.where}: step() must return {STEP}, got {_form(result)}")
        observation, reward, terminated, truncated, info = result
        if type(observation) is not np.ndarray or observation.dtype != self._dtype or observation.shape != self._shape:
            self._check(observation, "step()")
        if not isinstance(reward, NUMBERS):
            reward = number(f"{self.where}: step() returned reward", reward)
        if not isinstance(terminated, (bool, np.bool_)):
            terminated = flag(f"{self.where}: step() returned terminated", terminated)
        if not isinstance(truncated, (bool, np.bool_)):
            truncated = flag(f"{self.where}: step() returned truncated", truncated)
        observation = observation.copy() if type(observation) is np.ndarray else copy.deepcopy(observation)
        return observation, reward, terminated, truncated, _mask_in(info)

    def render(self) -> Any:
        try:
            image: Any = self.env.render()
        except BaseException as error:
            raise fault(self.where, "render()", error) from None
        return rgb(image, self.where)

    def close(self) -> None:
        """Close the environment. A failure causes only a warning, since it cannot change a result."""
        try:
            self.env.close()
        except (Exception, SystemExit) as error:
            warnings.warn(str(fault(self.where, "close()", error)), stacklevel=2)

    def _check(self, observation: Any, call: str) -> None:
        returned = f"{self.where}: {call} returned an observation"
        if self._box:
            check_observation(returned, observation, self.observation_space)
        elif isinstance(self.observation_space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple)):
            try:
                parts = list(values(self.observation_space, observation))
            except ValueError as error:
                raise EnvError(f"{self.where}: {call} returned: {error}") from None
            for (name, space), part in zip(named_parts(self.observation_space), parts, strict=True):
                check_observation(f"{returned} {name}", part, space)


def check_observation(returned: str, observation: Any, space: gymnasium.Space) -> np.ndarray:
    """Return an observation of a Box as an array, whose shape and dtype must fit its space.

    Args:
        returned: the call, and whose observation it is: the start of the message.
        observation: the value that the environment returned.
        space: a space of a fixed shape and dtype, such as a Box.

    Raises:
        EnvError: the shape differs, or the dtype cannot be cast within its kind.
    """
    try:
        found = np.asarray(observation)
    except Exception:  # ragged lists, or the object's own conversion
        found = np.empty((), object)
    # Gymnasium casts to the space's dtype within the kind: float64 to float32, bool to uint8.
    dtype: Any = space.dtype
    if found.shape != space.shape or not np.can_cast(found.dtype, dtype, "same_kind"):
        got = _described(observation if found.dtype == object else found)
        raise EnvError(f"{returned} {got}, expected {dtype} {list(space.shape or ())} by its space")
    return found


def _mask_in(info: Any) -> dict[str, Any]:
    """Return the action mask of an info dictionary, if it has one."""
    if type(info) is dict and MASK in info:
        try:
            return {MASK: np.asarray(info[MASK], np.float64) != 0}
        except (ValueError, TypeError):
            raise EnvError(f"info: {MASK}: expected an array of numbers, got {short(info[MASK])}") from None
    return {}


def number(returned: str, value: Any, expected: str = "a number") -> float:
    """Convert a number that an environment returned, perhaps as an array of one element, to a float.

    Args:
        returned: the call and the name of the value, the start of the message.
        value: the value that the environment returned.
        expected: a description of valid values, for the message.

    Raises:
        EnvError: ``value`` is not a number.
    """
    try:
        found = np.asarray(value)
    except Exception:
        found = np.empty((), object)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise EnvError(f"{returned} {short(value)}, expected {expected}")
    return float(found.item())


def flag(returned: str, value: Any) -> bool:
    """Convert a flag that an environment returned, a bool or the number 0 or 1; see :func:`number`."""
    found = number(returned, value, "a bool")
    if found not in (0, 1):
        raise EnvError(f"{returned} {short(value)}, expected a bool")
    return bool(found)


def torch_settings() -> tuple[torch.dtype, bool, torch.device | None]:
    """Return PyTorch's global settings that an environment's code may change: default dtype, grad mode, default device.

    The device is None if none was set. ``torch.get_default_device`` takes a hundred times longer.
    """
    return torch.get_default_dtype(), torch.is_grad_enabled(), _device.CURRENT_DEVICE


def restore_torch(settings: tuple[torch.dtype, bool, torch.device | None]) -> None:
    """Restore :func:`torch_settings`."""
    now = torch_settings()
    if settings != now:
        torch.set_default_dtype(settings[0])
        torch.set_grad_enabled(settings[1])
        if settings[2] != now[2]:
            torch.set_default_device(settings[2])


def rgb(image: Any, where: str) -> np.ndarray:
    """Convert a rendered image to uint8 [height, width, 3].

    Gray images get three equal channels, and an alpha channel is dropped. Booleans, and floats if none is above 1, are
    in the range 0 to 1 and are scaled to 0 to 255; other values are clipped to 0 to 255.

    Raises:
        EnvError: ``image`` is not an image; ``where`` is the start of the message.
    """
    found = image[..., None] if isinstance(image, np.ndarray) and image.ndim == 2 else image
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf" or not _is_image(found.shape):
        raise EnvError(f"{where}: render() must return an image [height, width, 3], got {_described(image)}")
    found = np.repeat(found, 3, axis=2) if found.shape[2] == 1 else found[..., :3]
    if found.dtype == np.uint8:
        return found
    scale = 255 if found.dtype.kind == "b" or (found.dtype.kind == "f" and not (found > 1).any()) else 1
    return np.nan_to_num(found * float(scale)).clip(0, 255).round().astype(np.uint8)


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and min(shape) > 0 and shape[2] in (1, 3, 4)


def _form(result: object) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else _described(result)


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
