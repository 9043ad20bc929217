"""PPO in a loop that JAX compiles whole, the environment included: the contender of rl_peers.py.

The shape is that of PureJaxRL (Lu et al. 2022, https://github.com/luchris429/purejaxrl); CartPole is Gymnasium's
CartPole-v1. As in PureJaxRL, the end of a truncated episode counts as a terminal state. Needs jax and optax.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

LIMIT, ANGLE, POSITION = 500, 12 * 2 * jnp.pi / 360, 2.4  # of an episode of CartPole-v1


class Settings(NamedTuple):
    n_envs: int
    n_steps: int
    batch_size: int
    n_epochs: int
    lr: float
    gamma: float
    gae_lambda: float
    ent_coef: float


class Carry(NamedTuple):
    """What an update passes to the next one."""

    parameters: Any
    optimizer: Any
    state: jax.Array  # [E, 4]
    time: jax.Array  # [E], steps of the running episodes
    key: jax.Array


def cartpole(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the next state [4], and whether the episode has terminated (Barto, Sutton and Anderson 1983)."""
    _, x_dot, theta, theta_dot = state
    force = jnp.where(action == 1, 10.0, -10.0)
    push = (force + 0.05 * theta_dot**2 * jnp.sin(theta)) / 1.1
    theta_acc = 9.8 * jnp.sin(theta) - jnp.cos(theta) * push
    theta_acc /= 0.5 * (4 / 3 - 0.1 * jnp.cos(theta) ** 2 / 1.1)
    x_acc = push - 0.05 * theta_acc * jnp.cos(theta) / 1.1
    later = state + 0.02 * jnp.stack([x_dot, x_acc, theta_dot, theta_acc])
    return later, (jnp.abs(later[0]) > POSITION) | (jnp.abs(later[2]) > ANGLE)


def start(key: jax.Array, n: int) -> jax.Array:
    return jax.random.uniform(key, (n, 4), minval=-0.05, maxval=0.05)


def perceptron(key: jax.Array, sizes: list[int], gain: float) -> list[tuple[jax.Array, jax.Array]]:
    """Make a perceptron with orthogonal weights."""
    gains = [2**0.5] * (len(sizes) - 2) + [gain]
    keys = jax.random.split(key, len(gains))
    weights = (jax.nn.initializers.orthogonal(g)(k, s) for g, k, s in zip(gains, keys, pairwise(sizes), strict=True))
    return [(w, jnp.zeros(w.shape[1])) for w in weights]


def outputs(layers: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def make(settings: Settings, seed: int) -> tuple[Any, Carry]:
    """Return a compiled function from the number of updates and a carry to the next carry and episodes, and a carry.

    The function's second result has the returns of the episodes that ended at each step, [updates, T, E], and whether
    one ended.
    """
    s = settings
    n = s.n_envs * s.n_steps
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(s.lr, eps=1e-5))
    keys = jax.random.split(jax.random.PRNGKey(seed), 4)
    parameters = perceptron(keys[0], [4, 64, 64, 2], 0.01), perceptron(keys[1], [4, 64, 64, 1], 1.0)
    carry = Carry(
        parameters, optimizer.init(parameters), start(keys[2], s.n_envs), jnp.zeros(s.n_envs, jnp.int32), keys[3]
    )

    def act(carry: Carry, _: None) -> tuple[Carry, Any]:
        key, sampling, starting = jax.random.split(carry.key, 3)
        log_p = jax.nn.log_softmax(outputs(carry.parameters[0], carry.state))
        action = jax.random.categorical(sampling, log_p)
        value = outputs(carry.parameters[1], carry.state)[:, 0]
        later, ended = jax.vmap(cartpole)(carry.state, action)
        time = carry.time + 1
        ended |= time >= LIMIT
        step = carry.state, action, jnp.take_along_axis(log_p, action[:, None], 1)[:, 0], value, ended, time
        later = jnp.where(ended[:, None], start(starting, s.n_envs), later)
        return carry._replace(state=later, time=jnp.where(ended, 0, time), key=key), step

    def advantages(last: jax.Array, step: Any) -> tuple[Any, jax.Array]:
        (advantage, next_value), (value, ended) = last, step
        error = 1.0 + s.gamma * next_value * ~ended - value
        advantage = error + s.gamma * s.gae_lambda * ~ended * advantage
        return (advantage, value), advantage

    def loss(parameters: Any, batch: Any) -> jax.Array:
        seen, action, old_log_prob, advantage, target = batch
        log_p = jax.nn.log_softmax(outputs(parameters[0], seen))
        value = outputs(parameters[1], seen)[:, 0]
        ratio = jnp.exp(jnp.take_along_axis(log_p, action[:, None], 1)[:, 0] - old_log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage)
        entropy = -(jnp.exp(log_p) * log_p).sum(1)
        return -gain.mean() + 0.5 * ((value - target) ** 2).mean() - s.ent_coef * entropy.mean()

    def learn(state: Any, batch: Any) -> tuple[Any, None]:
        parameters, moments = state
        change, moments = optimizer.update(jax.grad(loss)(parameters, batch), moments)
        return (optax.apply_updates(parameters, change), moments), None

    def update(carry: Carry, _: None) -> tuple[Carry, Any]:
        carry, (seen, action, log_prob, value, ended, time) = jax.lax.scan(act, carry, None, s.n_steps)
        last = jnp.zeros(s.n_envs), outputs(carry.parameters[1], carry.state)[:, 0]
        _, advantage = jax.lax.scan(advantages, last, (value, ended), reverse=True)
        steps = seen, action, log_prob, advantage, advantage + value
        steps = jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), steps)

        def epoch(state: Any, key: jax.Array) -> tuple[Any, None]:
            order = jax.random.permutation(key, n)
            batches = jax.tree.map(lambda x: x[order].reshape(-1, s.batch_size, *x.shape[1:]), steps)
            return jax.lax.scan(learn, state, batches)

        key, *keys = jax.random.split(carry.key, s.n_epochs + 1)
        state, _ = jax.lax.scan(epoch, (carry.parameters, carry.optimizer), jnp.stack(keys))
        return Carry(*state, carry.state, carry.time, key), (time, ended)

    return jax.jit(lambda carry, updates: jax.lax.scan(update, carry, None, updates), static_argnums=1), carry
