"""Terms of the loss that extras add: their gradient, the calls after updates, and resumed runs."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from dqn_worlds import Fork, small
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from policy_worlds import Bandit, envs_in, rollout_of
from torch import Tensor, nn

from automl_ext.rl import A2C, DQN, A2CConfig, Envs, Reinforce, ReinforceConfig
from automl_ext.rl.registry import algorithm

WEIGHT = -3.0  # of the term


class Squares:
    """c · weighted mean of the squared outputs, a :class:`LossTerm` without parameters of its own."""

    def __init__(self, c: float) -> None:
        self.c, self.batches, self.steps = c, [], 0  # type: ignore[var-annotated]

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self.batches.append(batch)
        value = squares(network, batch)
        return self.c * value, {"squares": value.detach()}

    def step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def squares(network: nn.Module, batch: Any) -> Tensor:
    out = network(batch.observations)
    out = out[0] if isinstance(out, tuple) else out
    value: Tensor = (batch.weights * out.square().flatten(1).sum(1)).sum()
    return value


class Decoder(Squares):
    """Predict the observation from the network's outputs by a layer with an optimizer of its own."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__(1.0)
        self.layer = nn.Linear(outputs, inputs)
        self.optimizer = torch.optim.Adam(self.layer.parameters(), 1e-2)

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        out = network(batch.observations)
        error = self.layer(out[0] if isinstance(out, tuple) else out) - batch.observations
        loss = error.square().mean()
        return loss, {"decoder": loss.detach()}

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"layer": self.layer.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.layer.load_state_dict(state["layer"])
        self.optimizer.load_state_dict(state["optimizer"])


def add(agent: Any, term: Squares) -> None:
    """Add a term as an extra does."""
    agent.seams.terms.append(term)
    agent.seams.parts["term"] = term


def a2c() -> A2C:
    return A2C(A2CConfig(hidden=(8,), max_grad_norm=1e9), envs_in(Bandit))


def reinforce() -> Reinforce:
    return Reinforce(ReinforceConfig(hidden=(8,), max_grad_norm=1e9), envs_in(Bandit))


def dqn(**changes: Any) -> DQN:
    envs = Envs(SyncVectorEnv([Fork] * 4, autoreset_mode=AutoresetMode.SAME_STEP), 0)
    return DQN(small(hidden=(8,), learning_starts=0, max_grad_norm=1e9, **changes), envs)


def gradient_of(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("make", [a2c, reinforce])
def test_policy_gradient_adds_the_gradient_of_a_term(make: Any) -> None:
    agent, term = make(), Squares(WEIGHT)
    rollout = agent.play_episodes() if make is reinforce else rollout_of(agent, 5)
    agent.loss(rollout)[0].backward()
    without = gradient_of(agent.network).clone()
    agent.parameters.grad.zero_()
    add(agent, term)
    loss, metrics = agent.loss(rollout)
    loss.backward()
    batch = term.batches[0]
    assert len(batch.observations) == len(batch.actions) == rollout.valid.numel()
    assert batch.weights.sum().item() == pytest.approx(1)
    assert ((batch.weights == 0) == ~rollout.valid.flatten()).all()
    value = squares(agent.network, batch)
    alone = torch.autograd.grad(value, list(agent.network.parameters()), allow_unused=True)
    expected = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(alone, agent.network.parameters(), strict=True)
        ]
    )
    assert metrics["squares"] == value.detach()
    assert expected.norm() > 1e-4
    torch.testing.assert_close(gradient_of(agent.network), without + WEIGHT * expected, rtol=1e-5, atol=1e-7)
    agent.iterate()
    assert term.steps == 1


@pytest.mark.parametrize("switches", [{}, {"double": True, "prioritized": True}, {"distributional": True}], ids=str)
def test_q_learning_adds_the_gradient_of_a_term(switches: dict[str, Any]) -> None:
    agent, term = dqn(**switches), Squares(WEIGHT)
    agents = agent, dqn(**switches)
    for one in agents:
        while one.envs.steps < 64:
            one.replay.add(one.envs.step(one.explore(one.envs.observations)))
    before = {name: p.detach().clone() for name, p in agent.online.named_parameters()}
    add(agent, term)
    add(agents[1], Squares(0.0))  # so that its gradient is in the parameters, too
    metrics = [one.update(1) for one in agents]
    assert (term.steps, agent.updates) == (1, 1)
    added = gradient_of(agent.online) - gradient_of(agents[1].online)
    online, batch = agents[1].online, term.batches[0]
    online.load_state_dict(before, strict=False)  # the weights before the update
    value = squares(online, batch)
    assert metrics[0]["squares"].item() == pytest.approx(value.item(), rel=1e-6)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(online.parameters()))])
    assert expected.norm() > 1e-3
    torch.testing.assert_close(added, WEIGHT * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [a2c, reinforce, dqn])
def test_calls_after_updates_get_the_rollout_and_their_metrics_are_reported(make: Any) -> None:
    agent, rollouts = make(), []

    def call(rollout: Any) -> dict[str, Any]:
        rollouts.append(rollout)
        return {"calls": len(rollouts)}

    agent.seams.after.append(call)
    assert [agent.iterate()["calls"] for _ in range(3)] == [1, 2, 3]
    assert all((rollout is None) == (make is dqn) for rollout in rollouts)


CARTPOLE: dict[str, Any] = {"a2c": A2CConfig(), "dqn": small(learning_starts=0)}


@pytest.mark.parametrize("name", CARTPOLE)
def test_resumed_run_with_a_term_equals_uninterrupted_run(name: str) -> None:
    def made() -> tuple[Any, Decoder]:
        torch.manual_seed(0)
        agent = algorithm(name).agent(replace(CARTPOLE[name], hidden=(8,), n_envs=2))
        term = Decoder(2, 4)
        add(agent, term)
        return agent, term

    agent, term = made()
    for _ in range(3):
        agent.iterate()
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    other, other_term = made()
    first = other_term.layer.weight.detach().clone()
    other.load_state_dict(torch.load(file, weights_only=True))
    for one in (agent, other):
        for _ in range(3):
            metrics = one.iterate()
    assert metrics["decoder"] > 0
    assert not torch.equal(term.layer.weight, first)
    assert torch.equal(term.layer.weight, other_term.layer.weight)
    states = agent.policy_state(), other.policy_state()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("make", [a2c, dqn])
def test_state_of_other_extras_is_refused(make: Any) -> None:
    agent, other = make(), make()
    add(other, Squares(1.0))
    with pytest.raises(ValueError, match=r"extras: expected \['term'\], got none"):
        other.load_state_dict(agent.state_dict())
