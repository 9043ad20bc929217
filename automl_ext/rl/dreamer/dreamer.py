"""Dreamer (Hafner et al. 2020, "Dream to control: learning behaviors by latent imagination", Algorithm 1).

fill the replay with ``prefill`` steps of random actions, then update ``pretrain`` times
repeat:
    ``updates_each`` times:
        sample sequences of actions, observations and rewards
        dynamics: infer the states s_t ~ q(s_t | s_{t−1}, a_{t−1}, o_t); fit the world model
        behavior: imagine H steps from every s_t with the policy; predict rewards and values; compute λ-returns V_λ
            the policy ascends V_λ, the value network regresses on V_λ
    act for ``train_every`` steps: infer s_t from the history, sample a_t ~ π(a | s_t), add noise; store in the replay

The world model is in ``world_model.py``; how actions are sampled, in ``actions.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from automl_ext.ops.networks import FusedMLP
from automl_ext.ops.returns import lambda_returns
from automl_ext.rl.dreamer.actions import OneHot, TanhNormal, actions_of
from automl_ext.rl.dreamer.world_model import RSSM, WorldModel, he_, keras_, model_loss
from automl_ext.rl.envs.packed import TAKERS, check_not_packed, observation_bytes
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.agent import Agent, State
from automl_ext.rl.loop.averages import Averages
from automl_ext.rl.loop.loop import multiples
from automl_ext.rl.loop.train_config import TrainConfig, envs_of
from automl_ext.rl.networks.parameters import FlatAdam, check_max_grad_norm, clipped_gradient, flatten_parameters
from automl_ext.rl.replay.sequences import SequenceReplay, Sequences
from automl_ext.training.checks import check_range
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory, flushed_denormals
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed, generator, seeded

WIDEST, DEEPEST = 2**14, 100  # largest sizes and numbers of layers; a typing error then causes an error message


@dataclass
class DreamerConfig(TrainConfig):
    """Configuration of Dreamer. All step counts are summed over the environments.

    The defaults suit small tasks with vector observations, such as CartPole-v1. --preset paper selects the settings
    of Hafner et al. 2020.

    Raises:
        ValueError: a number out of range.
    """

    total_steps: int = 20_000  # Environment steps to train for.
    eval_every: int = 1_000  # Steps between evaluations.
    checkpoint_every: int = 5_000  # Steps between checkpoints.
    prefill: int = 1_000  # Steps of random actions before training starts.
    pretrain: int = 100  # Additional updates at the start of training.
    train_every: int = 5  # Steps between updates.
    updates_each: int = 1  # Updates every train_every steps.
    batch_size: int = 16  # Sequences per update.
    sequence_length: int = 32  # Steps per sequence.
    replay_size: int = 1_000_000  # Replay capacity in steps. Only whole episodes are removed, the oldest first.
    deter: int = 64  # Size of the RSSM's deterministic state.
    stoch: int = 16  # Size of the RSSM's stochastic state.
    hidden: int = 64  # Units of the RSSM's hidden layers.
    units: int = 64  # Units of all other dense layers.
    depth: int = 32  # Channels of the first convolution, for image observations.
    encoder_layers: int = 2  # Layers of the encoder and of the decoder, for vector observations.
    reward_layers: int = 2  # Hidden layers of the reward head.
    continue_layers: int = 2  # Hidden layers of the continue head.
    value_layers: int = 2  # Hidden layers of the value network.
    actor_layers: int = 2  # Hidden layers of the policy.
    horizon: int = 15  # Imagined steps per trajectory.
    gamma: float = 0.99  # Discount factor.
    lam: float = 0.95  # λ of the λ-returns. 0: trust the next value; 1: the imagined rewards up to the horizon.
    free_nats: float = 0.0  # Minimum of the KL loss in nats; a batch mean below it gives no gradient.
    kl_scale: float = 1.0  # Weight of the KL loss.
    continue_scale: float = 10.0  # Weight of the loss of the termination predictor; 0: imagined episodes never end.
    normalize_images: bool = True
    """Normalize images by the running mean of every pixel, and by the standard deviation of all pixels. False: scale
    them to [−½, ½], as in the paper."""
    observation_std: float = 0.3  # Standard deviation of the decoder for normalized observations; 1 for other images.
    reward_scale: float = 1.0  # Factor applied to rewards before they are learned.
    entropy_scale: float = 0.05  # Weight of the bonus for the policy's entropy.
    model_lr: float = 1e-3  # Learning rate of the world model.
    actor_lr: float = 3e-4  # Learning rate of the policy.
    value_lr: float = 1e-3  # Learning rate of the value network.
    max_grad_norm: float = 100.0  # Gradient norm to clip at, for each network; inf: no clipping.
    exploration: float = 0.1  # Std of noise on continuous actions; probability of a random discrete action.
    initialization: Literal["torch", "keras", "he"] = "he"
    """Initial weights: as PyTorch; as Keras (the authors); or as PyTorch, with convolutions by He et al. 2015."""
    mode_samples: int = 0  # Evaluation takes the likeliest of this number of continuous actions; 0: tanh of the mean.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, *["train_every", "updates_each", "batch_size", "replay_size", "horizon"], low=1)
        check_range(self, "deter", "stoch", "hidden", "units", "depth", low=1, high=WIDEST)
        layers = "encoder_layers reward_layers continue_layers value_layers actor_layers"
        check_range(self, *layers.split(), low=1, high=DEEPEST)
        check_range(self, "sequence_length", low=2)
        check_range(self, "prefill", "pretrain", "mode_samples", low=0)
        check_range(self, "gamma", "lam", "exploration", low=0, high=1)
        check_range(self, "free_nats", "kl_scale", "continue_scale", "entropy_scale", low=0)
        check_range(self, "observation_std", "reward_scale", "model_lr", "actor_lr", "value_lr", above=0)
        check_max_grad_norm(self)


def imagine(
    rssm: RSSM,
    actor: Callable[[Tensor], Tensor],
    actions: OneHot | TanhNormal,
    start: Tensor,
    horizon: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Follow the policy in the world model for H steps (Hafner et al. 2020, section 3).

    Gradients flow through the states and the actions. The actor's inputs are detached states, so its gradient comes
    from the consequences of its actions only.

    Args:
        rssm: the recurrent model.
        actor: map from features [N, features] to the parameters of the policy.
        actions: the distribution of actions.
        start: features of s_0, [N, features].
        horizon: H.
        generator: random generator of actions and states.

    Returns:
        Features of s_0 … s_H, [H + 1, N, features].
        Entropy of the policy at s_0 … s_{H−1}, [H, N].
    """
    shape = horizon, len(start), rssm.stoch
    noise = torch.randn(shape, generator=generator, dtype=start.dtype, device=start.device)
    features, entropies = [start], []
    for eps in noise.unbind():
        action, entropy = actions.sample(actor(features[-1].detach()), generator)
        features.append(rssm.imagine(features[-1], action, eps))
        entropies.append(entropy)
    return torch.stack(features), torch.stack(entropies)


def imagined_returns(
    rewards: Tensor, values: Tensor, continues: Tensor | None, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Compute differentiable λ-returns of the imagined states s_0 … s_{H−1}, and the weights of these states.

    Unlike in the paper (equation 6), V(s) and the return of s exclude r(s), the reward of s itself:
    G_t = r(s_{t+1}) + γ[(1 − λ)V(s_{t+1}) + λG_{t+1}]. As in Gymnasium, a reward follows an action, so an episode's
    first state has none.

    Args:
        rewards: predicted rewards of the transitions to s_1 … s_H, [H, N].
        values: V of s_1 … s_H, [H, N].
        continues: probabilities that s_1 … s_H are not terminal, [H, N]; None: all 1.
        gamma, lam: γ and λ.

    Returns:
        Returns G, [H, N].
        Weights, [H, N], constants: the discounted probability that the trajectory reaches the state.
    """
    discounts = torch.full_like(rewards, gamma) if continues is None else gamma * continues
    returns = lambda_returns(rewards, values, None, None, gamma, lam, discounts=discounts)
    with torch.no_grad():
        weights = torch.cat([torch.ones_like(discounts[:1]), discounts[:-1]]).cumprod(0)
    return returns, weights


def actor_loss(returns: Tensor, entropy: Tensor, weights: Tensor, entropy_scale: float) -> Tensor:
    """Compute −E[G + entropy_scale · H] over [H, N] (Hafner et al. 2020, equation 7).

    The gradient flows through the returns and the dynamics; it is not a score-function estimate.
    """
    return -weighted_mean(returns + entropy_scale * entropy if entropy_scale else returns, weights)


def value_loss(values: Tensor, returns: Tensor, weights: Tensor) -> Tensor:
    """Compute E[½ (V − G)²] over [H, N] (Hafner et al. 2020, equation 8); the returns are constants."""
    return weighted_mean(0.5 * (values - returns.detach()).square(), weights)


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Compute the mean of w x over all elements, without dividing by the sum of the weights."""
    return (x * weights).mean()


class RecurrentState(NamedTuple):
    """The policy's recurrent state: h [B, deter], s [B, stoch] and the last action [B, A]."""

    deter: Tensor
    stoch: Tensor
    action: Tensor

    def reset(self, starting: np.ndarray) -> RecurrentState:
        """Return the state with zeros where an episode starts; ``starting`` bool [B]."""
        if not starting.any():
            return self
        keep = torch.from_numpy(~starting).to(self.deter.device, torch.float32).unsqueeze(1)
        return RecurrentState(*(x * keep for x in self))


class Dreamer(Agent):
    """The Dreamer agent; see :class:`automl_ext.rl.loop.agent.Agent`.

    The policy is recurrent: call :meth:`begin` before :meth:`act` so that its state is reset where episodes start.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.

    Attributes:
        model: the world model.
        actor: the policy, from the features of a state to the parameters of ``actions``.
        value: the value network.
        networks, vectors, optimizers: ``model``, ``actor`` and ``value``; the parameters of each, and its optimizer.
        replay: the episodes.

    Raises:
        UserError: unsupported observation or action space; environments, a replay or batches that do not fit into
            memory.
    """

    envs: Envs
    updates: int
    algorithm = "dreamer"

    def __init__(self, config: DreamerConfig, envs: Envs | None = None) -> None:
        self.config, self.device = config, choose_device(config.device)
        self.envs = envs or envs_of(config, config.n_envs, config.seed)
        space = self.envs.observation_space
        check_not_packed(space, "dreamer", TAKERS)
        self.actions = actions_of(self.envs.action_space, config.mode_samples)
        row = observation_bytes(space) + 4 * self.actions.size + 5
        check_memory("replay_size", min(2 * config.replay_size, config.total_steps) * row)  # with running episodes
        state = 4 * (config.deter + config.stoch + config.units)
        check_memory("batch_size", config.batch_size * config.sequence_length * (row + state))
        seeds = [derived_seed(config.seed, i) for i in range(3)]
        with seeded(seeds[0]):
            self.model = WorldModel(space, self.actions.size, config).to(self.device)
            features, units = self.model.features, config.units
            self.actor = FusedMLP(features, [units] * config.actor_layers, self.actions.outputs, "elu").to(self.device)
            self.value = FusedMLP(features, [units] * config.value_layers, 1, "elu").to(self.device)
            if config.initialization != "torch":
                for network in (self.model, self.actor, self.value):
                    {"keras": keras_, "he": he_}[config.initialization](network)
        self.networks = self.model, self.actor, self.value
        self.vectors = [flatten_parameters(network) for network in self.networks]
        rates = config.model_lr, config.actor_lr, config.value_lr
        self.optimizers = [FlatAdam(x, lr, eps=1e-7) for x, lr in zip(self.vectors, rates, strict=True)]
        self.generator = generator(seeds[1], self.device)  # of actions and states, observed and imagined
        sampling = np.random.default_rng(seeds[2])
        self.replay = SequenceReplay(config.replay_size, self.actions.size, self.envs.n_envs, sampling)
        self.state = self.initial_state(self.envs.n_envs)
        self.eval_state = self.state  # the recurrent state of act(), which is called for evaluation environments
        self.updates = 0
        self.attach_extras()

    def iterate(self) -> dict[str, Any]:
        """Act up to the next multiple of ``train_every`` steps, then update; return scalar metrics.

        There are ``updates_each`` updates for each multiple of ``train_every`` that was passed. If there are more
        environments than ``train_every``, one step of all of them passes several multiples. There are no updates before
        ``prefill`` steps. The first call that updates does ``pretrain`` additional updates.
        """
        envs, config = self.envs, self.config
        before = envs.steps
        until = (before // config.train_every + 1) * config.train_every
        new_observations = []
        while envs.steps < until:
            actions = self.explore(envs.observations)
            step = envs.step(self.actions.to_env(actions))
            self.replay.add(step, actions.numpy(force=True))
            new_observations.append(step.next_observations[step.valid])
        if self.model.norm is not None:
            self.model.norm.update(torch.from_numpy(np.concatenate(new_observations)))
        if envs.steps < config.prefill:
            return {}
        n_multiples = multiples(max(before, config.prefill - 1), envs.steps, config.train_every)
        return self.update(n_multiples * config.updates_each + (config.pretrain if self.updates == 0 else 0))

    def update(self, updates: int) -> dict[str, Any]:
        """Do ``updates`` updates, each on a new batch of sequences; return the means of their metrics."""
        config, metrics = self.config, Averages()
        for _ in range(updates):
            metrics.add(self.learn_from(self.replay.sample(config.batch_size, config.sequence_length, self.device)))
        return metrics.means()

    def learn_from(self, sequences: Sequences) -> dict[str, Tensor]:
        """Take one gradient step for each network; return scalar metrics.

        Args:
            sequences: observed sequences, [T, B, ...].
        """
        with flushed_denormals():
            features, metrics = self.learn_dynamics(sequences)
            # Skip padding and terminal states: trajectories imagined from them are meaningless.
            metrics |= self.learn_behavior(features[sequences.valid & ~sequences.terminated])
        self.updates += 1
        return metrics

    def learn_dynamics(self, sequences: Sequences) -> tuple[Tensor, dict[str, Tensor]]:
        """Infer the states of sequences, and take one gradient step for the world model.

        Returns:
            Features of the states, detached [T, B, features], and scalar metrics.
        """
        model = self.model
        noise = torch.randn(*sequences.rewards.shape, self.config.stoch, generator=self.generator, device=self.device)
        observations = model.prepare(sequences.observations)
        states = model.rssm.observe(model.encode(observations), sequences.actions, noise)
        loss, metrics = model_loss(model, states, observations, sequences, self.config)
        norm = self.descend(0, loss)
        return states.features.detach(), metrics | {"model_grad_norm": norm}

    def descend(self, i: int, loss: Tensor, keep_graph: bool = False) -> Tensor:
        """Take one step of network i against the gradient of a loss; return the gradient's norm before clipping."""
        own, limit = list(self.networks[i].parameters()), self.config.max_grad_norm
        norm = clipped_gradient(loss, self.vectors[i], limit, own, keep_graph)
        self.optimizers[i].step()
        return norm

    def learn_behavior(self, start: Tensor) -> dict[str, Tensor]:
        """Imagine trajectories, and take one gradient step each for policy and value network; return scalar metrics.

        Args:
            start: features of the states where trajectories start, [N, features], detached.
        """
        config, model = self.config, self.model
        states, entropy = imagine(model.rssm, self.actor, self.actions, start, config.horizon, self.generator)
        rewards = model.reward(states[1:]).squeeze(-1)
        continues = None if model.continues is None else model.continues(states[1:]).squeeze(-1).sigmoid()
        values = self.value(states).squeeze(-1)
        returns, weights = imagined_returns(rewards, values[1:], continues, config.gamma, config.lam)
        policy_loss = actor_loss(returns, entropy, weights, config.entropy_scale)
        regression_loss = value_loss(values[:-1], returns, weights)
        policy_norm = self.descend(1, policy_loss, keep_graph=True)
        value_norm = self.descend(2, regression_loss)
        weight = weights.mean()
        return {
            "actor_loss": policy_loss.detach(),
            "value_loss": regression_loss.detach(),
            "imagined_return": weighted_mean(returns.detach(), weights) / weight,
            "entropy": weighted_mean(entropy.detach(), weights) / weight,
            "actor_grad_norm": policy_norm,
            "value_grad_norm": value_norm,
        }

    @torch.inference_mode()
    def explore(self, observations: np.ndarray) -> Tensor:
        """Sample training actions [B, A], with exploration noise."""
        self.state = self.state.reset(self.envs.starting)
        if self.envs.steps < self.config.prefill:
            actions = self.actions.random(len(observations), self.generator)
            deter, stoch, _ = self.state
        else:
            deter, stoch, outputs = self.policy(self.state, observations, self.generator)
            actions, _ = self.actions.sample(outputs, self.generator)
            actions = self.actions.explore(actions, self.config.exploration, self.generator)
        self.state = RecurrentState(deter, stoch, actions)
        return actions

    def policy(
        self, state: RecurrentState, observations: np.ndarray, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Infer the model state after ``observations`` and evaluate the actor there.

        Args:
            state: the recurrent state before the observations.
            observations: [B, ...].
            generator: for sampling s from the posterior; None: s is the posterior's mean.

        Returns:
            h [B, deter], s [B, stoch] and the actor's outputs.
        """
        model, rssm = self.model, self.model.rssm
        prepared = model.prepare(torch.as_tensor(observations, device=self.device))
        deter = rssm.step(*state)
        stoch, std = rssm.posterior(deter, model.encode(prepared))
        if generator is not None:
            stoch = stoch + std * torch.randn(std.shape, generator=generator, device=std.device)
        return deter, stoch, self.actor(torch.cat([deter, stoch], -1))

    def begin(self, starting: np.ndarray) -> None:
        """Reset the state of :meth:`act` where an episode starts; ``starting`` bool [B]."""
        if len(starting) != len(self.eval_state.action):
            self.eval_state = self.initial_state(len(starting))
        self.eval_state = self.eval_state.reset(starting)

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return deterministic actions [B, …], the modes of the policy, and advance the recurrent state.

        :meth:`begin` resets the state.
        """
        deter, stoch, outputs = self.policy(self.eval_state, observations, None)
        actions = self.actions.mode(outputs)
        self.eval_state = RecurrentState(deter, stoch, actions)
        return self.actions.to_env(actions)

    @torch.inference_mode()
    def choose(
        self, observations: np.ndarray, state: State, starting: np.ndarray, deterministic: bool
    ) -> tuple[np.ndarray, State]:
        memory = self.initial_state(len(observations))
        if state is not None:
            given = [np.asarray(part, np.float32) for part in state]
            if [part.shape for part in given] != [tuple(part.shape) for part in memory]:
                raise ValueError(
                    f"state: expected arrays {[list(part.shape) for part in memory]}, got "
                    f"{[list(part.shape) for part in given]}"
                )
            memory = RecurrentState(*(torch.from_numpy(part).to(self.device) for part in given)).reset(starting)
        source = None if deterministic else generator(int(self.random.integers(2**32)), self.device)
        deter, stoch, outputs = self.policy(memory, observations, source)
        actions = self.actions.mode(outputs) if source is None else self.actions.sample(outputs, source)[0]
        memory = RecurrentState(deter, stoch, actions)
        return self.actions.to_env(actions), tuple(part.numpy(force=True) for part in memory)

    def initial_state(self, n: int) -> RecurrentState:
        """Return the recurrent state of ``n`` environments at the start of episodes, zeros."""
        deter, stoch = self.model.rssm.initial(n)
        return RecurrentState(deter, stoch, deter.new_zeros(n, self.actions.size))

    def policy_state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "actor": self.actor.state_dict()}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.actor.load_state_dict(state["actor"])

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.policy_state(),
            "value": self.value.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "updates": self.updates,
            "replay": self.replay.state_dict(),
            "memory": list(self.state),
            "generator": self.generator.get_state(),
            "envs": self.envs.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_policy_state(state)
        self.value.load_state_dict(state["value"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer(optimizer, saved)
        self.updates = state["updates"]
        self.replay.load_state_dict(state["replay"])
        self.state = RecurrentState(*(x.to(self.device) for x in state["memory"]))
        self.generator.set_state(state["generator"])
        if not self.envs.load_state_dict(state["envs"]):
            self.cut()

    def cut(self) -> None:
        self.replay.cut()  # envs.starting resets the recurrent state
