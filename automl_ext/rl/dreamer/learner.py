"""One update of Dreamer: the world model from experience, then policy and value from what it imagines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from automl_ext.rl.dreamer import losses
from automl_ext.rl.dreamer.actions import OneHot, TanhNormal
from automl_ext.rl.dreamer.config import DreamerConfig
from automl_ext.rl.dreamer.fused.mlp import MLP, ScalarOf
from automl_ext.rl.dreamer.imagination import imagine
from automl_ext.rl.dreamer.world_model import WorldModel
from automl_ext.rl.networks.parameters import clip_norm, flatten_parameters
from automl_ext.rl.replay.sequences import Sequences
from automl_ext.training.device import choose_device
from automl_ext.training.memory import flushed_denormals
from automl_ext.training.seeding import generator


class Learner:
    """Networks, their optimisers, and the noise of the updates.

    Args:
        config: sizes and settings.
        space: of observations.
        actions: how actions are drawn.
        seeds: two, for weights and for noise.
    """

    def __init__(
        self, config: DreamerConfig, space: gymnasium.Space, actions: OneHot | TanhNormal, seeds: tuple[int, int]
    ) -> None:
        self.config, self.actions, self.device = config, actions, choose_device(config.device)
        with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global generator
            torch.manual_seed(seeds[0])
            self.model = WorldModel(space, actions.size, config).to(self.device)
            features, units = self.model.features, config.units
            self.actor = MLP(features, units, config.actor_layers, actions.outputs).to(self.device)
            self.value = MLP(features, units, config.value_layers, 1).to(self.device)
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
        """One gradient step of each of the three; what was measured."""
        with flushed_denormals():
            features, measured = self.learn_dynamics(sequences)
            goes_on = sequences.valid & ~sequences.terminated  # elsewhere there is nothing to imagine
            measured |= self.learn_behaviour(features[goes_on])
        self.updates += 1
        return measured

    def learn_dynamics(self, sequences: Sequences) -> tuple[Tensor, dict[str, Tensor]]:
        """Fit the world model; the posterior states' features [T, B, ·], and losses."""
        config, model = self.config, self.model
        observations = model.prepare(sequences.observations)
        noise = torch.randn(*sequences.rewards.shape, config.stoch, generator=self.generator, device=self.device)
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
        known = {"reward_loss": sequences.paid}
        means = {name: losses.masked_mean(term, known.get(name, sequences.valid)) for name, term in terms.items()}
        scales = {"kl": config.kl_scale, "continue_loss": config.continue_scale}
        limited = means | {"kl": losses.free_nats_loss(means["kl"], config.free_nats)}
        loss = torch.stack([scales.get(name, 1.0) * mean for name, mean in limited.items()]).sum()
        norm = self.optimizers[0].step(loss.backward)
        return states.features.detach(), {name: x.detach() for name, x in means.items()} | {"model_grad_norm": norm}

    def learn_behaviour(self, start: Tensor) -> dict[str, Tensor]:
        """Improve policy and value in imagination from states [N, features]."""
        config, model, n = self.config, self.model, len(start)
        action_noise = self.actions.noise((config.horizon, n), self.generator)
        shape = config.horizon, n, config.stoch
        state_noise = torch.randn(shape, generator=self.generator, device=self.device)
        states, entropy = imagine(model.rssm, self.actor, self.actions, start, action_noise, state_noise)
        judged = [ScalarOf(self.value, state) for state in states]
        values = torch.stack([v.values for v in judged])
        rewards = torch.stack([ScalarOf(model.reward, state).values for state in states[1:]])
        continues = None
        if model.continues is not None:
            continues = torch.stack([ScalarOf(model.continues, state).values for state in states[1:]]).sigmoid()
        returns, weights = losses.imagined_returns(rewards, values[1:], continues, config.gamma, config.lam)
        actor_loss = losses.actor_loss(returns, entropy, weights, config.entropy_scale)
        actor_norm = self.optimizers[1].step(actor_loss.backward)

        values = values[:-1].detach().requires_grad_()
        value_loss = losses.value_loss(values, returns, weights)

        def regress() -> None:
            (gradients,) = torch.autograd.grad(value_loss, values)
            for one, gradient in zip(judged, gradients, strict=False):  # but of the last state
                one.backward(gradient)

        value_norm = self.optimizers[2].step(regress)
        return {
            "actor_loss": actor_loss.detach(),
            "value_loss": value_loss.detach(),
            "imagined_return": losses.weighted_mean(returns.detach(), weights) / weights.mean(),
            "entropy": losses.weighted_mean(entropy.detach(), weights) / weights.mean(),
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
            optimizer.adam.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]


class Optimizer:
    """Adam on all parameters of a network as one vector, the gradient's norm clipped."""

    def __init__(self, network: nn.Module, lr: float, max_grad_norm: float) -> None:
        self.vector, self.max_grad_norm = flatten_parameters(network), max_grad_norm
        self.adam = torch.optim.Adam([self.vector], lr, eps=1e-7, fused=True)

    def step(self, backward: Callable[[], None]) -> Tensor:
        """Descend the gradient that ``backward`` adds to the parameters'; its norm before it was clipped."""
        gradient = self.vector.grad
        assert gradient is not None
        gradient.zero_()
        backward()
        norm = clip_norm(gradient, self.max_grad_norm)
        self.adam.step()
        return norm
