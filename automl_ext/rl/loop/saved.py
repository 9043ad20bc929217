"""Saved agents: one file with the policy, the configuration and the spaces. Loading it executes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces as gym_spaces
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from automl_ext._version import __version__
from automl_ext.rl.envs.groups import GroupedBox
from automl_ext.rl.envs.packed import PackedBox
from automl_ext.training.config import to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.files.checkpoint import check_state
from automl_ext.training.files.reading import short
from automl_ext.training.files.weights import read_tensors, write_tensors

FORMAT = 1
KINDS = {"format": int, "automl_ext": str, "algorithm": str, "config": dict, "observations": dict, "actions": dict}
INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
DTYPES = INTEGERS | {"bool", "float16", "float32", "float64"}


def check_saveable(state: Any, name: str) -> None:
    """Check that a state of an agent, called ``name`` in messages, can be loaded again.

    Raises:
        UserError: an entry is neither a tensor nor plain Python, for example a NumPy array; the message names it.
    """
    try:
        check_state(state, name)
    except TypeError as error:
        raise UserError(str(error)) from None


def write_agent(
    path: Path, algorithm: str, config: Any, spaces: tuple[gymnasium.Space, gymnasium.Space], policy: dict[str, Any]
) -> None:
    """Write a saved agent, atomically and with a checksum.

    Raises:
        UserError: ``path`` is a folder, or a space or an entry of the policy cannot be saved.
    """
    if path.is_dir():
        raise UserError(f"path: expected a file name, got the folder {path}")
    check_saveable(policy, "policy_state()")
    content = {
        "format": FORMAT,
        "automl_ext": __version__,
        "algorithm": algorithm,
        "config": to_dict(config),
        "observations": space_to_dict(spaces[0]),
        "actions": space_to_dict(spaces[1]),
        "policy": policy,
    }
    write_tensors(path, content)


def read_agent(path: Path) -> tuple[dict[str, Any], tuple[gymnasium.Space, gymnasium.Space]]:
    """Read a file that :func:`write_agent` wrote.

    Returns:
        The content, whose configuration and policy are unchecked, and the spaces of observations and actions.

    Raises:
        UserError: the file is missing, damaged, of a later format, or something else than a saved agent.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected a file of agent.save(); rl.load_run loads a run directory")
    content = read_tensors(path)
    if not isinstance(content, dict) or not content.keys() >= KINDS.keys() | {"policy"}:
        got = f"a dict with {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path} is not a saved agent: expected a file of agent.save(), got {short(got)}")
    for name, kind in KINDS.items():
        if type(content[name]) is not kind:
            raise UserError(f"{path}: {name}: expected {kind.__name__}, got {short(content[name])}")
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']}, expected {FORMAT}: a later automl_ext wrote it")
    try:
        spaces = space_from_dict(content["observations"]), space_from_dict(content["actions"])
    except Exception as error:  # Gymnasium's spaces raise many kinds
        raise UserError(f"{path}: spaces: {short(error)}") from None
    return content, spaces


def space_to_dict(space: gymnasium.Space) -> dict[str, Any]:
    """Convert a space of agents to plain values and tensors.

    Raises:
        UserError: another space.
    """
    if isinstance(space, PackedBox):
        return {"kind": "Packed", "space": space_to_dict(space.space), "masked": list(space.actions)}
    if isinstance(space, gym_spaces.Dict):
        return {"kind": "Dict", "spaces": {key: space_to_dict(part) for key, part in space.spaces.items()}}
    if isinstance(space, gym_spaces.Tuple):
        return {"kind": "Tuple", "spaces": [space_to_dict(part) for part in space.spaces]}
    if isinstance(space, MultiDiscrete):
        nvec, start = (torch.from_numpy(x.astype(np.int64)) for x in (space.nvec, space.start))
        return {"kind": "MultiDiscrete", "nvec": nvec, "start": start, "dtype": str(space.dtype)}
    if isinstance(space, MultiBinary):
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, GroupedBox):
        form = {"shape": list(space.shape), "dtype": str(space.dtype), "names": list(space.names)}
        return {"kind": "GroupedBox", "visible": space.visible, **form}
    if isinstance(space, Box) and str(space.dtype) in DTYPES:
        low, high = (torch.from_numpy(np.array(bound)) for bound in (space.low, space.high))
        return {"kind": "Box", "low": low, "high": high}
    raise UserError(f"save: expected a space of arrays of numbers, got {short(space)}")


def space_from_dict(stored: dict[str, Any]) -> gymnasium.Space:
    """Return the space of :func:`space_to_dict`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, AssertionError, UserError: the content is wrong.
    """
    kind = stored["kind"]
    if kind == "Packed":
        return PackedBox(space_from_dict(stored["space"]), stored["masked"])
    if kind == "Dict":
        return gym_spaces.Dict([(key, space_from_dict(part)) for key, part in stored["spaces"].items()])
    if kind == "Tuple":
        return gym_spaces.Tuple([space_from_dict(part) for part in stored["spaces"]])
    if kind == "MultiDiscrete":
        nvec, start, dtype = stored["nvec"].numpy(), stored["start"].numpy(), stored["dtype"]
        if dtype not in INTEGERS:
            raise ValueError(f"dtype: expected an integer dtype, got {short(dtype)}")
        return MultiDiscrete(nvec, dtype=np.dtype(dtype).type, start=start)
    if kind == "MultiBinary":
        return MultiBinary(stored["n"])
    if kind == "Discrete":
        n, start, dtype = stored["n"], stored["start"], stored.get("dtype", "int64")  # earlier versions stored none
        if type(n) is not int or type(start) is not int or dtype not in INTEGERS:
            raise ValueError(f"expected two ints and an integer dtype, got {short((n, start, dtype))}")
        return Discrete(n, start=start, dtype=np.dtype(dtype).type)
    if kind == "GroupedBox":
        shape, dtype, names, visible = (stored[name] for name in ("shape", "dtype", "names", "visible"))
        if dtype not in DTYPES or {type(n) for n in (*shape, visible)} != {int} or {type(n) for n in names} != {str}:
            raise ValueError(f"expected a shape, a dtype and names, got {short((shape, dtype, names, visible))}")
        if min(shape) < 1 or not len(names) < visible <= shape[-1]:
            raise ValueError(f"visible: expected a number in ({len(names)}, {shape[-1]}], got {visible}")
        return GroupedBox(tuple(shape), dtype, names, visible)
    if kind != "Box":
        raise ValueError(f"kind: expected the kind of a space, got {short(kind)}")
    if not all(isinstance(stored[name], torch.Tensor) for name in ("low", "high")):
        raise ValueError("low, high: expected tensors")
    low, high = stored["low"].numpy(), stored["high"].numpy()
    if low.dtype != high.dtype or low.shape != high.shape or str(low.dtype) not in DTYPES:
        raise ValueError(f"low, high: expected arrays of one shape and dtype, got {low.dtype} and {high.dtype}")
    return Box(low, high, dtype=low.dtype.type)
