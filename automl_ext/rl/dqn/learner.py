"""Q-learning from a replay: a Q-network, its target network, and the update."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from automl_ext.ops.targets import categorical_projection, td_targets
from automl_ext.rl.augmentation.batches import average_copies, make_augmentation
from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.rl.dqn.losses import categorical_loss, q_loss, q_loss_gradient, take_action
from automl_ext.rl.dqn.support import SupportCheck
from automl_ext.rl.loop.extensions import BatchTransform, ExtraLoss, load_states, states, total_loss
from automl_ext.rl.networks.mlp_gradient import MLPGradient
from automl_ext.rl.networks.parameters import clip_norm, flatten_parameters
from automl_ext.rl.networks.q_network import QNetwork, noisy_layers, resample
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.rl.replay.uniform import Batch, UniformReplay
from automl_ext.rl.representation.prediction import auxiliary_losses
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import flushed_denormals
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.seeding import derived_seed, generator


class QLearner:
    """Q-network, target network and optimizer. The transitions may come from environments or from a data set.

    Args:
        config: settings of network, optimizer and targets.
        space: observation space.
        actions: number of actions.
        seeds: two seeds, for initial weights and for the noise of noisy layers.
        encoder: a network from observations to features, see :class:`~automl_ext.rl.networks.body.Body`. The target
            network has a copy.

    Attributes:
        online, target: the networks.
        updates: number of gradient steps so far.
        transform: if not None, applied to every batch before its targets are computed.
        augmentation: if not None, applied after ``transform``. The targets of its copies of a transition are averaged.
        extra_losses: terms that are added to the loss.
        measured: metrics of the extra losses in the last gradient step.

    Raises:
        UserError: unsupported observation space.
    """

    def __init__(
        self,
        config: DQNConfig,
        space: gymnasium.Space,
        actions: int,
        seeds: tuple[int, int],
        encoder: nn.Module | None = None,
    ) -> None:
        self.config, self.device = config, choose_device(config.device)
        with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator
            torch.manual_seed(seeds[0])
            self.online = self._network(space, actions, encoder)
        self.target = self._network(space, actions, copy.deepcopy(encoder)).requires_grad_(False)
        # The target network shares the online network's observation statistics; only its weights lag behind.
        self.target.body.norm = self.online.body.norm
        self._weights, self._target_weights = flatten_parameters(self.online), flatten_parameters(self.target)
        gradient = self._weights.grad
        assert gradient is not None
        chain = self.online.chain()
        self._mlp = None if chain is None else MLPGradient(chain, gradient)
        self.sync_target()
        # For small networks the optimizer's time is proportional to its number of tensors, so it gets one vector.
        self.optimizer = torch.optim.Adam([self._weights], config.lr, eps=config.adam_eps, fused=True)
        self._noise = generator(seeds[1], self.device)
        self._support_check = SupportCheck(config.v_min, config.v_max) if config.distributional else None
        self._noisy, self._target_noisy = noisy_layers(self.online), noisy_layers(self.target)
        self.updates = 0
        self.transform: BatchTransform | None = None
        self.augmentation = make_augmentation(config, space, derived_seed(seeds[1], 1), self.device)
        self.extra_losses: Sequence[ExtraLoss] = auxiliary_losses(config, self.online, derived_seed(seeds[1], 2))
        self.measured: dict[str, Tensor] = {}

    def _network(self, space: gymnasium.Space, actions: int, encoder: nn.Module | None) -> QNetwork:
        c = self.config
        atoms = c.atoms if c.distributional else None
        network = QNetwork(
            space,
            actions,
            c.hidden,
            dueling=c.dueling,
            noisy=c.noisy,
            atoms=atoms,
            v_min=c.v_min,
            v_max=c.v_max,
            sigma=c.sigma,
            normalize=c.normalize,
            body=c.body,
            layer_norm=c.layer_norm,
            encoder=encoder,
        )
        return network.to(self.device)

    def update(self, replay: UniformReplay, steps: int) -> Tensor:
        """Take ``steps`` gradient steps; return their mean loss, 0-dim.

        Raises:
            UserError: a loss that is not finite, with a prioritized replay.
        """
        config = self.config
        # If the targets and the sampling do not change between gradient steps, sample all batches and compute all
        # targets at once: the results are the same and the matrix products are larger.
        added = self.extra_losses or self.transform or self.augmentation
        at_once = 1 if config.double or config.noisy or config.prioritized or added else steps
        size = config.batch_size * (1 if self.augmentation is None else self.augmentation.copies)
        losses = []
        with flushed_denormals():
            for _ in range(steps // at_once):
                batch = replay.sample(config.batch_size * at_once)
                if self.transform is not None:
                    batch = self.transform(batch)
                if self.augmentation is not None:
                    batch = self.augmentation(batch)
                parts = [x.split(size) for x in (batch.observations, batch.actions, self.targets(batch))]
                weights = batch.weights if config.prioritized else None
                for observations, actions, targets in zip(*parts, strict=True):
                    loss, errors = self.step(observations, actions, targets, weights, batch)
                    losses.append(loss)
                if isinstance(replay, PrioritizedReplay):
                    try:
                        replay.update_priorities(batch.indices, errors)
                    except ValueError as error:
                        raise UserError(f"diverged at update {self.updates}: {error}") from None
        return torch.stack(losses).mean()

    def targets(self, batch: Batch) -> Tensor:
        """Compute the targets of a batch, averaged over the augmentation's copies of each transition, as in DrQ."""
        targets = self.single_targets(batch)
        return targets if self.augmentation is None else average_copies(targets, self.augmentation.copies)

    @torch.no_grad()
    def single_targets(self, batch: Batch) -> Tensor:
        """Compute the targets, returns + discounts · V(next): [N], or distributions [N, atoms] if distributional.

        V is the target network's value of the greedy action. The target network selects that action, or the online
        network if ``double``. Each network draws new noise.
        """
        config = self.config
        resample([*self._target_noisy, *self._noisy] if config.double else self._target_noisy, self._noise)
        out = self.target(batch.next_observations)
        online_q = self.online.q(self.online(batch.next_observations)) if config.double else None
        if self._support_check is None:
            return td_targets(batch.returns, out, batch.terminated, batch.discounts, next_q_online=online_q)
        best = (self.target.q(out) if online_q is None else online_q).argmax(1)
        probs = take_action(out, best).softmax(-1)
        self._support_check.check(batch.returns + batch.discounts * (probs @ self.target.support))
        return categorical_projection(
            probs, batch.returns, batch.terminated, batch.discounts, config.v_min, config.v_max
        )

    def step(
        self,
        observations: Tensor,
        actions: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        batch: Batch | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Take one gradient step; return the loss and the error of each transition, detached.

        The extra losses, if any, are computed from ``batch``, which holds the same transitions.
        """
        gradient = self._weights.grad
        assert gradient is not None
        resample(self._noisy, self._noise)
        if self._mlp is not None and not self.extra_losses and observations.dtype == torch.float32:
            out = self._mlp.forward(observations)
            loss, errors, grad_out = q_loss_gradient(out, actions, targets, weights)
            self._mlp.backward(grad_out)
        else:
            loss_function = categorical_loss if self.config.distributional else q_loss
            loss, errors = loss_function(self.online(observations), actions, targets, weights)
            total, self.measured = total_loss(loss, self.extra_losses, self.online, batch)
            gradient.zero_()
            total.backward()
            for term in self.extra_losses:
                term.step()
        clip_norm(gradient, self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        return loss.detach(), errors

    def schedule(self, progress: float) -> None:
        """Set the learning rate for a fraction of the training, from 0 to 1, if it decays."""
        if self.config.lr_decay:
            self.optimizer.param_groups[0]["lr"] = self.config.lr * max(1 - progress, 0.0)

    def update_statistics(self, observations: Any) -> None:
        """Include observations [N, ...] in the normalization statistics, if observations are normalized."""
        if self.online.body.norm is not None:
            self.online.body.norm.update(torch.as_tensor(observations))

    def sync_target(self) -> None:
        """Copy the online network's weights to the target network."""
        with torch.no_grad():
            self._target_weights.copy_(self._weights)

    @torch.inference_mode()
    def best_actions(self, observations: Any) -> Tensor:
        """Return the greedy actions of the online network, [N, ...] → int64 [N].

        Noisy layers draw new noise for each observation, unless the network is in ``eval()`` mode.
        """
        observations = torch.as_tensor(observations, device=self.device)
        if self.online.training:
            resample(self._noisy, self._noise, len(observations))
        best: Tensor = self.online.q(self.online(observations)).argmax(1)
        return best

    def state_dict(self) -> dict[str, Any]:
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self._noise.get_state(),
            "updates": self.updates,
            "extra_losses": states(self.extra_losses),
            **({} if self.transform is None else {"transform": self.transform.state_dict()}),
            **({} if self.augmentation is None else {"augmentation": self.augmentation.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        load_optimizer(self.optimizer, state["optimizer"])
        self._noise.set_state(state["noise"])
        self.updates = state["updates"]
        load_states(self.extra_losses, state.get("extra_losses", []))
        if ("transform" in state) != (self.transform is not None):
            raise ValueError(f"transform: expected {self.transform}, got {state.get('transform')}")
        if self.transform is not None:
            self.transform.load_state_dict(state["transform"])
        if self.augmentation is not None:
            self.augmentation.load_state_dict(state["augmentation"])
