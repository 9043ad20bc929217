"""Helpers of the replay tests: random episodes with a record of all transitions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from automl_ext.rl import PrioritizedReplay, UniformReplay
from automl_ext.rl.envs.vector import Step

kinds = pytest.mark.parametrize("kind", [UniformReplay, PrioritizedReplay])


def make(kind, capacity=20, n_envs=1, shape=(2,), dtype=np.float32, seed=0, **kwargs):
    return kind(capacity, shape, dtype, n_envs=n_envs, generator=np.random.default_rng(seed), **kwargs)


class World:
    """Random episodes in B environments, as :class:`Envs` returns them, with a record of the transitions.

    An observation is a unique number, which identifies its step. ``past[b]`` holds environment b's transitions:
    (obs, action, reward, next_obs, terminated, truncated, goes_on).
    """

    def __init__(self, n_envs, seed=0, next_step=False, end=0.2):
        self.rng, self.n_envs, self.next_step, self.end = np.random.default_rng(seed), n_envs, next_step, end
        self.serial = 0
        self.now = [self.new() for _ in range(n_envs)]
        self.resetting = [False] * n_envs
        self.past = [[] for _ in range(n_envs)]
        self.where = {}  # observation → (environment, index in its past)

    def new(self):
        self.serial += 1
        return self.serial

    def step(self):
        """Return the next Step."""
        out = []
        for b in range(self.n_envs):
            if self.resetting[b]:  # NEXT_STEP: a restart; its NaN must not be stored
                first = self.new()
                out.append((self.now[b], -1, math.nan, first, False, False, False))
                self.now[b], self.resetting[b] = first, False
                continue
            after = self.new()
            terminated, truncated = (self.rng.random(2) < self.end / 2).tolist()
            row = (self.now[b], self.serial % 7, float(self.rng.normal()), after, terminated, truncated)
            out.append((*row, True))
            self.where[self.now[b]] = b, len(self.past[b])
            self.past[b].append((*row, not (terminated or truncated)))
            self.now[b] = after
            if terminated or truncated:
                self.resetting[b] = self.next_step
                if not self.next_step:
                    self.now[b] = self.new()
        obs, action, reward, after, terminated, truncated, valid = (np.array(x) for x in zip(*out, strict=True))
        pair = lambda x: np.stack([x, x + 0.5], axis=1).astype(np.float32)  # noqa: E731
        return Step(pair(obs), action, reward, pair(after), terminated, truncated, valid)

    def window(self, b, start, n_step, gamma):
        """Compute return, discount, next observation and terminated by the n-step rule."""
        total, past = 0.0, self.past[b]
        for k in range(n_step):
            _, _, reward, after, terminated, _, goes_on = past[start + k]
            total += gamma**k * reward
            if not goes_on or start + k + 1 == len(past):
                break
        return total, 0.0 if terminated else gamma ** (k + 1), after, terminated


def check_batch(world, batch, held, n_step, gamma):
    """Check that each window equals the record and starts at a stored transition. Return the transitions seen."""
    places = [world.where[x] for x in batch.observations[:, 0].tolist()]
    assert len(places) == len(batch.indices)
    assert all(len(world.past[b]) - held <= t for b, t in places)
    starts = [world.past[b][t] for b, t in places]
    returns, discounts, after, terminated = zip(*(world.window(b, t, n_step, gamma) for b, t in places), strict=True)
    assert batch.observations.tolist() == [[row[0], row[0] + 0.5] for row in starts]
    assert batch.next_observations.tolist() == [[x, x + 0.5] for x in after]
    assert batch.actions.tolist() == [row[1] for row in starts]
    assert batch.returns.numpy() == pytest.approx(np.array(returns), rel=1e-5, abs=1e-5)
    assert batch.discounts.numpy() == pytest.approx(np.array(discounts), rel=1e-6)
    assert batch.terminated.tolist() == list(terminated)
    return set(places)


def episode(replay, rewards, *, terminated=False, truncated=False, first=0, valid=True):
    """Add one episode of one environment with observations first, first + 1, …"""
    for t, reward in enumerate(rewards):
        last = t == len(rewards) - 1
        obs, after = (np.full((1, 2), first + t + k, np.float32) for k in (0, 1))
        ends = [np.array([last and flag]) for flag in (terminated, truncated)]
        replay.add(Step(obs, np.array([0]), np.array([reward]), after, *ends, np.array([valid])))


def by_observation(replay, draws=300):
    """Return the window that starts at each observation: (return, discount, next observation, terminated)."""
    batch = replay.sample(draws)
    columns = batch.observations[:, 0], batch.returns, batch.discounts, batch.next_observations[:, 0], batch.terminated
    return {row[0]: row[1:] for row in zip(*(x.tolist() for x in columns), strict=True)}


def same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def make_with(kind, seed):
    return make(kind, 21, 3, seed=seed, n_step=3, **{"beta_steps": 9} if kind is PrioritizedReplay else {})


def go_on(world, replay, steps):
    batches = []
    for _ in range(steps):
        replay.add(world.step())
        batches.append(replay.sample(5))
        if isinstance(replay, PrioritizedReplay):
            replay.update_priorities(batches[-1].indices, batches[-1].returns)
    return batches
