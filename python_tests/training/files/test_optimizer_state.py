"""States of optimizers in checkpoints are checked before they are loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from automl_ext.training.optimizer_state import load_optimizer

MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=1e-4, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.1, betas=(0.5, 0.999)),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.1),
}


def trained(name: str, steps: int = 2) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = MAKERS[name](network.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    return network, optimizer


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", MAKERS)
def test_a_state_continues_exactly(name: str, steps: int) -> None:
    network, optimizer = trained(name, steps)
    optimizer.param_groups[0]["lr"] = 0.05  # a schedule may have changed it
    other = copy.deepcopy(network)
    loaded = MAKERS[name](other.parameters())
    load_optimizer(loaded, copy.deepcopy(optimizer.state_dict()))
    for net, opt in ((network, optimizer), (other, loaded)):
        opt.zero_grad()
        net(torch.ones(4, 3)).square().sum().backward()
        opt.step()
    assert torch.equal(network.weight, other.weight)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a flag that is a tensor": (lambda s: s["param_groups"][0].update(foreach=torch.zeros(2, 3)), "foreach"),
    "another weight decay": (lambda s: s["param_groups"][0].update(weight_decay=0.5), "weight_decay"),
    "another type of setting": (lambda s: s["param_groups"][0].update(weight_decay="x"), "weight_decay"),
    "a negative learning rate": (lambda s: s["param_groups"][0].update(lr=-1.0), "lr"),
    "no group": (lambda s: s.update(param_groups=[]), "param_groups"),
    "a missing setting": (lambda s: s["param_groups"][0].pop("maximize"), "param_groups"),
    "a missing key": (lambda s: s.pop("state"), "keys state and param_groups"),
    "an unknown parameter": (lambda s: s["state"].update({7: s["state"][0]}), "state"),
    "another shape": (lambda s: first(s).update({name_of(s): torch.zeros(5)}), "shape"),
    "another dtype": (lambda s: first(s).update({name_of(s): torch.zeros(2, 3, dtype=torch.bool)}), "float tensor"),
    "no tensor": (lambda s: first(s).update({name_of(s): "x"}), "float tensor"),
    "a missing tensor": (lambda s: s["state"].update({1: {}}), r"state\[1\]"),
}


def first(state: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = state["state"][0]
    return entry


def name_of(state: dict[str, Any]) -> str:
    """The name of a tensor of the parameter's shape."""
    return next(name for name, value in first(state).items() if value.shape)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MAKERS)
def test_a_changed_state_is_refused(name: str, change: str) -> None:
    network, optimizer = trained(name)
    state = copy.deepcopy(optimizer.state_dict())
    alter, message = CHANGES[change]
    alter(state)
    loaded = MAKERS[name](network.parameters())
    with pytest.raises(ValueError, match=message):
        load_optimizer(loaded, state)
    assert not loaded.state
