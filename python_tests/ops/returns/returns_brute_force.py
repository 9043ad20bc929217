"""The returns family in plain Python: each sum follows its definition, without recursion over time."""

import math

import numpy as np
import torch

FLAGS = ("terminated", "truncated", "valid")


def batch(T, B, *, seed=0, dtype=torch.float64, ends=0.15, invalid=0.15, names=()):
    """Return random float tensors by name and the three flags, with every kind of cut."""
    generator = torch.Generator().manual_seed(seed)
    data = {n: torch.randn(T, B, generator=generator, dtype=torch.float64).to(dtype) for n in names}
    for name, p in (("terminated", ends), ("truncated", ends), ("valid", invalid)):
        data[name] = torch.rand(T, B, generator=generator) < p
    data["valid"] = ~data["valid"]
    return data


def corrupt(data):
    """Return the batch with NaN and infinities wherever values must not be read."""
    corrupted = dict(data)
    for i, name in enumerate(n for n in data if n not in FLAGS):
        unread = ~data["valid"]
        if name == "next_values":
            unread = unread | data["terminated"]
        bad = (math.nan, math.inf, -math.inf)[i % 3]
        corrupted[name] = torch.where(unread, bad, data[name])
    return corrupted


def _columns(data):
    """Return one dict of float64 NumPy columns per environment."""
    arrays = {n: x.detach().to(torch.float64 if x.is_floating_point() else x.dtype) for n, x in data.items()}
    arrays = {n: x.numpy() for n, x in arrays.items()}
    width = next(iter(arrays.values())).shape[1]
    return [{n: x[:, b] for n, x in arrays.items()} for b in range(width)]


def _window(c, t):
    """Return the steps from t to the first cut, inclusive."""
    T, steps = len(c["rewards"]), [t]
    while True:
        j = steps[-1]
        if c["terminated"][j] or c["truncated"][j] or j == T - 1 or not c["valid"][j + 1]:
            return steps
        steps.append(j + 1)


def _bootstrap(c, j):
    return 0.0 if c["terminated"][j] else c["next_values"][j]


def _over_steps(data, function, at_invalid):
    """Return function(column, t) at valid steps and at_invalid(column, t) elsewhere, as a [T, B] tensor."""
    columns = [
        [function(c, t) if c["valid"][t] else at_invalid(c, t) for t in range(len(c["rewards"]))]
        for c in _columns(data)
    ]
    return torch.from_numpy(np.array(columns).T.copy())


def _zero(c, t):
    return 0.0


def _own(name):
    return lambda c, t: c[name][t]


def _n_step(c, t, gamma, n):
    steps = _window(c, t)[:n]
    total = sum(gamma**k * c["rewards"][s] for k, s in enumerate(steps))
    return total + gamma ** len(steps) * _bootstrap(c, steps[-1]), steps


def discounted_returns(data, gamma):
    return _over_steps(data, lambda c, t: _n_step(c, t, gamma, len(c["rewards"]))[0], _zero)


def n_step_returns(data, gamma, n):
    def discount(c, t):
        steps = _window(c, t)[:n]
        return 0.0 if c["terminated"][steps[-1]] else gamma ** len(steps)

    return (
        _over_steps(data, lambda c, t: _n_step(c, t, gamma, n)[0], _zero),
        _over_steps(data, discount, _zero),
        _over_steps(data, lambda c, t: _window(c, t)[:n][-1], lambda c, t: t),
    )


def _sum_of_deltas(c, t, gamma, deltas, weights):
    """Return sum_k gamma^k (product of the weights of the k steps before) delta_{t+k}."""
    total, product = 0.0, 1.0
    for k, s in enumerate(_window(c, t)):
        total += gamma**k * product * deltas(c, s)
        product *= weights(c, s)
    return total


def _td_error(c, s, gamma, baseline):
    return c["rewards"][s] + gamma * _bootstrap(c, s) - c[baseline][s]


def gae(data, gamma, lam):
    def advantage(c, t):
        return _sum_of_deltas(c, t, gamma, lambda c, s: _td_error(c, s, gamma, "values"), lambda c, s: lam)

    returns = _over_steps(data, lambda c, t: advantage(c, t) + c["values"][t], _own("values"))
    return _over_steps(data, advantage, _zero), returns


def lambda_returns(data, gamma, lam, discounts=False):
    """Forward view: n-step returns with weights (1 - lambda) lambda^(n-1), and the last one with the rest."""

    def g(c, s):
        return c["discounts"][s] if discounts else 0.0 if c["terminated"][s] else gamma

    def target(c, t):
        steps = _window(c, t)
        total, rewards, product = 0.0, 0.0, 1.0
        for k, s in enumerate(steps):
            rewards += product * c["rewards"][s]
            product *= g(c, s)
            n_step = rewards + (product * c["next_values"][s] if product else 0.0)
            total += (lam**k if s == steps[-1] else (1 - lam) * lam**k) * n_step
        return total

    return _over_steps(data, target, _zero)


def vtrace(data, gamma, lam=1.0, rho_clip=1.0, c_clip=1.0):
    def rho(c, s):
        return min(rho_clip, math.exp(c["log_rhos"][s]))

    def target(c, t):
        if not c["valid"][t]:
            return c["values"][t]
        return c["values"][t] + _sum_of_deltas(
            c,
            t,
            gamma,
            lambda c, s: rho(c, s) * _td_error(c, s, gamma, "values"),
            lambda c, s: lam * min(c_clip, math.exp(c["log_rhos"][s])),
        )

    def advantage(c, t):
        cut = len(_window(c, t)) == 1
        following = _bootstrap(c, t) if cut else target(c, t + 1)
        return rho(c, t) * (c["rewards"][t] + gamma * following - c["values"][t])

    return _over_steps(data, target, _own("values")), _over_steps(data, advantage, _zero)


def retrace(data, gamma, lam=1.0):
    def target(c, t):
        deltas = {s: _td_error(c, s, gamma, "q_values") for s in _window(c, t)}
        total, product = c["q_values"][t], 1.0
        for k, s in enumerate(deltas):
            product *= 1.0 if k == 0 else lam * min(1.0, math.exp(c["log_rhos"][s]))
            total += gamma**k * product * deltas[s]
        return total

    return _over_steps(data, target, _own("q_values"))


def categorical_projection(probs, rewards, terminated, discounts, v_min, v_max):
    """Distribute the mass of each atom to its two neighbors: m_i = sum_j p_j max(0, 1 - |Tz_j - z_i| / dz)."""
    N, atoms = probs.shape
    z = np.linspace(v_min, v_max, atoms)
    out = np.zeros((N, atoms))
    for i in range(N):
        d = 0.0 if terminated[i] else float(discounts[i])
        for j in range(atoms):
            tz = min(max(float(rewards[i]) + d * z[j], v_min), v_max)
            distance = np.abs(tz - z) / ((v_max - v_min) / (atoms - 1))
            out[i] += float(probs[i, j]) * np.maximum(0, 1 - distance)
    return torch.from_numpy(out)
