"""Saving and restoring the exact state of simulators, for checkpoints.

Gymnasium has no interface for the state. A simulator whose complete state is in plain attributes (numbers, strings,
arrays, lists of them, NumPy generators) is saved attribute by attribute. We know from their code that this holds for
classic control (single environments in ``SyncVectorEnv``, and CartPole's vector version), for MinAtar, DeepSea, mpe2's
environments without scripted agents, and for the wrappers of ``gymnasium.make`` and :mod:`automl_ext.rl.envs.making`.
Other environments have no saved state, and a resumed run starts new episodes.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv

from automl_ext.rl.envs.guard import Guard
from automl_ext.training.seeding import numpy_generator_state, set_numpy_generator_state

MODULES = ("gymnasium.envs.classic_control.", "minatar.gym", "automl_ext.rl.", "pettingzoo.utils.conversions")
OBJECTS = ("minatar.", "mpe2.", "pettingzoo.utils.")  # modules of the objects inside an environment
WRAPPERS = ("TimeLimit", "OrderEnforcing", "FrameStackObservation")
# Checks an environment's first steps; its attributes do not affect later steps.
STATELESS = ("PassiveEnvChecker",)
# Attributes that describe or render an environment.
NO_STATE = {"spec", "_cached_spec", "metadata", "_metadata", "_saved_kwargs"}
NO_STATE |= {"observation_spaces", "action_spaces", "copies", "viewer", "game_font"}
NO_STATE |= {"screen", "screens", "surf", "clock", "isopen", "ax", "cmap", "norm", "visualized", "closed"}
KIND = "kind"  # a dict with this key encodes an object of the named kind, not a dict of the simulator


class NotPlain(Exception):
    """An attribute that this module cannot save."""


def simulators_state(vector: VectorEnv[Any, Any, Any]) -> list[Any] | None:
    """Return the simulators' state as tensors and plain Python values, or None if it cannot be saved."""
    parts = _parts(vector)
    try:
        return None if parts is None else [_encode_object(part) for part in parts] + [_autoreset(vector)]
    except NotPlain:
        return None


def restore_simulators(vector: VectorEnv[Any, Any, Any], state: list[Any] | None) -> bool:
    """Restore :func:`simulators_state` into an equal vector environment that has been reset.

    Returns:
        False if there is no state to restore.

    Raises:
        ValueError: the state belongs to other environments.
    """
    parts = _parts(vector)
    if state is None or parts is None:
        return False
    if [type(part).__name__ for part in parts] != [item["class"] for item in state[:-1]]:
        raise ValueError(f"state: environments: expected those of {vector}, got {[x['class'] for x in state[:-1]]}")
    for part, item in zip(parts, state[:-1], strict=True):
        _decode_object(part, item)
    if isinstance(vector, SyncVectorEnv):
        vector._autoreset_envs = state[-1].numpy().copy()
    return True


def _parts(vector: VectorEnv[Any, Any, Any]) -> list[Any] | None:
    """Return every wrapper and simulator, outermost first; None if the state of one may not be in plain attributes."""
    parts: list[Any] = []
    if not isinstance(vector, SyncVectorEnv):
        parts = [vector, *getattr(vector, "copies", ())]  # the copies of lanes
        return parts if all(_known(part) for part in parts) else None
    for env in vector.envs:
        while isinstance(env, gymnasium.Wrapper):
            if not isinstance(env, Guard):  # stateless
                parts.append(env)
            env = env.env
        parts.append(env)
    return parts if all(_known(part) for part in parts) else None


def _known(part: Any) -> bool:
    kind = type(part)
    if kind.__module__.startswith("gymnasium.wrappers."):
        return kind.__name__ in WRAPPERS + STATELESS
    return kind.__module__.startswith(MODULES)


def _autoreset(vector: VectorEnv[Any, Any, Any]) -> torch.Tensor | None:
    return torch.from_numpy(vector._autoreset_envs.copy()) if isinstance(vector, SyncVectorEnv) else None


def _encode_object(part: Any) -> dict[str, Any]:
    name = type(part).__name__
    passed_over = NO_STATE | {"env"} if isinstance(part, gymnasium.Wrapper) else NO_STATE
    attributes = {} if name in STATELESS else {k: v for k, v in vars(part).items() if k not in passed_over}
    plain = {k: _encode(v) for k, v in attributes.items() if not isinstance(v, spaces.Space)}
    return {KIND: "object", "class": name, "attributes": plain}


def _decode_object(part: Any, item: dict[str, Any]) -> None:
    for name, value in item["attributes"].items():
        setattr(part, name, _decode(value, getattr(part, name, None)))


def _encode(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        return kind(_encode(item) for item in value)
    if kind is dict:
        return {KIND: "dict", "items": [(_encode(k), _encode(v)) for k, v in value.items()]}
    if kind is deque:
        return {KIND: "deque", "items": [_encode(item) for item in value], "maxlen": value.maxlen}
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        tensor = torch.from_numpy(np.array(value))  # in C order
        return {KIND: "array" if kind is np.ndarray else "scalar", "value": tensor}
    if kind is np.random.Generator:
        return {KIND: "generator", "state": numpy_generator_state(value)}
    if kind is np.random.RandomState:
        legacy = value.get_state(legacy=False)
        inner = legacy["state"]
        return {
            KIND: "legacy generator",
            "key": torch.from_numpy(inner["key"].astype(np.int64)),
            "rest": (inner["pos"], legacy["has_gauss"], legacy["gauss"]),
        }
    if kind.__module__.startswith(OBJECTS):
        return _encode_object(value)
    raise NotPlain(f"{kind.__module__}.{kind.__qualname__}")


def _decode(value: Any, own: Any) -> Any:
    """Decode a value. ``own`` is the object that is now in its place.

    Generators and objects are restored in place, because several attributes may refer to the same one.
    """
    if type(value) in (list, tuple):
        each = own if type(own) is list and len(own) == len(value) else [None] * len(value)
        return type(value)(_decode(*pair) for pair in zip(value, each, strict=True))
    if type(value) is not dict:
        return value
    kind = value[KIND]
    if kind == "dict":
        return {_decode(k, None): _decode(v, None) for k, v in value["items"]}
    if kind == "deque":
        return deque((_decode(item, None) for item in value["items"]), maxlen=value["maxlen"])
    if kind in ("array", "scalar"):
        array = value["value"].numpy().copy()
        return array if kind == "array" else array[()]
    if kind == "generator":
        set_numpy_generator_state(own, value["state"])
    elif kind == "legacy generator":
        key = value["key"].numpy().astype(np.uint32)
        own.set_state(("MT19937", key, *value["rest"]))
    else:
        _decode_object(own, value)
    return own
