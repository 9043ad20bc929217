"""A2C: advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, https://arxiv.org/abs/1602.01783).

repeat:
    act for ``n_steps`` in every environment
    G_t, A_t ← n-step returns and advantages, or λ-returns and advantages of GAE
    one step of the optimizer on  −A log π(a|s) + vf_coef (G − V)² − ent_coef H(π)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from automl_ext.ops.policy import policy_gradient_loss
from automl_ext.ops.returns import gae
from automl_ext.ops.steps import PolicyStepMetrics
from automl_ext.rl.envs.rollouts import Rollout, to_rollout
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.policy_agent import OnPolicyAgent, PolicyConfig, standardized
from automl_ext.rl.loop.seams import Acted
from automl_ext.rl.loop.train_config import GAMMAS, LAMBDAS
from automl_ext.rl.networks.fused import FusedPolicy, fused_policy
from automl_ext.rl.networks.modes import evaluating
from automl_ext.rl.networks.parameters import FlatAdam, FlatRMSprop, clipped_gradient
from automl_ext.training.checks import check_range
from automl_ext.training.search_space import Categories, Range


@dataclass
class A2CConfig(PolicyConfig):
    """Configuration of A2C.

    The defaults are for new tasks, before any tuning; benchmarks/defaults.py measures them. Rollouts, optimizer and
    entropy bonus are those of the paper; the learning rate falls to 0, so that late updates change a good policy less.
    """

    n_steps: Annotated[int, Range(5, 256, log=True)] = 5  # Steps per environment and update.
    gamma: Annotated[float, GAMMAS] = 0.99  # Discount factor.
    gae_lambda: Annotated[float, LAMBDAS] = 0.9
    """λ of generalized advantage estimation. 0: trust the next value; 1: n-step returns."""
    normalize_advantages: Annotated[bool, Categories(False, True)] = False
    """Normalize the advantages of every update to mean 0 and standard deviation 1."""
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"  # Optimization algorithm.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 3e-3  # Learning rate.
    lr_decay: Annotated[bool, Categories(False, True)] = True
    """Decrease the learning rate linearly to 0 at total_steps."""
    vf_coef: Annotated[float, Range(0.1, 1.0)] = 0.5  # Weight of the value loss.
    ent_coef: Annotated[float, Range(1e-8, 0.1, log=True)] = 0.01  # Weight of the entropy bonus.
    normalize_rewards: bool = True  # Divide rewards by the running standard deviation of the discounted returns.
    popart: bool = False  # Normalize the values of each task, and its advantages, by PopArt, instead of rewards.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_steps", low=1)
        check_range(self, "gamma", "gae_lambda", low=0, high=1)
        check_range(self, "lr", above=0)
        check_range(self, "vf_coef", "ent_coef", low=0)


class A2C(OnPolicyAgent):
    """The A2C agent; see :class:`automl_ext.rl.loop.agent.Agent`.

    Training on a CPU is reproducible bit for bit on one machine with a fixed number of threads; on a GPU, only under
    :func:`torch.use_deterministic_algorithms`. The initial weights are the same
    for every number of threads, but rounding may differ between numbers of threads: PyTorch splits sums of more than
    32,768 elements over threads (here the gradient norm of a large network), and a BLAS may split large products.

    Args and errors: see :class:`~automl_ext.rl.loop.policy_agent.OnPolicyAgent`.
    """

    algorithm = "a2c"

    def __init__(self, config: A2CConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        super().__init__(config, envs, encoder, steps=config.n_steps, popart=config.popart)
        if config.optimizer == "adam":
            self.optimizer = FlatAdam(self.parameters, config.lr, eps=1e-5)
        else:
            self.optimizer = FlatRMSprop(self.parameters, config.lr, alpha=0.99, eps=1e-5)
        self.attach_extras()

    def iterate(self) -> dict[str, Any]:
        """Act for ``n_steps`` in every environment and take one gradient step; return scalar metrics."""
        self.set_initial_policy()
        fused = self.fused()
        rollout = self.fused_rollout(fused, self.config.n_steps) if fused and fused.acts else self.rollout()
        if self.config.lr_decay:
            remaining = max(0.0, 1 - self.envs.steps / self.config.total_steps)
            self.optimizer.param_groups[0]["lr"] = self.config.lr * remaining
        if fused and rollout.valid.any():
            metrics = self.fused_step(fused, rollout)
        else:
            metrics = self.compute_gradient(rollout)
            self.optimizer.step()
        self.network.saw(rollout.observations)  # not earlier: actions and loss must use the same normalization
        return metrics | self.seams.updated(rollout)

    def compute_gradient(self, rollout: Rollout) -> dict[str, Any]:
        """Set ``parameters.grad`` to the clipped gradient; return scalar metrics."""
        loss, metrics = self.loss(rollout)
        metrics["grad_norm"] = clipped_gradient(loss, self.parameters, self.config.max_grad_norm)
        self.seams.step()
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

    def loss(self, rollout: Rollout) -> tuple[Tensor, dict[str, Any]]:
        """Compute the loss of a rollout, and scalar metrics (Mnih et al. 2016, section 4):

        mean of −A log π(a|s) + vf_coef (G − V(s))² − ent_coef H(π), over the valid steps

        :func:`automl_ext.policy_gradient_loss` computes the loss and its gradient in one pass;
        ``automl_ext.ops.policy.loss_reference`` is the same in a few lines of PyTorch.
        """
        config, network, seen, weights = self.config, self.network, rollout.acted, rollout.weights
        advantages, returns = self.targets(rollout)
        network.saw_returns(seen[weights > 0], returns[weights > 0])  # changes nothing without PopArt
        returns, advantages = network.scaled(returns, seen), network.scaled(advantages, seen)
        if config.normalize_advantages:
            advantages = standardized(advantages, weights)
        outputs, values = network(seen)
        log_probs, entropy = network.distribution.evaluate(outputs, rollout.actions)
        values = network.scaled(values, seen)
        tensors = log_probs, entropy, values, advantages, returns
        loss, policy_loss, value_loss, mean_entropy = policy_gradient_loss(
            *tensors, weights=weights, vf_coef=config.vf_coef, ent_coef=config.ent_coef
        )
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": mean_entropy}
        return self.seams.add_terms(loss, metrics, network, Acted(seen, rollout.actions, weights))

    @torch.no_grad()
    def targets(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Compute advantages and returns, [T·B] each."""
        all_values = rollout.values
        if all_values is None:
            with evaluating(self.encoder_modules):  # as when acting
                all_values = self.network.values(rollout.observations)
        values, next_values = rollout.split_values(all_values)
        sequences = rollout.rewards, values, next_values, rollout.terminated, rollout.truncated
        advantages, returns = gae(*sequences, self.config.gamma, self.config.gae_lambda, valid=rollout.valid)
        return advantages.flatten(), returns.flatten()

    def fused(self) -> FusedPolicy | None:
        """Return acting and training steps in one call, or None if the steps would be other ones."""
        return fused_policy(self, A2C, ("loss", "compute_gradient"))

    def fused_step(self, fused: FusedPolicy, rollout: Rollout) -> dict[str, Any]:
        """Take the step on :meth:`loss` in one call of the op of :func:`automl_ext.policy_gradient_step`."""
        config, valid = self.config, rollout.valid
        advantages, returns = self.targets(rollout)
        step = fused.steps(
            rollout.acted,
            rollout.actions,
            advantages,
            returns,
            normalize_advantages=config.normalize_advantages,
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef,
            max_norm=config.max_grad_norm,
        )
        metrics = PolicyStepMetrics(*step(None if valid.all() else valid.flatten().nonzero().squeeze(1)))
        return {name: getattr(metrics, name) for name in ("policy_loss", "value_loss", "entropy", "grad_norm")}
