"""Networks of several agents or tasks: what they share, and what the policy sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from policy_worlds import Staggered, Together, lanes_of

from automl_ext.rl import A2C, A2CConfig, EnvOptions, export_policy
from automl_ext.rl.envs.groups import GroupedBox, joint_space, marked
from automl_ext.rl.networks.grouped import GroupedActorCritic, PerGroup
from automl_ext.training.errors import UserError

SPACE = GroupedBox((3 + 2,), np.float32, ("a", "b"))


def some(n: int = 9, hidden: int = 0) -> torch.Tensor:
    """Observations of groups 0, 1, 0, 1, …"""
    x = torch.randn(n, 5 + hidden)
    x[:, 3:5] = torch.eye(2)[torch.arange(n) % 2]
    return x


@pytest.mark.parametrize(
    ("separate", "shared_bodies", "shared_heads"),
    [("none", True, True), ("heads", True, False), ("networks", False, False)],
)
def test_a_group_changes_only_what_it_shares(separate: str, shared_bodies: bool, shared_heads: bool) -> None:
    network = GroupedActorCritic(SPACE, Discrete(2), (8,), separate=separate)
    x = some()
    outputs, values = network(x[::2])  # group 0 only
    (outputs.square().sum() + values.square().sum()).backward()
    others = {"policy_body": shared_bodies, "value_body": shared_bodies}
    others |= {"policy_heads": shared_heads, "value_heads": shared_heads}
    for name, shared in others.items():
        last = getattr(network, name).each[-1]  # of group 1, or of both
        changed = [p.grad is not None and bool(p.grad.any()) for p in last.parameters()]
        assert any(changed) == shared, name


def test_modules_are_applied_to_the_rows_of_their_group() -> None:
    layers = PerGroup(torch.nn.Linear(2, 3) for _ in range(3))
    x, groups = torch.randn(7, 2), torch.tensor([2, 0, 2, 1, 0, 2, 2])
    expected = torch.stack([layers.each[g](row) for g, row in zip(groups.tolist(), x, strict=True)])
    torch.testing.assert_close(layers(x, groups), expected)


def test_a_policy_does_not_see_what_is_hidden() -> None:
    space = GroupedBox((5 + 4,), np.float32, ("a", "b"), visible=5)
    network = GroupedActorCritic(space, Discrete(2), (8,), normalize=True)
    x = some(hidden=4)
    network.saw(x)
    changed = x.clone()
    changed[:, 5:] += 1
    (outputs, values), (others, other_values) = network(x), network(changed)
    assert torch.equal(outputs, others)
    assert not torch.isclose(values, other_values).any()
    assert torch.equal(network.groups(x), torch.arange(9) % 2)


@pytest.mark.parametrize(
    "options", [{"separate": "networks"}, {"separate": "heads", "env": EnvOptions(central_critic=True)}]
)
def test_learns_different_actions_for_each_agent(options: dict) -> None:
    envs = lanes_of(Together, copies=4, central="env" in options)
    agent = A2C(A2CConfig(lr=3e-2, optimizer="adam", hidden=(16,), **options), envs)
    for _ in range(50):
        agent.iterate()
    assert agent.act(envs.observations).tolist() == [0, 1] * 4
    with pytest.raises(UserError, match="export"):
        export_policy(agent, "policy")


def test_observations_of_different_sizes_and_kinds() -> None:
    image, other = Box(0, 255, (4, 4, 3), np.uint8), Box(0, 255, (4, 4, 2), np.uint8)
    space = joint_space([image, other], "ab")
    assert (space.shape, space.dtype, space.own) == ((4, 4, 5), np.uint8, 3)
    x = marked(np.full((4, 4, 2), 9, np.uint8), 1, space)
    assert x[0, 0].tolist() == [9, 9, 0, 0, 255]
    assert space.groups(np.stack([x, x])).tolist() == [1, 1]
    with pytest.raises(UserError, match="last axis"):
        joint_space([image, Box(0, 255, (5, 4, 3), np.uint8)], "ab")
    with pytest.raises(UserError, match="observations of b"):
        joint_space([image, Discrete(3)], "ab")


def test_dead_agents_do_not_disturb_a_central_critic() -> None:
    agent = A2C(A2CConfig(hidden=(8,), env=EnvOptions(central_critic=True)), lanes_of(Staggered, central=True))
    for _ in range(5):
        metrics = agent.iterate()
    assert all(np.isfinite(float(value)) for value in metrics.values())
