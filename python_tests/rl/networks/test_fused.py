"""The choice between a training step in one call and the composed one, and that both are the same step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import automl_ext
from automl_ext import _native, rl
from automl_ext.rl import A2C, DQN, PPO
from automl_ext.rl.algorithms import a2c, dqn, ppo
from automl_ext.rl.networks.parameters import FlatRMSprop

pytestmark = pytest.mark.skipif(
    not _native.is_loaded() or _native.current_backend() == "reference", reason="the native library is not in use"
)


class World(gymnasium.Env):
    """Episodes of 7 steps, which end in both ways; masks exclude one action if ``masked``."""

    def __init__(self, action_space: spaces.Space, masked: bool = False) -> None:
        self.observation_space = spaces.Box(-5, 5, (3,), np.float32)
        self.action_space, self.masked = action_space, masked

    def result(self) -> tuple[np.ndarray, dict[str, Any]]:
        mask = np.array([self.t % 3 != i for i in range(3)], np.int8)
        return self.state.astype(np.float32), {"action_mask": mask} if self.masked else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.state = 0, self.np_random.normal(size=3)
        return self.result()

    def step(self, action: Any) -> Any:
        self.t += 1
        self.state = 0.8 * self.state + 0.3 * self.np_random.normal(size=3)
        reward = float(self.state[0] * np.mean(action))
        ended = self.t == 7
        observation, info = self.result()
        return observation, reward, ended and self.state[1] > 0, ended and self.state[1] <= 0, info


DISCRETE, BOX = spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)
ON_POLICY = {"n_envs": 4, "n_steps": 24, "hidden": (16, 16), "total_steps": 1000, "normalize_rewards": False}
PPO_OPTIONS = ON_POLICY | {"batch_size": 30, "n_epochs": 2}
OFF_POLICY = {"n_envs": 2, "learning_starts": 60, "train_freq": 40, "hidden": (16, 24), "total_steps": 1000}
CASES: dict[str, tuple[str, spaces.Space, bool, dict[str, Any]]] = {
    "ppo": ("ppo", DISCRETE, False, PPO_OPTIONS),
    "ppo, masks": ("ppo", DISCRETE, True, PPO_OPTIONS),
    "ppo, gaussian": ("ppo", BOX, False, PPO_OPTIONS | {"value_clip": 0.1, "normalize_observations": True}),
    "ppo, one minibatch": ("ppo", DISCRETE, False, PPO_OPTIONS | {"batch_size": 999, "target_kl": 1e-3, "n_epochs": 9}),
    "a2c": ("a2c", DISCRETE, False, ON_POLICY),
    "a2c, adam": ("a2c", BOX, False, ON_POLICY | {"optimizer": "adam", "normalize_advantages": True}),
    "dqn": ("dqn", DISCRETE, False, OFF_POLICY),
    "dqn, plain": ("dqn", DISCRETE, False, OFF_POLICY | {"layer_norm": False, "normalize_observations": True}),
    "dqn, double": ("dqn", DISCRETE, False, OFF_POLICY | {"double": True, "prioritized": True, "max_grad_norm": 0.1}),
}


def agent_of(name: str, **options: Any) -> Any:
    algorithm, actions, masked, settings = CASES[name]
    return rl.make(algorithm, lambda: World(actions, masked), seed=3, **settings | options)


def updated(agent: Any) -> Any:
    """Iterate until the agent has learned once."""
    while "loss" not in (metrics := agent.iterate()) and "policy_loss" not in metrics:
        pass
    return agent


STEPS, ACTING = ("policy_gradient_step", "td_step"), "policy_act"


class Calls(TorchDispatchMode):
    """The names of our ops that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "automl_ext":
            self.names.append(function.name().split("::")[1])
        return function(*args, **(kwargs or {}))


def step_of(agent: Any) -> str:
    """Update an agent, and return the kind of steps that it took, which is the one that it reports."""
    with Calls() as calls:
        updated(agent)
    taken = "fused" if any(name in STEPS for name in calls.names) else "composed"
    assert taken == ("fused" if agent.fused() else "composed")
    return taken


def acting_apart(agent: Any) -> Any:
    """Return the agent with a method of its own, so that it acts as the algorithm's file does."""
    if hasattr(agent, "outputs"):
        agent.outputs = agent.outputs
    return agent


def moments(agent: Any) -> dict[str, Tensor]:
    return agent.optimizer.state[agent.parameters]


@pytest.mark.parametrize("name", CASES)
def test_both_steps_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = agent_of(name).parameters.detach().clone()
    ours = acting_apart(agent_of(name))
    assert step_of(ours) == "fused"
    for module, choice in ((ppo, "fused_policy"), (a2c, "fused_policy"), (dqn, "fused_q")):
        monkeypatch.setattr(module, choice, lambda *arguments: None)
    composed = agent_of(name)
    assert step_of(composed) == "composed"
    change = composed.parameters.detach() - start
    assert float(change.abs().max()) > 1e-4
    assert float((ours.parameters - composed.parameters).detach().abs().max()) <= 2e-3 * float(change.abs().max())
    assert moments(ours).keys() == moments(composed).keys()
    assert moments(ours)["step"] == moments(composed)["step"] > 0
    for key, value in moments(composed).items():
        torch.testing.assert_close(moments(ours)[key], value, rtol=2e-3, atol=2e-3 * float(value.abs().max()))
    if "prioritized" in CASES[name][3]:
        priorities = [a.replay.state_dict()["priorities"] for a in (ours, composed)]
        torch.testing.assert_close(*priorities, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if "dqn" not in name])
def test_acting_in_one_call_samples_the_same_policy(name: str) -> None:
    """Log-probabilities and values are those that the network computes, also of final observations."""
    agent = agent_of(name)
    with Calls() as calls:
        rollout = agent.fused_rollout(agent.fused(), 24)
    assert calls.names.count(ACTING) == 25
    assert len(rollout.observations) > len(rollout.actions) + 4  # episodes were truncated
    with torch.no_grad():
        outputs, values = agent.network(rollout.observations)
        log_probs = agent.network.distribution.log_probs(outputs[: len(rollout.actions)], rollout.actions)
    torch.testing.assert_close(rollout.log_probs, log_probs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rollout.values, values, rtol=1e-5, atol=1e-5)
    mean = float(rollout.actions.double().mean())
    assert mean == pytest.approx(0 if agent.fused().gaussian else 1, abs=0.35)
    assert len(rollout.actions.unique()) > 2


def test_a_way_of_acting_of_the_users_is_honored() -> None:
    for change in ("outputs", "sample", "rollout"):
        agent = agent_of("ppo")
        setattr(agent, change, getattr(agent, change))
        with Calls() as calls:
            updated(agent)
        assert ACTING not in calls.names
        assert "policy_gradient_step" in calls.names


def test_values_are_those_of_changed_observations() -> None:
    class Doubled:
        def __call__(self, step: Any) -> Any:
            return step._replace(observations=2 * step.observations)

        def state_dict(self) -> dict[str, Any]:
            return {}

    agent = agent_of("ppo")
    agent.envs.transforms.append(Doubled())
    rollout = agent.fused_rollout(agent.fused(), 24)
    assert rollout.values is None
    with torch.no_grad():
        _, values = agent.network(rollout.observations)
    rows = rollout.valid.flatten()
    assert torch.equal(agent.transitions(rollout).values, values[: len(rows)][rows])


@pytest.mark.parametrize("name", ["ppo", "a2c", "dqn"])
def test_metrics_have_the_same_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def metrics(agent: Any) -> dict[str, float]:
        found: dict[str, Any] = {}
        while len(found) < 2:
            found = agent.iterate()
        return {key: float(value) for key, value in found.items()}

    ours = metrics(acting_apart(agent_of(name)))
    for module, choice in ((ppo, "fused_policy"), (a2c, "fused_policy"), (dqn, "fused_q")):
        monkeypatch.setattr(module, choice, lambda *arguments: None)
    composed = metrics(agent_of(name))
    assert ours == pytest.approx(composed, rel=2e-3, abs=1e-5)


def test_a_checkpoint_of_one_kind_continues_as_the_other() -> None:
    first = updated(agent_of("ppo"))
    state = copy.deepcopy(first.state_dict())
    with automl_ext.backend("reference"):
        second = agent_of("ppo")
        second.load_state_dict(state)
        assert step_of(second) == "composed"
    third = agent_of("ppo")
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    assert step_of(third) == "fused"
    assert moments(third)["step"] == 3 * moments(first)["step"]


class OwnLoss(PPO):
    def loss(self, *arguments: Any) -> Any:
        return super().loss(*arguments)


class OwnTargets(DQN):
    def targets(self, batch: Any) -> Tensor:
        return super().targets(batch)


class OwnDoubleTargets(DQN):
    def rainbow_targets(self, batch: Any) -> Tensor:
        return super().rainbow_targets(batch)


class OwnGradient(A2C):
    def compute_gradient(self, rollout: Any) -> Any:
        return super().compute_gradient(rollout)


class Term:
    def loss(self, network: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return network(batch.observations)[0].sum() * 0, {}

    def step(self) -> None:
        pass


def freeze(agent: Any) -> None:
    network = getattr(agent, "network", None) or agent.online
    next(network.parameters()).requires_grad_(False)


def own_optimizer(agent: Any) -> None:
    agent.optimizer = torch.optim.Adam([agent.parameters], 1e-3)


def hook(agent: Any) -> None:
    network = getattr(agent, "network", None) or agent.online
    [*network.modules()][-1].register_forward_hook(lambda *arguments: None)


def own_layer(agent: Any) -> None:
    """Parameters outside of the vector that the optimizer changes."""
    network = getattr(agent, "network", None) or agent.online
    layer = next(m for m in network.modules() if isinstance(m, torch.nn.Linear))
    layer.bias = torch.nn.Parameter(layer.bias.detach().clone())


def own_loss(agent: Any) -> None:
    name = "step" if isinstance(agent, DQN) else "loss"
    original = getattr(agent, name)
    setattr(agent, name, lambda *arguments: original(*arguments))


CHANGES: list[Callable[[Any], None]] = [freeze, own_optimizer, hook, own_layer, own_loss]


@pytest.mark.parametrize("name", ["ppo", "a2c", "dqn", "dqn, plain"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_of_the_users_is_honored(name: str, change: Callable[[Any], None]) -> None:
    agent = agent_of(name)
    change(agent)
    before = agent.parameters.detach().clone()
    assert step_of(agent) == "composed"
    assert not torch.equal(agent.parameters, before)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(OwnLoss, "ppo"), (OwnTargets, "dqn"), (OwnDoubleTargets, "dqn, double"), (OwnGradient, "a2c")],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_subclass_with_its_own_step_is_honored(kind: type, name: str) -> None:
    plain = agent_of(name)
    agent = kind(plain.config, plain.envs)
    assert step_of(agent) == "composed"


def test_other_networks_and_terms_are_composed() -> None:
    for name, options in (("ppo", {"layer_norm": True}), ("a2c", {"popart": True}), ("dqn", {"dueling": True})):
        assert step_of(agent_of(name, **options)) == "composed"
    assert step_of(agent_of("dqn", optimizer="rmsprop")) == "composed"
    agent = agent_of("ppo")
    agent.seams.terms.append(Term())
    assert step_of(agent) == "composed"
    agent = agent_of("a2c")
    assert isinstance(agent.optimizer, FlatRMSprop)
    with automl_ext.backend("reference"):
        assert step_of(agent) == "composed"
