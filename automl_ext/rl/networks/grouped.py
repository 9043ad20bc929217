"""Actor-critics of several agents or tasks: shared or separate layers, a centralized critic, and PopArt."""

from __future__ import annotations

from collections.abc import Iterable

import gymnasium
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from automl_ext.rl.envs.groups import GroupedBox, Separate, names_of
from automl_ext.rl.envs.packed import check_not_packed
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.body import Body, orthogonal, orthogonal_layers
from automl_ext.rl.networks.distributions import distribution_of
from automl_ext.rl.networks.popart import PopArt


class PerGroup(nn.Module):
    """One module per group, each applied to the rows of its group; or a single module for all groups."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(modules)

    def forward(self, x: Tensor, groups: Tensor) -> Tensor:
        """Apply the modules to x [N, ...] with groups int64 [N]."""
        if len(self.each) == 1:
            result: Tensor = self.each[0](x)
            return result
        by_group = torch.cat([module(x[groups == i]) for i, module in enumerate(self.each)])
        return by_group[groups.argsort(stable=True).argsort()]  # back into the order of x


class GroupedActorCritic(ActorCritic):
    """An actor-critic that reads from each observation which agent or task it belongs to.

    Args:
        observation_space: usually a :class:`GroupedBox`. Its hidden entries are inputs of the value function only.
        action_space, hidden, normalize: see :class:`ActorCritic`.
        separate: which layers each group has for itself: "none"; "heads", the last layers of policy and value function;
            "networks", all layers.
        popart: the value heads are :class:`PopArt`, one per group.

    Raises:
        UserError: as from :class:`ActorCritic`.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        hidden: tuple[int, ...] = (64, 64),
        normalize: bool = False,
        separate: Separate = "none",
        popart: bool = False,
    ) -> None:
        nn.Module.__init__(self)  # the layers are other ones
        check_not_packed(observation_space, "separate, central_critic and popart")
        self.masked = None
        self.distribution = distribution_of(action_space)
        self.space, self.popart = observation_space, popart
        seen, everything = policy_space(observation_space), plain(observation_space)
        n = len(names_of(observation_space))
        bodies, policies = n if separate == "networks" else 1, n if separate != "none" else 1
        self.policy_body = PerGroup(_body(seen, hidden, normalize) for _ in range(bodies))
        vectors = len(observation_space.shape or ()) == 1
        # As in ActorCritic, policy and value function share the layers that see images.
        self.value_body = (
            PerGroup(_body(everything, hidden, normalize) for _ in range(bodies)) if vectors else self.policy_body
        )
        features = self.policy_body.each[0].features
        assert isinstance(features, int)
        outputs = self.distribution.outputs
        self.policy_heads = PerGroup(orthogonal(nn.Linear(features, outputs), 0.01) for _ in range(policies))
        values = n if popart else policies
        self.value_heads = PerGroup(
            orthogonal(PopArt(features) if popart else nn.Linear(features, 1), 1.0) for _ in range(values)
        )

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        groups = self.groups(observations)
        for_policy = self.policy_body(self._seen(observations), groups)
        for_value = for_policy if self.value_body is self.policy_body else self.value_body(observations, groups)
        return self.policy_heads(for_policy, groups), self.value_heads(for_value, groups).squeeze(-1)

    def values(self, observations: Tensor) -> Tensor:
        return self(observations)[1]

    def groups(self, observations: Tensor) -> Tensor:
        """Return the group of each observation, int64 [N]."""
        if isinstance(self.space, GroupedBox):
            groups: Tensor = self.space.groups(observations)
            return groups
        return torch.zeros(len(observations), dtype=torch.int64, device=observations.device)

    def saw(self, observations: Tensor) -> None:
        groups = self.groups(observations)
        for bodies, x in ((self.policy_body, self._seen(observations)), (self.value_body, observations)):
            for i, body in enumerate(bodies.each):
                if isinstance(body, Body) and body.norm is not None:
                    body.norm.update(x if len(bodies.each) == 1 else x[groups == i])

    def policy(self, observations: Tensor) -> Tensor:
        groups = self.groups(observations)
        return self.policy_heads(self.policy_body(self._seen(observations), groups), groups)

    def saw_returns(self, observations: Tensor, returns: Tensor) -> None:
        if self.popart:
            groups = self.groups(observations)
            for i, head in enumerate(self.value_heads.each):
                assert isinstance(head, PopArt)
                head.update(returns[groups == i])

    def scaled(self, x: Tensor, observations: Tensor) -> Tensor:
        return x / self.sigma(observations) if self.popart else x

    def sigma(self, observations: Tensor) -> Tensor:
        """Return the scale of the values of each observation's group, [N]; with ``popart`` only."""
        heads = (head for head in self.value_heads.each if isinstance(head, PopArt))
        return torch.stack([head.sigma for head in heads])[self.groups(observations)]

    def _seen(self, observations: Tensor) -> Tensor:
        return observations[..., : self.space.visible] if isinstance(self.space, GroupedBox) else observations


def policy_space(space: gymnasium.Space) -> gymnasium.Space:
    """Return the space of the part of the observations that a policy sees."""
    if not isinstance(space, GroupedBox):
        return space
    return Box(space.low[..., : space.visible], space.high[..., : space.visible], dtype=space.dtype.type)


def plain(space: gymnasium.Space) -> gymnasium.Space:
    """Return an equal Box that hides no entries."""
    return Box(space.low, space.high, dtype=space.dtype.type) if isinstance(space, GroupedBox) else space


def _body(space: gymnasium.Space, hidden: tuple[int, ...], normalize: bool) -> Body:
    """Build a body as in :class:`ActorCritic`: tanh for vectors, ReLU for images, orthogonal weights."""
    vectors = len(space.shape or ()) == 1
    body = Body(space, hidden, nn.Tanh if vectors else nn.ReLU, normalize)
    orthogonal_layers(body)
    return body
