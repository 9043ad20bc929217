"""Dreamer (Hafner et al. 2020, "Dream to control: learning behaviors by latent imagination", Algorithm 1).

fill the replay with ``prefill`` steps of random actions, then update ``pretrain`` times
repeat:
    update (``learner.py``), ``updates_each`` times:
        sample sequences; fit the world model p(s_t | s_{t−1}, a_{t−1}), p(o_t | s_t), p(r_t | s_t), q(s_t | …, o_t)
        imagine H steps from every s_t; the policy ascends their λ-returns, the value network regresses on them
    act for ``train_every`` steps: infer s_t from the history, sample a_t ~ π(a | s_t), add noise; store in the replay
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from automl_ext.rl.dreamer.actions import actions_of
from automl_ext.rl.dreamer.config import DreamerConfig
from automl_ext.rl.dreamer.learner import Learner
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop import loop
from automl_ext.rl.loop.agent import last_before, multiples, training_envs
from automl_ext.rl.loop.averages import Averages
from automl_ext.rl.loop.checks import observation_bytes
from automl_ext.rl.loop.learning import LearningAgent, State
from automl_ext.rl.replay.sequences import SequenceReplay
from automl_ext.training import ranks
from automl_ext.training.errors import UserError
from automl_ext.training.machine.memory import check_memory
from automl_ext.training.seeding import derived_seed, generator


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


class Dreamer(LearningAgent):
    """The Dreamer agent; see :class:`automl_ext.rl.loop.learning.LearningAgent`.

    The policy is recurrent: call :meth:`begin` before :meth:`act` so that its state is reset where episodes start.

    Args:
        config: settings, and the environments to make if ``envs`` is None.
        envs: training environments. The agent owns them.

    Raises:
        UserError: unsupported observation or action space; environments, a replay or batches that do not fit into
            memory.
    """

    envs: Envs
    algorithm = "dreamer"

    def __init__(self, config: DreamerConfig, envs: Envs | None = None) -> None:
        self.config = config
        self.envs = envs or training_envs(config)
        self.actions = actions_of(self.envs.action_space, config.mode_samples)
        row = observation_bytes(self.envs.observation_space) + 4 * self.actions.size + 5
        check_memory("replay_size", min(2 * config.replay_size, config.total_steps) * row)  # with running episodes
        if config.batch_size < ranks.count():
            raise UserError(f"batch_size: expected at least 1 for each process, got {config.batch_size}")
        state = 4 * (config.deter + config.stoch + config.units)
        check_memory("batch_size", config.batch_size * config.sequence_length * (row + state))
        seeds = [derived_seed(config.seed, i) for i in range(4)]
        self.learner = Learner(config, self.envs.observation_space, self.actions, (seeds[0], seeds[1]))
        self.generator = generator(seeds[2], self.learner.device)  # for actions and states during acting
        sampling = np.random.default_rng(seeds[3])
        self.replay = SequenceReplay(config.replay_size, self.actions.size, self.envs.n_envs, sampling)
        self.state = self.initial_state(self.envs.n_envs)
        self.eval_state = self.state  # the recurrent state of act(), which is called for evaluation environments

    def iterate(self) -> dict[str, Any]:
        """Act up to the next multiple of ``train_every`` steps, then update; return scalar metrics.

        There are ``updates_each`` updates for each multiple of ``train_every`` that was passed. One step of more
        environments than ``train_every`` passes several multiples. There are no updates before ``prefill`` steps. The
        first call that updates does ``pretrain`` additional updates.
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
        if self.learner.model.norm is not None:
            self.learner.model.norm.update(torch.from_numpy(np.concatenate(new_observations)))
        if envs.steps < config.prefill:
            return {}
        n_multiples = multiples(max(before, config.prefill - 1), envs.steps, config.train_every)
        updates = n_multiples * config.updates_each
        if self.updates == 0:
            updates += config.pretrain
        return self.update(updates)

    @property
    def updates(self) -> int:
        """The number of updates so far."""
        return self.learner.updates

    @property
    def delay(self) -> tuple[str, int]:
        return "prefill", last_before(self.config.prefill, self.config.train_every, self.envs.n_envs)

    def update(self, updates: int) -> dict[str, Any]:
        """Do ``updates`` updates; return the means of their metrics."""
        config, metrics = self.config, Averages()
        for _ in range(updates):
            sequences = self.replay.sample(config.batch_size, config.sequence_length, self.learner.device)
            metrics.add(self.learner.update(sequences))
        return metrics.means()

    @torch.inference_mode()
    def explore(self, observations: np.ndarray) -> Tensor:
        """Sample training actions [B, A], with exploration noise."""
        self.state = self.state.reset(self.envs.starting)
        if self.envs.steps < self.config.prefill:
            actions = self.actions.random(len(observations), self.generator)
            deter, stoch, _ = self.state
        else:
            deter, stoch, outputs = self.policy(self.state, observations, self.generator)
            noise = self.actions.noise((len(observations),), self.generator)
            actions, _ = self.actions.sample(outputs, noise)
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
        model, rssm = self.learner.model, self.learner.model.rssm
        prepared = model.prepare(torch.as_tensor(observations, device=self.learner.device))
        deter = rssm.step(state.deter, state.stoch, rssm.from_action(state.action))
        stoch, std = rssm.posterior(deter, rssm.from_embedding(model.encode(prepared)))
        if generator is not None:
            stoch = stoch + std * torch.randn(std.shape, generator=generator, device=std.device)
        return deter, stoch, self.learner.actor(torch.cat([deter, stoch], -1))

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
        n, device = len(observations), self.learner.device
        memory = self.initial_state(n)
        if state is not None:
            given = [np.asarray(part, np.float32) for part in state]
            if [part.shape for part in given] != [tuple(part.shape) for part in memory]:
                raise ValueError(
                    f"state: expected arrays {[list(part.shape) for part in memory]}, got "
                    f"{[list(part.shape) for part in given]}"
                )
            memory = RecurrentState(*(torch.from_numpy(part).to(device) for part in given)).reset(starting)
        source = None if deterministic else generator(int(self.random.integers(2**32)), device)
        deter, stoch, outputs = self.policy(memory, observations, source)
        if source is None:
            actions = self.actions.mode(outputs)
        else:
            actions, _ = self.actions.sample(outputs, self.actions.noise((n,), source))
        memory = RecurrentState(deter, stoch, actions)
        return self.actions.to_env(actions), tuple(part.numpy(force=True) for part in memory)

    def initial_state(self, n: int) -> RecurrentState:
        """Return the recurrent state of ``n`` environments at the start of episodes, zeros."""
        deter, stoch = self.learner.model.rssm.initial(n)
        return RecurrentState(deter, stoch, deter.new_zeros(n, self.actions.size))

    def policy_state(self) -> dict[str, Any]:
        return {"model": self.learner.model.state_dict(), "actor": self.learner.actor.state_dict()}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.learner.model.load_state_dict(state["model"])
        self.learner.actor.load_state_dict(state["actor"])

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "memory": list(self.state),
            "generator": self.generator.get_state(),
            "envs": self.envs.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        self.state = RecurrentState(*(x.to(self.learner.device) for x in state["memory"]))
        self.generator.set_state(state["generator"])
        if not self.envs.load_state_dict(state["envs"]):
            self.replay.cut()  # new episodes start; envs.starting resets the recurrent state


def train(
    config: DreamerConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train Dreamer in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("dreamer", Dreamer, config, out, resume, stop_after)
