"""Loading the state of an optimizer from a checkpoint."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer

from automl_ext.training.files.reading import short


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a state that ``optimizer.state_dict()`` returned in an earlier process.

    ``Optimizer.load_state_dict`` does not check most of the state. A state with other settings or tensors would raise
    at the next step, or change the training without an error.

    Args:
        optimizer: a new optimizer with the settings of the configuration.
        state: its learning rates may differ from the settings, because schedules change them.

    Raises:
        ValueError: the settings, the keys, or the shape or dtype of a tensor do not fit the optimizer.
    """
    if not isinstance(state, dict) or state.keys() != {"state", "param_groups"}:
        raise ValueError(f"optimizer: expected the keys state and param_groups, got {short(state)}")
    expected = optimizer.state_dict()["param_groups"]
    groups = state["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(expected):
        raise ValueError(f"optimizer: param_groups: expected {len(expected)} groups, got {short(groups)}")
    for group, wanted in zip(groups, expected, strict=True):
        _check_group(group, wanted)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    _check_tensors(state["state"], parameters)
    optimizer.load_state_dict(state)


def _check_group(group: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(group, dict) or group.keys() != wanted.keys():
        raise ValueError(f"optimizer: param_groups: expected the keys {', '.join(wanted)}, got {short(group)}")
    for key, value in wanted.items():
        found = group[key]
        if key == "lr":
            if type(found) is not float or not 0 <= found < math.inf:
                raise ValueError(f"optimizer: lr: expected a finite number of at least 0, got {short(found)}")
        elif type(found) not in (type(value), list) or list_of(found) != list_of(value):
            raise ValueError(f"optimizer: {key}: expected {short(value)}, got {short(found)}")


def _check_tensors(states: Any, parameters: list[torch.Tensor]) -> None:
    """Check that each parameter's tensors have its shape and dtype, or are 0-dimensional, as the number of steps."""
    if not isinstance(states, dict) or not all(type(i) is int and 0 <= i < len(parameters) for i in states):
        raise ValueError(f"optimizer: state: expected numbers of {len(parameters)} parameters, got {short(states)}")
    names = next((set(entry) for entry in states.values() if isinstance(entry, dict)), set())
    for i, entry in states.items():
        if not isinstance(entry, dict) or set(entry) != names:
            raise ValueError(f"optimizer: state[{i}]: expected {', '.join(sorted(names))}, got {short(entry)}")
        for name, value in entry.items():
            if value is None and name == "momentum_buffer":
                continue  # no step has been taken
            parameter = parameters[i]
            if not isinstance(value, torch.Tensor) or value.dtype not in (parameter.dtype, torch.float32):
                raise ValueError(f"optimizer: state[{i}][{name!r}]: expected a float tensor, got {short(value)}")
            if value.shape not in (parameter.shape, torch.Size()):
                shape, got = tuple(parameter.shape), tuple(value.shape)
                raise ValueError(f"optimizer: state[{i}][{name!r}]: expected the shape {shape}, got {got}")


def list_of(value: Any) -> Any:
    """Return tuples as lists, so that a pair of decay rates compares equal however it was stored."""
    return list(value) if isinstance(value, tuple) else value
