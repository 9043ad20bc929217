"""The update of Dreamer: fit the world model to experience, then train policy and value on imagined trajectories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from automl_ext.rl.dreamer import losses
from automl_ext.rl.dreamer.actions import OneHot, TanhNormal
from automl_ext.rl.dreamer.config import DreamerConfig
from automl_ext.rl.dreamer.fused.mlp import MLP, ScalarHead
from automl_ext.rl.dreamer.imagination import imagine
from automl_ext.rl.dreamer.initialization import keras_
from automl_ext.rl.dreamer.world_model import WorldModel
from automl_ext.rl.networks.parameters import clip_norm, flatten_parameters
from automl_ext.rl.replay.sequences import Sequences
from automl_ext.training import ranks
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import flushed_denormals
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import generator


class Learner:
    """Dreamer's networks and optimizers, and the random generator of the updates.

    Args:
        config: sizes of the networks and settings of the update.
        space: observation space.
        actions: action distribution.
        seeds: two seeds, for initial weights and for noise.

    Attributes:
        optimizers: the optimizers of world model, policy and value network, in this order.
        updates: number of updates so far.

    Raises:
        UserError: observations that the world model does not take.
    """

    def __init__(
        self, config: DreamerConfig, space: gymnasium.Space, actions: OneHot | TanhNormal, seeds: tuple[int, int]
    ) -> None:
        self.config, self.actions, self.device = config, actions, choose_device(config.device)
        with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator
            torch.manual_seed(seeds[0])
            self.model = WorldModel(space, actions.size, config).to(self.device)
            features, units = self.model.features, config.units
            self.actor = MLP(features, units, config.actor_layers, actions.outputs).to(self.device)
            self.value = MLP(features, units, config.value_layers, 1).to(self.device)
            if config.initialization == "keras":
                keras_([self.model, self.actor, self.value])
        self.optimizers = [
            Optimizer(network, lr, config.max_grad_norm)
            for network, lr in (
                (self.model, config.model_lr),
                (self.actor, config.actor_lr),
                (self.value, config.value_lr),
            )
        ]
        self.generator = generator(seeds[1], self.device)
        self.updates = 0

    def update(self, sequences: Sequences) -> dict[str, Tensor]:
        """Take one gradient step for each network; return scalar metrics.

        Args:
            sequences: observed sequences, [T, B, ...]. With several ranks, this rank computes the gradients of a part
                of the B sequences.
        """
        with flushed_denormals():
            features, metrics = self.learn_dynamics(sequences)
            # Skip padding and terminal states: trajectories imagined from them are meaningless.
            continuing = sequences.valid & ~sequences.terminated
            part = ranks.part(continuing.shape[1])
            own = None
            if ranks.count() > 1:
                own = torch.zeros_like(continuing)
                own[:, part] = True
                own = own[continuing]
            metrics |= self.learn_behavior(features[continuing[:, part]], own)
        self.updates += 1
        return metrics

    def learn_dynamics(self, sequences: Sequences) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one gradient step for the world model.

        Returns:
            Features of the posterior states, detached [T, B, features], and scalar metrics. With several ranks, the
            features are those of this rank's part of the sequences.
        """
        config, model = self.config, self.model
        noise = torch.randn(*sequences.rewards.shape, config.stoch, generator=self.generator, device=self.device)
        masks = {"reward_loss": sequences.has_reward}  # an episode's first observation has a placeholder reward
        valid, part = sequences.valid, ranks.part(sequences.valid.shape[1])
        sequences, noise = Sequences(*(x[:, part] for x in sequences)), noise[:, part]
        observations = model.prepare(sequences.observations)
        states = model.rssm.observe(model.encode(observations), sequences.actions, noise)

        std = 1.0 if model.images else config.observation_std
        rewards = sequences.rewards * config.reward_scale
        terms = {
            "observation_loss": losses.observation_loss(model.decode(states.features), observations, std),
            "reward_loss": losses.reward_loss(model.reward(states.features).squeeze(-1), rewards),
            "kl": losses.kl_divergence(states.posterior, states.prior),
        }
        if model.continues is not None:
            logits = model.continues(states.features).squeeze(-1)
            terms["continue_loss"] = losses.continue_loss(logits, sequences.terminated)
        means = {name: losses.masked_mean(term, masks.get(name, valid), part) for name, term in terms.items()}
        measured = ranks.totals({name: x.detach() for name, x in means.items()})
        scales = {"kl": config.kl_scale, "continue_loss": config.continue_scale}
        penalized = means | {"kl": losses.free_nats_loss(means["kl"], config.free_nats)}
        if ranks.count() > 1:  # the mean of the whole batch is at least free_nats, not that of each part
            penalized["kl"] = means["kl"] * (measured["kl"] >= config.free_nats)
        loss = torch.stack([scales.get(name, 1.0) * mean for name, mean in penalized.items()]).sum()
        norm = self.optimizers[0].step(loss.backward)
        return states.features.detach(), measured | {"model_grad_norm": norm}

    def learn_behavior(self, start: Tensor, own: Tensor | None = None) -> dict[str, Tensor]:
        """Take one gradient step each for policy and value network; return scalar metrics.

        Args:
            start: features of the states where imagined trajectories start, [N, features], detached.
            own: with several ranks, which of the states of all ranks these are, bool.
        """
        config, model = self.config, self.model
        total = len(start) if own is None else len(own)
        action_noise = self.actions.noise((config.horizon, total), self.generator)
        shape = config.horizon, total, config.stoch
        state_noise = torch.randn(shape, generator=self.generator, device=self.device)
        if own is not None:
            action_noise, state_noise = action_noise[:, own], state_noise[:, own]
        share = len(start) / total
        states, entropy = imagine(model.rssm, self.actor, self.actions, start, action_noise, state_noise)
        value_heads = [ScalarHead(self.value, state) for state in states]
        values = torch.stack([v.values for v in value_heads])
        rewards = torch.stack([ScalarHead(model.reward, state).values for state in states[1:]])
        continues = None
        if model.continues is not None:
            continues = torch.stack([ScalarHead(model.continues, state).values for state in states[1:]]).sigmoid()
        returns, weights = losses.imagined_returns(rewards, values[1:], continues, config.gamma, config.lam)
        actor_loss = losses.actor_loss(returns, entropy, weights, config.entropy_scale) * share
        actor_norm = self.optimizers[1].step(actor_loss.backward)

        values = values[:-1].detach().requires_grad_()
        value_loss = losses.value_loss(values, returns, weights) * share

        def regress() -> None:
            (gradients,) = torch.autograd.grad(value_loss, values)
            for head, gradient in zip(value_heads, gradients, strict=False):  # the last state has no loss
                head.backward(gradient)

        value_norm = self.optimizers[2].step(regress)
        measured = ranks.totals(
            {
                "actor_loss": actor_loss.detach(),
                "value_loss": value_loss.detach(),
                "return": losses.weighted_mean(returns.detach(), weights) * share,
                "entropy": losses.weighted_mean(entropy.detach(), weights) * share,
                "weight": weights.mean() * share,
            }
        )
        return {
            "actor_loss": measured["actor_loss"],
            "value_loss": measured["value_loss"],
            "imagined_return": measured["return"] / measured["weight"],
            "entropy": measured["entropy"] / measured["weight"],
            "actor_grad_norm": actor_norm,
            "value_grad_norm": value_norm,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "actor": self.actor.state_dict(),
            "value": self.value.state_dict(),
            "optimizers": [optimizer.adam.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.actor.load_state_dict(state["actor"])
        self.value.load_state_dict(state["value"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer(optimizer.adam, saved)
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]


class Optimizer:
    """Adam on all parameters of a network as one vector, with clipping of the gradient norm.

    Args:
        network: its parameters become views of the vector.
        lr: learning rate.
        max_grad_norm: gradient norm to clip at; inf: no clipping.
    """

    def __init__(self, network: nn.Module, lr: float, max_grad_norm: float) -> None:
        self.vector, self.max_grad_norm = flatten_parameters(network), max_grad_norm
        self.adam = torch.optim.Adam([self.vector], lr, eps=1e-7, fused=True)

    def step(self, backward: Callable[[], None]) -> Tensor:
        """Take one step along the gradient; return the gradient's norm before clipping.

        Args:
            backward: adds the gradient to ``grad`` of the parameters.
        """
        gradient = self.vector.grad
        assert gradient is not None
        gradient.zero_()
        backward()
        ranks.add_up(gradient)
        norm = clip_norm(gradient, self.max_grad_norm)
        self.adam.step()
        return norm
