"""DQN (Mnih et al. 2015, algorithm 1, https://doi.org/10.1038/nature14236), and the parts that Rainbow adds to it.

repeat:
    act ε-greedily: argmax Q(s, ·), or a random action with probability ε; store (s, a, r, s′) in the replay
    every ``train_freq`` steps, ``gradient_steps`` times:
        sample a batch of (s, a, r, s′)
        y = r + γ max Q_target(s′, ·), or r if s′ is terminal
        one gradient step on Huber(Q(s, a) − y)
    every ``target_update_interval`` steps: Q_target ← Q

What Rainbow adds (Hessel et al. 2018) follows after the loop: the targets of ``double`` and ``distributional``, and the
noise of ``noisy``. ``dueling`` is in the network, ``prioritized`` and ``n_step`` are in the replay.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.ops.targets import categorical_projection, td_targets
from automl_ext.rl.envs.packed import observation_bytes
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.averages import mean_metrics
from automl_ext.rl.loop.loop import multiples
from automl_ext.rl.loop.train_config import GAMMAS, TrainConfig, envs_of
from automl_ext.rl.networks.action_spaces import discrete
from automl_ext.rl.networks.body import use_bfloat16
from automl_ext.rl.networks.encoders import Kind
from automl_ext.rl.networks.fused import FusedQ, fused_q
from automl_ext.rl.networks.modes import evaluating
from automl_ext.rl.networks.parameters import (
    CenteredRMSprop,
    FlatAdam,
    check_hidden,
    check_max_grad_norm,
    clipped_gradient,
    flatten_parameters,
)
from automl_ext.rl.networks.q_network import QNetwork, noisy_layers, resample
from automl_ext.rl.replay.prioritized import PrioritizedReplay
from automl_ext.rl.replay.uniform import Batch, UniformReplay
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.memory import check_memory, flushed_denormals
from automl_ext.training.optimizer_state import load_optimizer
from automl_ext.training.search_space import Categories, Range
from automl_ext.training.seeding import (
    derived_seed,
    generator,
    numpy_generator_state,
    seeded,
    set_numpy_generator_state,
)

JOINT_BYTES = 64 << 20  # bytes of observations for which targets are computed at once
CHECK_EVERY = 10  # calls between checks of the support; a check synchronizes with the device
CHECK_TOLERANCE = 0.01  # relative to the support's width; tolerates rounding, and values just outside the support


@dataclass
class DQNConfig(TrainConfig):
    """Configuration of DQN. All step counts are summed over the environments.

    The defaults are for new tasks, before any tuning; benchmarks/defaults.py measures them. They differ from Mnih et
    al. 2015 in targets of three steps, normalized hidden layers, one gradient step per two steps, a target network
    copied every 256 steps, and Adam with a rate that falls to 0. --preset mnih2015 has the settings of the paper
    (docs/explanation/rl-dqn.md).

    Raises:
        ValueError: a number out of range.
    """

    total_steps: int = 50_000  # Environment steps to train for.
    eval_every: int = 2_500  # Steps between evaluations.
    n_step: Annotated[int, Range(1, 10)] = 3  # Number of rewards in a target, before the value of a later state.
    hidden: tuple[int, ...] = (128, 128)  # Units of each hidden layer.
    optimizer: Literal["adam", "rmsprop"] = "adam"  # Optimization algorithm; rmsprop as in Mnih et al. 2015.
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = 1e-3  # Learning rate.
    lr_decay: Annotated[bool, Categories(False, True)] = True
    """Decrease the learning rate linearly to 0 at total_steps."""
    adam_eps: float = 1e-8  # Epsilon of Adam.
    max_grad_norm: float = 10.0  # Gradient norm to clip at; inf: no clipping.
    gamma: Annotated[float, GAMMAS] = 0.99  # Discount factor.
    batch_size: Annotated[int, Range(16, 512, log=True)] = 64  # Transitions per gradient step.
    buffer_size: int = 100_000  # Capacity of the replay, in transitions.
    learning_starts: int = 1_000  # Steps of random actions before training starts.
    train_freq: int = 16  # Steps between updates.
    gradient_steps: int = 8  # Gradient steps every train_freq environment steps; -1: train_freq gradient steps.
    target_update_interval: Annotated[int, Range(1, 10_000, log=True)] = 256
    """Steps between updates of the target network."""
    exploration_fraction: Annotated[float, Range(0.0, 0.5)] = 0.16
    """Fraction of total_steps over which epsilon falls from 1 to final_epsilon."""
    final_epsilon: Annotated[float, Range(0.0, 0.2)] = 0.04
    """Probability of a random action after exploration_fraction."""
    normalize_observations: bool = False  # Normalize observations by their running mean and standard deviation.
    body: Kind = "auto"  # Convolutions for images: of Nature DQN, one small one, or IMPALA's residual network.
    layer_norm: bool = True  # Normalize the outputs of every hidden layer, before its activation.
    bfloat16: bool = False  # Compute convolutions in bfloat16; weights stay float32. Faster on recent processors, GPUs.
    # What Rainbow adds, and which of its options are read only with another one.
    needs: ClassVar[dict[str, str]] = {
        "alpha": "prioritized",
        "beta": "prioritized",
        "sigma": "noisy",
        **dict.fromkeys(("atoms", "v_min", "v_max"), "distributional"),
    }
    double: bool = False  # Double Q-learning: select the next action with the online network.
    dueling: bool = False  # Separate streams for the state value and the advantages.
    prioritized: bool = False  # Sample transitions with probability proportional to |TD error|^alpha.
    alpha: float = 0.5  # Exponent of the priorities in prioritized replay.
    beta: float = 0.4  # Initial exponent of the importance weights; it rises to 1 during training.
    distributional: bool = False  # Learn the distribution of returns (C51).
    atoms: int = 51  # Number of atoms of the return distribution (C51).
    v_min: float = 0.0  # Lowest discounted return that C51 can represent; returns of CartPole-v1 are between 0 and 100.
    v_max: float = 100.0  # Highest discounted return that C51 can represent.
    noisy: bool = False  # Explore with noisy layers instead of epsilon-greedy.
    sigma: float = 0.5  # Initial noise scale σ₀ of noisy layers.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_step", "batch_size", "buffer_size", "train_freq", "target_update_interval", low=1)
        if self.gradient_steps < 1 and self.gradient_steps != -1:
            raise ValueError(f"gradient_steps: expected at least 1, or -1, got {self.gradient_steps}")
        check_range(self, "learning_starts", "sigma", low=0)
        check_range(self, "gamma", "exploration_fraction", "final_epsilon", "alpha", "beta", low=0, high=1)
        check_range(self, "lr", "adam_eps", above=0)
        check_range(self, "atoms", low=2)
        check_range(self, "v_min")
        check_range(self, "v_max", above=self.v_min)
        check_max_grad_norm(self)
        check_hidden(self, units=2, layers=1)

    @property
    def updates_each(self) -> int:
        """The number of gradient steps every ``train_freq`` steps."""
        return self.train_freq if self.gradient_steps == -1 else self.gradient_steps


def q_loss(q: Tensor, actions: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute the Huber loss of Q-learning (Mnih et al. 2015).

    Args:
        q: action values, [N, A].
        actions: the actions taken, int64 [N].
        targets: [N], constants, as from :func:`automl_ext.td_targets`.
        weights: importance-sampling weights, [N]; None: all 1.

    Returns:
        The weighted mean loss, and the absolute TD error \\|δ\\| of each transition, detached [N].
    """
    chosen = q.gather(1, actions.unsqueeze(1)).squeeze(1)
    if weights is None:
        loss = F.smooth_l1_loss(chosen, targets)
    else:
        loss = (weights * F.smooth_l1_loss(chosen, targets, reduction="none")).mean()
    return loss, (chosen.detach() - targets).abs()


class DQN(Agent):
    """The DQN agent; see :class:`automl_ext.rl.loop.agent.Agent`.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.
        encoder: a network from observations to features, see :class:`~automl_ext.rl.networks.body.Body`; it is trained
            with the values. Runs and saved agents do not contain its architecture.

    Attributes:
        online, target: the Q-networks.
        replay: the transitions.
        updates: number of gradient steps so far.

    Raises:
        UserError: an action space that is not Discrete, an unsupported observation space, a replay or environments
            that do not fit into memory.
    """

    envs: Envs
    updates: int
    algorithm = "dqn"
    honors = frozenset({"rewards", "steps", "batch", "terms", "after"})

    def __init__(self, config: DQNConfig, envs: Envs | None = None, encoder: nn.Module | None = None) -> None:
        self.config, self.device = config, choose_device(config.device)
        self.envs = envs or envs_of(config, config.n_envs, config.seed)
        self.actions, self._first = discrete(self.envs.action_space)
        space = self.envs.observation_space
        seeds = [derived_seed(config.seed, i) for i in range(4)]
        with seeded(seeds[0]):
            self.online = make_q_network(config, space, self.actions, encoder).to(self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        # The target network shares the online network's observation statistics; only its weights lag behind.
        self.target.body.norm = self.online.body.norm
        # For small networks the optimizer's time is proportional to its number of tensors, so it gets one vector.
        self.parameters, self._target_parameters = flatten_parameters(self.online), flatten_parameters(self.target)
        if config.optimizer == "adam":
            self.optimizer: torch.optim.Optimizer = FlatAdam(self.parameters, config.lr, eps=config.adam_eps)
        else:
            self.optimizer = CenteredRMSprop(self.parameters, config.lr)
        self._noise = generator(seeds[1], self.device)
        self._noisy, self._target_noisy = noisy_layers(self.online), noisy_layers(self.target)
        self._encoder = [] if encoder is None else list(encoder.modules())
        self._support_check = SupportCheck(config.v_min, config.v_max) if config.distributional else None
        self.rng = np.random.default_rng(seeds[2])  # for epsilon-greedy exploration
        self.replay = make_replay(config, space, self.envs.n_envs, seeds[3], self.envs.frame_stack)
        self.updates = 0
        self.attach_extras()

    def iterate(self) -> dict[str, Any]:
        """Act up to the next multiple of ``train_freq`` steps, then learn; return scalar metrics.

        The agent learns once for each multiple of ``train_freq`` that was passed. If there are more environments than
        ``train_freq``, one step of all of them passes several multiples.
        """
        envs, config = self.envs, self.config
        before = envs.steps
        until = (before // config.train_freq + 1) * config.train_freq
        while envs.steps < until:
            actions = self.explore(envs.observations)
            step = envs.step(actions + self._first if self._first else actions)
            self.replay.add(step._replace(actions=actions))
            if self.online.body.norm is not None:
                self.online.body.norm.update(torch.as_tensor(step.observations))
        metrics: dict[str, Any] = {"epsilon": self.epsilon}
        measured = []
        first = (max(before, config.learning_starts) // config.train_freq + 1) * config.train_freq
        for multiple in range(first, envs.steps + 1, config.train_freq):
            # The online network has not changed since the last multiple, so a late copy gives the same target network.
            if multiples(multiple - config.train_freq, multiple, config.target_update_interval):
                self.sync_target()
            if config.lr_decay:
                self.optimizer.param_groups[0]["lr"] = config.lr * max(1 - multiple / config.total_steps, 0.0)
            measured.append(self.update(config.updates_each))
        if measured:
            metrics |= mean_metrics(measured)
        return metrics | self.seams.updated()

    def explore(self, observations: np.ndarray) -> np.ndarray:
        """Choose ε-greedy training actions in 0 … A − 1, int64 [B]."""
        epsilon, n = self.epsilon, len(observations)
        if epsilon == 0.0:
            return self.greedy(observations)
        at_random = self.rng.random(n) < epsilon
        if not at_random.any():
            return self.greedy(observations)
        actions = self.uniform(observations, self.rng)
        return actions if at_random.all() else np.where(at_random, actions, self.greedy(observations))

    @torch.inference_mode()
    def greedy(self, observations: np.ndarray) -> np.ndarray:
        """Return argmax Q(s, ·), int64 [B]. Noisy layers draw new noise for each observation, except in ``eval()``."""
        if self.online.training:
            resample(self._noisy, self._noise, len(observations))
        seen = torch.as_tensor(observations, device=self.device)
        with evaluating(self._encoder):
            return self.online.q(self.online(seen), seen).numpy(force=True).argmax(1)

    def uniform(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return uniformly random actions in 0 … A − 1 that the observations' masks allow, int64 [B]."""
        if self.online.masked is None:
            return rng.integers(self.actions, size=len(observations))
        allowed = self.online.masked.mask(observations)
        return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(1)

    @property
    def epsilon(self) -> float:
        """The current probability of a random action."""
        config, steps = self.config, self.envs.steps
        if steps < config.learning_starts:
            return 1.0
        if config.noisy:
            return 0.0
        progress = min(steps / max(config.exploration_fraction * config.total_steps, 1.0), 1.0)
        return 1.0 + (config.final_epsilon - 1.0) * progress

    def update(self, steps: int) -> dict[str, Any]:
        """Take ``steps`` gradient steps; return their mean loss, and the metrics of the last one.

        Raises:
            UserError: a loss that is not finite, with a prioritized replay.
        """
        losses: list[Tensor] = []
        metrics: dict[str, Any] = {}
        fused = self.fused()
        with flushed_denormals():
            for batch, targets in self.minibatches(steps, fused is None):
                if fused:
                    loss, errors = fused.step(batch)
                    self.updates += 1
                else:
                    loss, errors, metrics = self.step(batch, targets)
                losses.append(loss)
                if isinstance(self.replay, PrioritizedReplay):
                    try:
                        self.replay.update_priorities(batch.indices, self.seams.merged(errors))
                    except ValueError as error:
                        raise UserError(f"diverged at update {self.updates}: {error}") from None
        return metrics | {"loss": torch.stack(losses).mean()}

    def fused(self) -> FusedQ | None:
        """Return the training steps in one call, or None if they would be other ones."""
        return fused_q(self, DQN, ("step", "targets", "rainbow_targets"))

    def minibatches(self, steps: int, with_targets: bool = True) -> Iterator[tuple[Batch, Any]]:
        """Yield a batch and its targets for each of ``steps`` gradient steps.

        If neither targets nor sampling change between gradient steps, one call samples all batches and computes all
        targets: the results are the same and the matrix products are larger.

        Args:
            with_targets: compute the targets; else they are None.
        """
        config = self.config
        changing = config.prioritized or self.seams.batch or self.seams.terms
        changing = changing or (with_targets and (config.double or config.noisy))
        most = 1 if changing else JOINT_BYTES // (config.batch_size * observation_bytes(self.envs.observation_space))
        at_once = next(n for n in range(max(min(steps, most), 1), 0, -1) if steps % n == 0)
        for _ in range(steps // at_once):
            batch = self.seams.transformed(self.replay.sample(config.batch_size * at_once))
            targets: Any = [None] * at_once
            if with_targets:
                targets = self.seams.merged(self.targets(batch)).chunk(at_once)
            yield from zip(split(batch, at_once), targets, strict=True)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """Compute the targets of a batch, y = returns + discounts · max Q_target(s′, ·), [N].

        Returns and discounts are r and γ for targets of one step; the discount is 0 if s′ is terminal.
        """
        if self.config.double or self.config.distributional or self.config.noisy:
            return self.rainbow_targets(batch)
        seen = batch.next_observations
        next_q = self.target.q(self.target(seen), seen)
        return td_targets(batch.returns, next_q, batch.terminated, batch.discounts)

    def step(self, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Take one gradient step; return the loss, the error of each transition, both detached, and other metrics."""
        config = self.config
        resample(self._noisy, self._noise)
        loss_function = categorical_loss if config.distributional else q_loss
        weights = batch.weights if config.prioritized else None
        loss, errors = loss_function(self.online(batch.observations), batch.actions, targets, weights)
        total, metrics = self.seams.add_terms(loss, {}, self.online, batch)
        clipped_gradient(total, self.parameters, config.max_grad_norm)
        self.optimizer.step()
        self.seams.step()
        self.updates += 1
        return loss.detach(), errors, metrics

    def sync_target(self) -> None:
        """Copy the online network's weights to the target network."""
        with torch.no_grad():
            self._target_parameters.copy_(self.parameters)

    # What Rainbow adds.

    def rainbow_targets(self, batch: Batch) -> Tensor:
        """Compute the targets of double, distributional and noisy DQN: [N], or distributions [N, atoms].

        The value of s′ is the target network's value of the greedy action. The target network selects that action, or
        the online network if ``double``. Each network draws new noise.
        """
        config = self.config
        resample([*self._target_noisy, *self._noisy] if config.double else self._target_noisy, self._noise)
        seen = batch.next_observations
        out = self.target(seen)
        online_q = self.online.q(self.online(seen), seen) if config.double else None
        if self._support_check is None:
            q = self.target.q(out, seen)
            return td_targets(batch.returns, q, batch.terminated, batch.discounts, next_q_online=online_q)
        best = (self.target.q(out, seen) if online_q is None else online_q).argmax(1)
        probs = take_action(out, best).softmax(-1)
        self._support_check.check(batch.returns + batch.discounts * (probs @ self.target.support))
        return categorical_projection(
            probs, batch.returns, batch.terminated, batch.discounts, config.v_min, config.v_max
        )

    # Acting and saving, as in every agent.

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions, without noise in the weights."""
        with evaluating([self.online, *self._noisy]):
            return self.greedy(observations) + self._first

    def random_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the greedy actions, replaced by random ones with probability ``final_epsilon``."""
        actions, n = self.act(observations), len(observations)
        at_random = self.random.random(n) < self.config.final_epsilon
        return np.where(at_random, self.uniform(observations, self.random) + self._first, actions)

    def set_policy(self, policy: dict[str, Any]) -> None:
        super().set_policy(policy)
        self.sync_target()

    def set_total_steps(self, total_steps: int) -> None:
        super().set_total_steps(total_steps)
        if isinstance(self.replay, PrioritizedReplay):
            self.replay.beta_steps = beta_steps(self.config)

    def policy_state(self) -> dict[str, Tensor]:
        return self.online.state_dict()

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self._noise.get_state(),
            "updates": self.updates,
            "replay": self.replay.state_dict(),
            "rng": numpy_generator_state(self.rng),
            "envs": self.envs.state_dict(),
            "extras": self.seams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        load_optimizer(self.optimizer, state["optimizer"])
        self._noise.set_state(state["noise"])
        self.updates = state["updates"]
        self.replay.load_state_dict(state["replay"])
        set_numpy_generator_state(self.rng, state["rng"])
        self.seams.load_state_dict(state["extras"])
        if not self.envs.load_state_dict(state["envs"]):
            self.cut()

    def cut(self) -> None:
        self.replay.cut()
        self.seams.cut()


def make_q_network(
    config: DQNConfig, space: gymnasium.Space, actions: int, encoder: nn.Module | None = None
) -> QNetwork:
    """Build the Q-network of a configuration."""
    network = QNetwork(
        space,
        actions,
        config.hidden,
        dueling=config.dueling,
        noisy=config.noisy,
        atoms=config.atoms if config.distributional else None,
        v_min=config.v_min,
        v_max=config.v_max,
        sigma=config.sigma,
        normalize=config.normalize_observations,
        body=config.body,
        layer_norm=config.layer_norm,
        encoder=encoder,
    )
    if config.bfloat16:
        use_bfloat16(network)
    return network


def make_replay(
    config: DQNConfig, space: gymnasium.Space, n_envs: int, seed: int, frame_stack: int = 1
) -> UniformReplay:
    """Build the replay of a configuration. It stores observations in their own dtype, and each stacked frame once.

    Raises:
        UserError: the replay or a batch does not fit into memory, or the replay is smaller than one step of all
            environments.
    """
    if config.buffer_size < n_envs:
        raise UserError(
            f"buffer_size: expected at least the number of environments, {n_envs}, got {config.buffer_size}"
        )
    row = observation_bytes(space) // frame_stack + (42 if config.prioritized else 32)  # bytes per transition
    check_memory("buffer_size", config.buffer_size * row)
    check_memory("batch_size", config.batch_size * (2 * observation_bytes(space) + 4 * sum(config.hidden)))
    options: dict[str, Any] = {
        "generator": np.random.default_rng(seed),
        "n_envs": n_envs,
        "n_step": config.n_step,
        "gamma": config.gamma,
        "frame_stack": frame_stack,
        "device": choose_device(config.device),
    }
    shape = space.shape or ()
    if not config.prioritized:
        return UniformReplay(config.buffer_size, shape, space.dtype, **options)
    options |= {"alpha": config.alpha, "beta": config.beta, "beta_steps": beta_steps(config)}
    return PrioritizedReplay(config.buffer_size, shape, space.dtype, **options)


def split(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into equal parts."""
    columns = [getattr(batch, field.name).chunk(parts) for field in fields(batch)]
    return [Batch(*each) for each in zip(*columns, strict=True)]


# What Rainbow adds.


def categorical_loss(
    logits: Tensor, actions: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the loss of C51, KL(target ‖ p) (Bellemare et al. 2017, section 4.1).

    Args:
        logits: [N, A, atoms].
        actions: the actions taken, int64 [N].
        targets: target distributions, [N, atoms], constants, as from :func:`automl_ext.categorical_projection`.
        weights: importance-sampling weights, [N]; None: all 1.

    Returns:
        The weighted mean loss, and the divergence of each transition, detached [N]. Rainbow uses the divergences as
        priorities.
    """
    log_p = take_action(logits, actions).log_softmax(-1)
    divergence = F.kl_div(log_p, targets, reduction="none").sum(-1)
    loss = divergence.mean() if weights is None else (weights * divergence).mean()
    return loss, divergence.detach()


def take_action(x: Tensor, actions: Tensor) -> Tensor:
    """Select the entry of each row's action: x [N, A, atoms], actions int64 [N] → [N, atoms]."""
    return x.gather(1, actions.view(-1, 1, 1).expand(-1, 1, x.shape[-1])).squeeze(1)


class SupportCheck:
    """Warn once when targets leave [v_min, v_max]. The projection clips such targets to the support.

    Args:
        v_min, v_max: the support, the range of the atoms.
    """

    def __init__(self, v_min: float, v_max: float) -> None:
        self.v_min, self.v_max = v_min, v_max
        self.calls, self.warned = 0, False

    def check(self, targets: Tensor) -> None:
        """Check the expected returns [N] of a batch of targets, before their projection; only in every tenth call."""
        self.calls += 1
        if self.warned or self.calls % CHECK_EVERY != 1:
            return
        smallest, largest = (float(x) for x in targets.aminmax())
        slack = CHECK_TOLERANCE * (self.v_max - self.v_min)
        if smallest < self.v_min - slack or largest > self.v_max + slack:
            self.warned = True
            warnings.warn(
                f"distributional: expected returns in [{smallest:.4g}, {largest:.4g}] leave the support "
                f"[v_min, v_max] = [{self.v_min:g}, {self.v_max:g}] and are clipped to it; set --v-min and --v-max to "
                "the range of discounted returns",
                stacklevel=3,
            )


def beta_steps(config: DQNConfig) -> int:
    """Return the number of gradient steps of the whole training, over which β of a prioritized replay rises to 1."""
    last = -(-config.total_steps // config.train_freq) * config.train_freq  # steps at the end of training
    return max(multiples(config.learning_starts, last, config.train_freq) * config.updates_each, 1)
