"""Dreamer (Hafner et al. 2020, "Dream to control: learning behaviors by latent imagination", Algorithm 1).

prefill the replay with random episodes, then update ``pretrain`` times
repeat:
    update (``learner.py``), ``updates_each`` times:
        draw sequences; fit the world model p(s_t | s_{t−1}, a_{t−1}), p(o_t | s_t), p(r_t | s_t), q(s_t | …, o_t)
        imagine H steps from every s_t; ascend on their λ-returns with the policy, regress the value on them
    act for ``train_every`` steps: s_t from its history, a_t ~ π(a | s_t) and noise; add to the replay
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
from automl_ext.rl.loop.agent import Agent, envs_of, multiples
from automl_ext.rl.loop.checks import observation_bytes
from automl_ext.rl.replay.sequences import SequenceReplay
from automl_ext.training.memory import check_memory
from automl_ext.training.seeding import derived_seed, generator


class Memory(NamedTuple):
    """What is remembered of episodes that go on: h [B, deter], s [B, stoch], and the last action [B, A]."""

    deter: Tensor
    stoch: Tensor
    action: Tensor

    def forget(self, starting: np.ndarray) -> Memory:
        """As before an episode where ``starting`` [B]."""
        if not starting.any():
            return self
        keep = torch.from_numpy(~starting).to(self.deter.device, torch.float32).unsqueeze(1)
        return Memory(*(x * keep for x in self))


class Dreamer(Agent):
    """The agent; see :class:`automl_ext.rl.loop.agent.Agent`. It remembers: :meth:`begin` says where episodes begin.

    Args:
        config: also says which environments, unless they are given.
        envs: environments of its own to act in.

    Raises:
        UserError: spaces of observations or actions that it does not take; environments, a replay or batches that do
            not fit into memory.
    """

    envs: Envs

    def __init__(self, config: DreamerConfig, envs: Envs | None = None) -> None:
        self.config = config
        self.envs = envs or envs_of(config, config.n_envs, config.seed)
        self.actions = actions_of(self.envs.action_space)
        row = observation_bytes(self.envs.observation_space) + 4 * self.actions.size + 5
        check_memory("replay_size", min(config.replay_size, config.total_steps) * row)
        state = 4 * (config.deter + config.stoch + config.units)
        check_memory("batch_size", config.batch_size * config.sequence_length * (row + state))
        seeds = [derived_seed(config.seed, i) for i in range(4)]
        self.learner = Learner(config, self.envs.observation_space, self.actions, (seeds[0], seeds[1]))
        self.generator = generator(seeds[2], self.learner.device)  # of acting
        sampling = np.random.default_rng(seeds[3])
        self.replay = SequenceReplay(config.replay_size, self.actions.size, self.envs.n_envs, sampling)
        self.memory = self.empty_memory(self.envs.n_envs)
        self.playing = self.memory  # the memory of act(), which plays in other environments

    def iterate(self) -> dict[str, Any]:
        """Steps up to the next multiple of ``train_every``, then the updates of all multiples that were passed.

        One step of more environments than ``train_every`` passes several multiples. Multiples before ``prefill`` have
        no updates. The first updates are preceded by ``pretrain`` more.
        """
        envs, config = self.envs, self.config
        before = envs.steps
        until = (before // config.train_every + 1) * config.train_every
        seen = []
        while envs.steps < until:
            actions = self.explore(envs.observations)
            step = envs.step(self.actions.to_env(actions))
            self.replay.add(step, actions.numpy(force=True))
            seen.append(step.next_observations[step.valid])
        if self.learner.model.norm is not None:
            self.learner.model.norm.update(torch.from_numpy(np.concatenate(seen)))
        if envs.steps < config.prefill:
            return {}
        passed = multiples(max(before, config.prefill - 1), envs.steps, config.train_every)
        updates = passed * config.updates_each
        if self.updates == 0:
            updates += config.pretrain
        return self.learn(updates)

    @property
    def updates(self) -> int:
        """Those done so far."""
        return self.learner.updates

    def learn(self, updates: int) -> dict[str, Any]:
        """So many updates; the means of what they measured."""
        config, measured = self.config, loop.Averages()
        for _ in range(updates):
            sequences = self.replay.sample(config.batch_size, config.sequence_length, self.learner.device)
            measured.add(self.learner.update(sequences))
        return measured.means()

    @torch.inference_mode()
    def explore(self, observations: np.ndarray) -> Tensor:
        """Actions [B, A] to learn from."""
        self.memory = self.memory.forget(self.envs.starting)
        if self.envs.steps < self.config.prefill:
            actions = self.actions.random(len(observations), self.generator)
            deter, stoch, _ = self.memory
        else:
            deter, stoch, outputs = self.policy(self.memory, observations, self.generator)
            noise = self.actions.noise((len(observations),), self.generator)
            actions, _ = self.actions.sample(outputs, noise)
            actions = self.actions.explore(actions, self.config.exploration, self.generator)
        self.memory = Memory(deter, stoch, actions)
        return actions

    def policy(
        self, memory: Memory, observations: np.ndarray, noise: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The state now, h and s (without ``noise`` its mean), and the policy's outputs there."""
        model, rssm = self.learner.model, self.learner.model.rssm
        prepared = model.prepare(torch.as_tensor(observations, device=self.learner.device))
        deter = rssm.step(memory.deter, memory.stoch, rssm.from_action(memory.action))
        stoch, std = rssm.posterior(deter, rssm.from_embedding(model.encode(prepared)))
        if noise is not None:
            stoch = stoch + std * torch.randn(std.shape, generator=noise, device=std.device)
        return deter, stoch, self.learner.actor(torch.cat([deter, stoch], -1))

    def begin(self, starting: np.ndarray) -> None:
        """Before :meth:`act`: episodes begin where ``starting``, bool [B]; what was before is forgotten there."""
        if len(starting) != len(self.playing.action):
            self.playing = self.empty_memory(len(starting))
        self.playing = self.playing.forget(starting)

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """The most probable actions, after all observations since :meth:`begin`."""
        deter, stoch, outputs = self.policy(self.playing, observations, None)
        actions = self.actions.mode(outputs)
        self.playing = Memory(deter, stoch, actions)
        return self.actions.to_env(actions)

    def empty_memory(self, n: int) -> Memory:
        deter, stoch = self.learner.model.rssm.initial(n)
        return Memory(deter, stoch, deter.new_zeros(n, self.actions.size))

    def policy_state(self) -> dict[str, Any]:
        return {"model": self.learner.model.state_dict(), "actor": self.learner.actor.state_dict()}

    def load_policy_state(self, state: dict[str, Any]) -> None:
        self.learner.model.load_state_dict(state["model"])
        self.learner.actor.load_state_dict(state["actor"])

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "memory": list(self.memory),
            "generator": self.generator.get_state(),
            "envs": self.envs.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        self.memory = Memory(*(x.to(self.learner.device) for x in state["memory"]))
        self.generator.set_state(state["generator"])
        if not self.envs.load_state_dict(state["envs"]):
            self.replay.cut()  # envs.starting says so to the memory


def train(
    config: DreamerConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("dreamer", Dreamer, config, out, resume, stop_after)
