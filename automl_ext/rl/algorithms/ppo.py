"""PPO: proximal policy optimization with a clipped objective (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

repeat:
    act for ``n_steps`` in every environment
    A_t, G_t ← advantages and λ-returns of GAE; π_old ← π
    ``n_epochs`` times, for each minibatch of a new permutation of the steps:
        A ← (A − mean A) / std A;  r ← π(a|s) / π_old(a|s)
        one Adam step on  −min(r A, clip(r, 1 − ε, 1 + ε) A) + vf_coef (G − V)² − ent_coef H(π);
        with ``target_kl``: skip the rest of the update once KL(π_old ‖ π) on the minibatch exceeds 1.5 ``target_kl``

Huang et al. 2022 list implementation details (https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details).
Those of networks and their initial weights are in ``networks/actor_critic.py``, those of actions in
``networks/distributions.py``, those of Atari in ``envs/making.py``. Rewards are divided in ``envs/reward_scale.py``,
and observations are normalized by ``RunningNorm`` in ``networks/body.py``. There is no LSTM.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from automl_ext.ops.policy import policy_gradient_loss
from automl_ext.ops.returns import gae
from automl_ext.ops.steps import PolicyStepMetrics
from automl_ext.rl.envs.rollouts import Rollout, to_rollout
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.averages import mean_metrics
from automl_ext.rl.loop.policy_agent import OnPolicyAgent, PolicyConfig
from automl_ext.rl.loop.seams import Acted
from automl_ext.rl.loop.train_config import GAMMAS, LAMBDAS
from automl_ext.rl.networks.fused import FusedPolicy, fused_policy
from automl_ext.rl.networks.modes import evaluating
from automl_ext.rl.networks.parameters import FlatAdam, clipped_gradient
from automl_ext.training.checks import check_range
from automl_ext.training.machine.memory import flushed_denormals
from automl_ext.training.search_space import Categories, Range


@dataclass
class PPOConfig(PolicyConfig):
    """Configuration of PPO.

    The defaults are for new tasks, before any tuning; benchmarks/defaults.py measures them. --preset cartpole-zoo
    has the settings of Stable-Baselines3's zoo for CartPole-v1.
    """

    n_steps: Annotated[int, Range(16, 2048, log=True)] = 128  # Steps per environment and rollout.
    batch_size: Annotated[int, Range(16, 1024, log=True)] = 128  # Largest number of steps in a minibatch.
    n_epochs: Annotated[int, Range(1, 20)] = 10  # Passes over each rollout.
    gamma: Annotated[float, GAMMAS] = 0.99  # Discount factor.
    gae_lambda: Annotated[float, LAMBDAS] = 0.95
    """λ of generalized advantage estimation. 0: trust the next value; 1: n-step returns."""
    clip_range: Annotated[float, Range(0.1, 0.4)] = 0.2
    """ε: the loss clips the ratio of the new to the old probability to 1 ± ε."""
    clip_decay: Annotated[bool, Categories(False, True)] = False
    """Decrease the clip range linearly to 0 at total_steps."""
    value_clip: float | None = None  # Bound of the change of a value, in the clipped value loss. None: no clipping.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 1e-3  # Learning rate.
    lr_decay: Annotated[bool, Categories(False, True)] = True
    """Decrease the learning rate linearly to 0 at total_steps."""
    vf_coef: Annotated[float, Range(0.1, 1.0)] = 0.5  # Weight of the value loss.
    ent_coef: Annotated[float, Range(1e-8, 0.1, log=True)] = 0.01  # Weight of the entropy bonus.
    normalize_rewards: bool = True  # Divide rewards by the running standard deviation of the discounted returns.
    target_kl: float | None = None  # End the passes over a rollout when KL(π_old ‖ π) exceeds 1.5 times this.
    popart: bool = False  # Normalize the values of each task, and its advantages, by PopArt, instead of rewards.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_steps", "n_epochs", low=1)
        check_range(self, "batch_size", low=2)  # the normalized advantage of a single step is 0
        check_range(self, "gamma", "gae_lambda", low=0, high=1)
        check_range(self, "lr", "clip_range", "value_clip", "target_kl", above=0)
        check_range(self, "vf_coef", "ent_coef", low=0)
        if self.n_steps * self.n_envs < 2:
            raise ValueError("n_steps: expected n_steps × n_envs to be at least 2, got 1")


class Transitions(NamedTuple):
    """N valid steps of a rollout.

    Attributes:
        observations, actions: [N, ...].
        log_probs: log π_old(a|s), [N], of the policy before the update.
        values, advantages, returns: V(s) before the update, A(s, a) and the λ-returns G, [N].
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class PPO(OnPolicyAgent):
    """Proximal policy optimization with the clipped objective (Schulman et al. 2017).

    Its methods are those of :class:`automl_ext.rl.loop.agent.Agent`.

    Args and errors: see :class:`~automl_ext.rl.loop.policy_agent.OnPolicyAgent`.
    """

    algorithm = "ppo"

    def __init__(self, config: PPOConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        super().__init__(config, envs, encoder, steps=config.n_steps, popart=config.popart)
        self.optimizer = FlatAdam(self.parameters, config.lr, eps=1e-5)
        self.attach_extras()

    def iterate(self) -> dict[str, Any]:
        """Act for ``n_steps`` in every environment and update on the rollout; return scalar metrics."""
        self.set_initial_policy()
        config = self.config
        remaining = max(0.0, 1 - self.envs.steps / config.total_steps)
        self.optimizer.param_groups[0]["lr"] = config.lr * (remaining if config.lr_decay else 1)
        # The loss refuses a range of 0, which a loop of the user's own would reach at total_steps.
        clip = config.clip_range * (max(remaining, 1e-6) if config.clip_decay else 1)
        fused = self.fused()
        rollout = self.fused_rollout(fused, config.n_steps) if fused and fused.acts else self.rollout()
        steps = self.transitions(rollout)
        if not len(steps.actions):  # all environments were restarting
            return {}
        measured: list[dict[str, Any]] = []
        fused_step = fused and self.fused_step(fused, steps, clip)
        # In the first minibatch π is π_old, and its KL is rounding.
        max_kls = itertools.chain([math.inf], itertools.repeat(1.5 * (config.target_kl or math.inf)))
        with flushed_denormals():
            for rows, max_kl in zip(self.minibatches(len(steps.actions)), max_kls, strict=False):
                metrics = fused_step(rows, max_kl) if fused_step else self.step(steps, rows, clip, max_kl)
                if metrics.get("kl", 0.0) > max_kl:
                    break
                measured.append(metrics)
        metrics = mean_metrics(measured)
        if fused:
            metrics = PolicyStepMetrics(*metrics["all"])._asdict()
        metrics |= self.change(steps, clip) | self.seams.updated(rollout)
        self.network.saw(rollout.observations)  # not earlier: actions and loss must use the same normalization
        return metrics

    @torch.no_grad()
    def rollout(self) -> Rollout:
        """Act for ``n_steps`` in every environment: a ~ π(·|s)."""
        steps, actions = [], []
        for _ in range(self.config.n_steps):
            sampled, env_actions = self.sample(self.envs.observations)
            steps.append(self.envs.step(env_actions))
            actions.append(sampled)
        return to_rollout(steps, actions, self.device)

    @torch.no_grad()
    def transitions(self, rollout: Rollout) -> Transitions:
        """Compute advantages, returns and log π_old, and leave out the steps that are not valid."""
        config, network, valid = self.config, self.network, rollout.valid.flatten()
        log_probs, all_values = rollout.log_probs, rollout.values
        if log_probs is None or all_values is None:
            with evaluating(self.encoder_modules):  # as when acting
                outputs, all_values = network(rollout.observations)
            log_probs = network.distribution.log_probs(outputs[: len(valid)], rollout.actions)
        values, next_values = rollout.split_values(all_values)
        sequences = rollout.rewards, values, next_values, rollout.terminated, rollout.truncated
        advantages, returns = gae(*sequences, config.gamma, config.gae_lambda, valid=rollout.valid)
        flat = values.flatten(), advantages.flatten(), returns.flatten()
        rows = valid.nonzero().squeeze(1)  # one synchronization with a GPU; x[valid] has one for each x
        steps = Transitions(*(x[rows] for x in (rollout.acted, rollout.actions, log_probs, *flat)))
        network.saw_returns(steps.observations, steps.returns)  # changes nothing without PopArt
        return steps._replace(advantages=network.scaled(steps.advantages, steps.observations))

    def minibatches(self, n: int) -> Iterator[Tensor | None]:
        """Yield the rows of the minibatches of ``n_epochs`` random permutations of n steps; None for all rows.

        There are as few minibatches as possible per epoch, and their sizes differ by at most 1.
        """
        parts = -(-n // self.config.batch_size)  # rounded up
        for _ in range(self.config.n_epochs):
            if parts == 1:
                yield None
                continue
            order = torch.randperm(n, generator=self.rng, device=self.device)
            for i in range(parts):
                yield order[i * n // parts : (i + 1) * n // parts]

    def step(self, steps: Transitions, rows: Tensor | None, clip: float, max_kl: float) -> dict[str, Any]:
        """Take one Adam step on a minibatch; return scalar metrics. Changes nothing if the KL exceeds ``max_kl``."""
        batch = steps if rows is None else Transitions(*(x[rows] for x in steps))
        loss, metrics = self.loss(batch._replace(advantages=normalized(batch.advantages)), clip)
        if metrics.get("kl", 0.0) > max_kl:
            return metrics
        metrics["grad_norm"] = clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.seams.step()
        return metrics

    def loss(self, batch: Transitions, clip: float) -> tuple[Tensor, dict[str, Any]]:
        """Compute the loss of a minibatch, and scalar metrics (Schulman et al. 2017, equations 7 and 9):

        mean of −min(r A, clip(r, 1 − ε, 1 + ε) A) + vf_coef (G − V)² − ent_coef H(π),  r = π(a|s) / π_old(a|s)

        ε is ``clip``. :func:`automl_ext.policy_gradient_loss` computes the loss and its gradient in one pass;
        ``automl_ext.ops.policy.loss_reference`` is the same in a few lines of PyTorch. ``config.value_clip`` turns on
        the clipped value loss of the authors' code.
        """
        config, network, seen = self.config, self.network, batch.observations
        outputs, values = network(seen)
        log_probs, entropy = network.distribution.evaluate(outputs, batch.actions)
        values, returns, old_values = (network.scaled(x, seen) for x in (values, batch.returns, batch.values))
        loss, policy_loss, value_loss, mean_entropy = policy_gradient_loss(
            log_probs,
            entropy,
            values,
            batch.advantages,
            returns,
            old_log_probs=batch.log_probs,
            old_values=None if config.value_clip is None else old_values,
            clip=clip,
            value_clip=config.value_clip or math.inf,
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef,
        )
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": mean_entropy}
        if config.target_kl is not None:
            metrics["kl"] = kl_estimate(log_probs.detach() - batch.log_probs)
        return self.seams.add_terms(loss, metrics, network, Acted(seen, batch.actions))

    def fused(self) -> FusedPolicy | None:
        """Return acting and training steps in one call, or None if the steps would be other ones."""
        return fused_policy(self, PPO, ("loss", "step"))

    def fused_step(self, fused: FusedPolicy, steps: Transitions, clip: float) -> Callable[..., dict[str, Any]]:
        """Return :meth:`step` of these steps in one call of the op of :func:`automl_ext.policy_gradient_step`."""
        config = self.config
        step = fused.steps(
            steps.observations,
            steps.actions,
            steps.advantages,
            steps.returns,
            steps.log_probs,
            None if config.value_clip is None else steps.values,
            normalize_advantages=True,
            clip=clip,
            value_clip=config.value_clip or math.inf,
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef,
            max_norm=config.max_grad_norm,
        )

        def take(rows: Tensor | None, max_kl: float) -> dict[str, Any]:
            metrics = step(rows, max_kl)
            return (
                {"all": metrics} if config.target_kl is None else {"all": metrics, "kl": PolicyStepMetrics(*metrics).kl}
            )

        return take

    @torch.no_grad()
    def change(self, steps: Transitions, clip: float) -> dict[str, Tensor]:
        """Measure how far the update moved the policy on the rollout.

        Returns:
            kl: see :func:`kl_estimate`.
            clip_fraction: fraction of the steps whose ratio r left 1 ± ε.
        """
        with evaluating(self.encoder_modules):
            outputs = self.network.policy(steps.observations)
        log_ratio = self.network.distribution.log_probs(outputs, steps.actions) - steps.log_probs
        return {"kl": kl_estimate(log_ratio), "clip_fraction": (log_ratio.expm1().abs() > clip).float().mean()}


def kl_estimate(log_ratio: Tensor) -> Tensor:
    """Estimate KL(π_old ‖ π) by the mean of r − 1 − log r, which is at least 0 (http://joschu.net/blog/kl-approx.html).

    Args:
        log_ratio: log r = log π(a|s) − log π_old(a|s), [N].
    """
    return (log_ratio.expm1() - log_ratio).mean()


def normalized(advantages: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift and scale the advantages [N] of a minibatch to mean 0 and standard deviation 1."""
    std, mean = torch.std_mean(advantages, correction=0)
    return (advantages - mean) / (std + eps)
