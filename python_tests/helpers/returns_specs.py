"""The returns family for the conformance suite. `dim` is the time dim; the flags are the keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from op_spec import OpSpec
from torch import Tensor

from automl_ext.ops import returns as R

GAMMA, LAM, N = 0.97, 0.9, 3
LONGEST = 40  # time steps; larger sizes get more columns instead, because PyTorch loops over time


def _make(names: Sequence[str], valid: float = 0.9) -> Callable[[int, int, torch.Generator], tuple[list[Tensor], dict]]:
    def make(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
        shape = [3, 2, 4]
        shape[dim] = size
        if size > LONGEST:
            shape[dim], shape[dim - 1] = LONGEST, size // 8
        draws = [torch.rand if name in ("discounts", "gamma", "lam") else torch.randn for name in names]
        tensors = [draw(shape, generator=generator, dtype=torch.float64) for draw in draws]
        probabilities = {"terminated": 0.1, "truncated": 0.1, "valid": valid}
        return tensors, {n: torch.rand(shape, generator=generator) < p for n, p in probabilities.items()}

    return make


def _call(function: Callable, *numbers: float, **others: object) -> Callable:
    def call(tensors: Sequence[Tensor], dim: int, terminated: Tensor, truncated: Tensor, valid: Tensor) -> object:
        return function(*tensors, terminated, truncated, *numbers, valid=valid, time_dim=dim, **others)

    return call


def _gae_call(
    tensors: Sequence[Tensor], dim: int, terminated: Tensor, truncated: Tensor, valid: Tensor, **others: str
) -> tuple[Tensor, Tensor]:
    """Call gae with the returns of invalid steps set to 0: they equal the value but have gradient 0."""
    advantages, returns = R.gae(*tensors, terminated, truncated, GAMMA, LAM, valid=valid, time_dim=dim, **others)
    return advantages, torch.where(valid, returns, 0)


def _lambda_with_discounts(
    tensors: Sequence[Tensor], dim: int, terminated: Tensor, truncated: Tensor, valid: Tensor, **others: str
) -> Tensor:
    rewards, next_values, discounts = tensors
    ends = terminated, truncated
    return R.lambda_returns(
        rewards, next_values, *ends, GAMMA, LAM, discounts=discounts, valid=valid, time_dim=dim, **others
    )


def _call_with_tensors(function: Callable, rates: int, *numbers: int, **others: str) -> Callable:
    """Return a call whose last ``rates`` tensors are gamma or gamma and lambda of each step."""

    def call(tensors: Sequence[Tensor], dim: int, terminated: Tensor, truncated: Tensor, valid: Tensor) -> object:
        floats, given = tensors[:-rates], tensors[-rates:]
        out = function(*floats, terminated, truncated, *given, *numbers, valid=valid, time_dim=dim, **others)
        return (out[0], torch.where(valid, out[1], 0)) if function is R.gae else out

    return call


# ---- plain PyTorch: masks of ones and zeros and one loop over time, in the dtype of the tensors


def _eager(function: Callable[..., tuple[Tensor, ...]]) -> Callable:
    """Wrap function(*tensors, cut, ended, valid), which has time first and masks in the dtype of the tensors."""

    def eager(
        tensors: Sequence[Tensor], dim: int, terminated: Tensor, truncated: Tensor, valid: Tensor
    ) -> tuple[Tensor, ...]:
        if tensors[0].numel() == 0:
            return tuple(x for x in function(*tensors, None, None, None))
        moved = [x.movedim(dim, 0) for x in tensors]
        ended, truncated, on = (x.movedim(dim, 0) for x in (terminated, truncated, valid))
        next_on = torch.cat([on[1:], torch.zeros_like(on[:1])])
        cut = ended | truncated | ~next_on
        out = function(*moved, *(m.to(moved[0].dtype) for m in (cut, ended, on)))
        return tuple(x.movedim(0, dim) for x in out)

    return eager


def _scan(x: Tensor, weight: Tensor) -> Tensor:
    """Compute y_t = x_t + weight_t y_{t+1}."""
    y, out = torch.zeros_like(x[0]), []
    for t in reversed(range(x.shape[0])):
        y = x[t] + weight[t] * y
        out.append(y)
    return torch.stack(out[::-1])


def _after(x: Tensor) -> Tensor:
    return torch.cat([x[1:], torch.zeros_like(x[:1])])


Rate = float | Tensor


def _gae(
    r: Tensor, v: Tensor, w: Tensor, cut: Tensor, ended: Tensor, on: Tensor, gamma: Rate = GAMMA, lam: Rate = LAM
) -> tuple[Tensor, ...]:
    if on is None:
        return r.clone(), v.clone()
    advantages = on * _scan(r + gamma * (1 - ended) * w - v, gamma * lam * (1 - cut))
    return advantages, on * (advantages + v)


def _lambda(
    r: Tensor, w: Tensor, cut: Tensor, ended: Tensor, on: Tensor, gamma: Rate = GAMMA, lam: Rate = LAM
) -> tuple[Tensor, ...]:
    if on is None:
        return (r.clone(),)
    g = gamma * (1 - ended)
    return (on * _scan(r + g * (1 - lam * (1 - cut)) * w, g * lam * (1 - cut)),)


def _discounted(r: Tensor, w: Tensor, cut: Tensor, ended: Tensor, on: Tensor) -> tuple[Tensor, ...]:
    return _lambda(r, w, cut, ended, on, lam=1.0)


def _lambda_discounts(r: Tensor, w: Tensor, d: Tensor, cut: Tensor, ended: Tensor, on: Tensor) -> tuple[Tensor, ...]:
    if on is None:
        return (r.clone(),)
    return (on * _scan(r + d * (1 - LAM * (1 - cut)) * w, d * LAM * (1 - cut)),)


def _n_step(r: Tensor, w: Tensor, cut: Tensor, ended: Tensor, on: Tensor, gamma: Rate = GAMMA) -> tuple[Tensor, ...]:
    if on is None:
        return r.clone(), r.detach().clone(), r.detach().long()
    g, discount = torch.zeros_like(r), torch.zeros_like(r)
    steps = torch.arange(r.shape[0], device=r.device).reshape(-1, 1, 1)
    last = steps.expand_as(r)
    for k in reversed(range(N)):  # windows of N - k steps, from shorter to longer
        stop = cut if k < N - 1 else torch.ones_like(cut)
        live = gamma * (1 - ended)
        g, discount, last = (
            r + stop * live * w + (1 - stop) * gamma * _after(g),
            stop * live + (1 - stop) * gamma * _after(discount),
            torch.where(stop.bool(), last - last + steps, _after(last)),
        )
    return on * g, on.detach() * discount, torch.where(on.bool(), last, steps)


def _vtrace(
    l: Tensor,
    r: Tensor,
    v: Tensor,
    w: Tensor,
    cut: Tensor,
    ended: Tensor,
    on: Tensor,
    gamma: Rate = GAMMA,
    lam: Rate = LAM,
) -> tuple[Tensor, ...]:
    if on is None:
        return v.clone(), r.clone()
    rho = l.exp().clamp(max=1)
    live = gamma * (1 - ended)
    vs = v + on * _scan(rho * (r + live * w - v), gamma * (1 - cut) * lam * rho)
    return vs, on * rho * (r + live * (cut * w + (1 - cut) * _after(vs)) - v)


def _retrace(
    l: Tensor,
    q: Tensor,
    r: Tensor,
    w: Tensor,
    cut: Tensor,
    ended: Tensor,
    on: Tensor,
    gamma: Rate = GAMMA,
    lam: Rate = LAM,
) -> tuple[Tensor, ...]:
    if on is None:
        return (q.clone(),)
    weight = lam * l.exp().clamp(max=1)
    correction = _scan(r + gamma * (1 - ended) * w - q, gamma * (1 - cut) * _after(weight))
    return (q + on * correction,)


# If invalid steps carry: loops over time that pass V' and the results over the invalid steps.


def _eager_carry(function: Callable[..., tuple[Tensor, ...]]) -> Callable:
    """Wrap function(*tensors, ended, valid, stop, cut); invalid steps stop at the next valid step or a cut."""

    def eager(
        tensors: Sequence[Tensor], dim: int, terminated: Tensor, truncated: Tensor, valid: Tensor
    ) -> tuple[Tensor, ...]:
        moved = [x.movedim(dim, 0) for x in tensors]
        ended, truncated, on = (x.movedim(dim, 0) for x in (terminated, truncated, valid))
        end = torch.ones_like(on[:1])
        stop = ended | truncated | torch.cat([on[1:], end[: len(on)]])
        cut = torch.cat([(ended | truncated)[:-1], end[: len(on)]])
        out = function(*moved, ended, on, stop, cut)
        return tuple(x.movedim(0, dim) for x in out)

    return eager


def _carry_over(x: Tensor, stop: Tensor) -> Tensor:
    """Return at each step the x of the next step that stops, itself included."""
    y, out = torch.zeros_like(x[:1]), []
    for t in reversed(range(len(x))):
        y = torch.where(stop[t], x[t], y)
        out.append(y.reshape(x.shape[1:]))
    return torch.stack(out[::-1]) if out else x.clone()


def _scan_carry(x: Tensor, weight: Tensor, on: Tensor, cut: Tensor) -> Tensor:
    """Compute y_t = x_t + weight_t y of the next valid step, unless there is a cut before that."""
    y, out = torch.zeros_like(x[:1]), []
    for t in reversed(range(len(x))):
        following = torch.where(cut[t], 0, y)
        mine = x[t] + weight[t] * following
        y = torch.where(on[t], mine, following)
        out.append(torch.where(on[t], mine, 0).reshape(x.shape[1:]))
    return torch.stack(out[::-1]) if out else x.clone()


def _gae_carry(r: Tensor, v: Tensor, w: Tensor, *rates: Tensor | Rate) -> tuple[Tensor, ...]:
    gamma, lam, ended, on, stop, cut = (GAMMA, LAM, *rates)[-6:]
    following = _carry_over(torch.where(ended, 0, w), stop)
    advantages = _scan_carry(r + gamma * following - v, gamma * lam * torch.ones_like(r), on, cut)
    return advantages, torch.where(on, advantages + v, 0)


def _lambda_carry(r: Tensor, w: Tensor, *rates: Tensor | Rate) -> tuple[Tensor, ...]:
    gamma, lam, ended, on, stop, cut = (GAMMA, LAM, *rates)[-6:]
    following, ends = _carry_over(torch.where(ended, 0, w), stop), _carry_over(cut, stop)
    x = r + gamma * torch.where(ends, following, (1 - lam) * following)
    return (_scan_carry(x, gamma * lam * torch.ones_like(r), on, cut),)


def _discounted_carry(r: Tensor, w: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
    return _lambda_carry(r, w, GAMMA, 1.0, *masks)


def _lambda_discounts_carry(r: Tensor, w: Tensor, d: Tensor, ended: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
    return _lambda_carry(r, w, d, LAM, torch.zeros_like(ended), *masks)


def _n_step_carry(r: Tensor, w: Tensor, *rates: Tensor | Rate) -> tuple[Tensor, ...]:
    gamma, ended, on, stop, cut = (GAMMA, *rates)[-5:]
    gamma = gamma * torch.ones_like(r)
    live = torch.where(ended, 0, torch.ones_like(r))
    steps = torch.arange(len(r), device=r.device).reshape(-1, 1, 1).expand_as(r)
    ends, live, last = _carry_over(cut, stop), _carry_over(live, stop), _carry_over(steps, stop)
    following = live * _carry_over(torch.where(ended, 0, w), stop)

    def next_valid(x: Tensor) -> Tensor:
        return _carry_over(_after(x), stop)

    g, discount, at = r + gamma * following, gamma * live, last
    for _ in range(N - 1):  # windows of one valid step more
        g = r + gamma * torch.where(ends, following, next_valid(g))
        discount = gamma * torch.where(ends, live, next_valid(discount))
        at = torch.where(ends, last, next_valid(at))
    return torch.where(on, g, 0), torch.where(on, discount, 0).detach(), torch.where(on, at, steps)


def _with_rates(function: Callable[..., tuple[Tensor, ...]], rates: int) -> Callable[..., tuple[Tensor, ...]]:
    """Return ``function`` with gamma, or gamma and lambda, before the three masks."""
    return lambda *xs: function(*xs[: -3 - rates], *xs[-3:], *xs[-3 - rates : -3])


# ---- torch.ops calls


def _time_first(tensors: Sequence[Tensor], dim: int, masks: dict) -> tuple[list[Tensor], list[Tensor], Tensor]:
    xs = [x.movedim(dim, 0) for x in tensors]
    flags = [masks[n].movedim(dim, 0) for n in ("terminated", "truncated", "valid")]
    return xs, flags, torch.randn_like(xs[0]).detach()


def _gae_native(carry: bool = False) -> Callable[..., list[tuple[str, tuple]]]:
    def native(tensors: Sequence[Tensor], dim: int, **masks: Tensor) -> list[tuple[str, tuple]]:
        xs, flags, grad = _time_first(tensors, dim, masks)
        ends = flags[:2]
        return [
            ("gae", (*xs, *flags, GAMMA, LAM, carry)),
            ("gae", (*xs, *ends, None, GAMMA, LAM)),
            ("_gae_backward", (grad, None, *flags, GAMMA, LAM, carry)),
            ("_gae_backward", (None, grad, *ends, None, GAMMA, LAM)),
        ]

    return native


def _lambda_native(lam: float, carry: bool = False) -> Callable[..., list[tuple[str, tuple]]]:
    def native(tensors: Sequence[Tensor], dim: int, **masks: Tensor) -> list[tuple[str, tuple]]:
        xs, flags, grad = _time_first(tensors, dim, masks)
        discounts = xs[2] if len(xs) > 2 else None
        kept = [None if x is None else x.detach() for x in (discounts, xs[1], xs[0])]
        if discounts is None or carry:  # the gradient of the discounts is not the kernel's
            kept[1:] = None, None
        return [
            ("lambda_returns", (*xs[:2], *flags, discounts, GAMMA, lam, carry)),
            ("lambda_returns", (*xs[:2], None, None, None, discounts, GAMMA, lam)),
            ("_lambda_returns_backward", (grad, *flags, *kept, GAMMA, lam, carry)),
        ]

    return native


def _n_step_native(carry: bool = False) -> Callable[..., list[tuple[str, tuple]]]:
    def native(tensors: Sequence[Tensor], dim: int, **masks: Tensor) -> list[tuple[str, tuple]]:
        xs, flags, grad = _time_first(tensors, dim, masks)
        return [
            ("n_step_returns", (*xs, *flags, GAMMA, N, carry)),
            ("n_step_returns", (xs[0], None, *flags, GAMMA, N, carry)),
            ("_n_step_returns_backward", (grad, *flags, GAMMA, N, True, carry)),
            ("_n_step_returns_backward", (grad, *flags, GAMMA, N, False, carry)),
        ]

    return native


def _target_native(name: str, *numbers: float) -> Callable[..., list[tuple[str, tuple]]]:
    def native(tensors: Sequence[Tensor], dim: int, **masks: Tensor) -> list[tuple[str, tuple]]:
        xs, flags, _ = _time_first(tensors, dim, masks)
        return [(name, (*xs, *flags, *numbers))]

    return native


def _scan_native(tensors: Sequence[Tensor], dim: int, **masks: Tensor) -> list[tuple[str, tuple]]:
    """The only kernel of calls with tensors: a scan over time as a lambda-return."""
    (x, decay), (cut, *_), _ = _time_first((tensors[0], tensors[-1]), dim, masks)
    return [("lambda_returns", (x, torch.zeros_like(x), cut, None, None, decay, 1.0, 1.0))]


def _carry_spec(name: str, inputs: Sequence[str], call: Callable, native: Callable, eager: Callable) -> OpSpec:
    make = _make(inputs, valid=0.6)
    return OpSpec(f"{name}_carry", make, call, native, eager=_eager_carry(eager), autocast_dtype=None, dims=(0, 1))


def _spec(
    name: str, inputs: Sequence[str], call: Callable, native: Callable, eager: Callable, **others: bool
) -> OpSpec:
    return OpSpec(name, _make(inputs), call, native, eager=_eager(eager), autocast_dtype=None, dims=(0, 1), **others)


RETURNS_SPECS = [
    _spec("gae", ("r", "v", "w"), _gae_call, _gae_native(), _gae),
    _spec("lambda_returns", ("r", "w"), _call(R.lambda_returns, GAMMA, LAM), _lambda_native(LAM), _lambda),
    _spec(
        "lambda_returns_discounts",
        ("r", "w", "discounts"),
        _lambda_with_discounts,
        _lambda_native(LAM),
        _lambda_discounts,
    ),
    _spec("discounted_returns", ("r", "w"), _call(R.discounted_returns, GAMMA), _lambda_native(1.0), _discounted),
    _spec("n_step_returns", ("r", "w"), _call(R.n_step_returns, GAMMA, N), _n_step_native(), _n_step),
    _spec(
        "vtrace",
        ("l", "r", "v", "w"),
        _call(R.vtrace, GAMMA, LAM),
        _target_native("vtrace", GAMMA, LAM, 1.0, 1.0),
        _vtrace,
        differentiable=False,
    ),
    _spec(
        "retrace",
        ("l", "q", "r", "w"),
        _call(R.retrace, GAMMA, LAM),
        _target_native("retrace", GAMMA, LAM),
        _retrace,
        differentiable=False,
    ),
    _carry_spec(
        "gae", ("r", "v", "w"), lambda *x, **k: _gae_call(*x, **k, invalid="carry"), _gae_native(True), _gae_carry
    ),
    _carry_spec(
        "lambda_returns",
        ("r", "w"),
        _call(R.lambda_returns, GAMMA, LAM, invalid="carry"),
        _lambda_native(LAM, True),
        _lambda_carry,
    ),
    _carry_spec(
        "lambda_returns_discounts",
        ("r", "w", "discounts"),
        lambda *x, **k: _lambda_with_discounts(*x, **k, invalid="carry"),
        _lambda_native(LAM, True),
        _lambda_discounts_carry,
    ),
    _carry_spec(
        "discounted_returns",
        ("r", "w"),
        _call(R.discounted_returns, GAMMA, invalid="carry"),
        _lambda_native(1.0, True),
        _discounted_carry,
    ),
    _carry_spec(
        "n_step_returns",
        ("r", "w"),
        _call(R.n_step_returns, GAMMA, N, invalid="carry"),
        _n_step_native(True),
        _n_step_carry,
    ),
    _carry_spec(
        "gae_tensors",
        ("r", "v", "w", "gamma", "lam"),
        _call_with_tensors(R.gae, 2, invalid="carry"),
        _scan_native,
        _gae_carry,
    ),
    *(
        _spec(
            f"{function.__name__}_tensors",
            (*inputs, *("gamma", "lam")[:rates]),
            _call_with_tensors(function, rates, *numbers),
            _scan_native,
            _with_rates(eager, rates),
            differentiable=function not in (R.vtrace, R.retrace),
        )
        for function, inputs, eager, rates, numbers in (
            (R.gae, ("r", "v", "w"), _gae, 2, ()),
            (R.lambda_returns, ("r", "w"), _lambda, 2, ()),
            (R.n_step_returns, ("r", "w"), _n_step, 1, (N,)),
            (R.vtrace, ("l", "r", "v", "w"), _vtrace, 2, ()),
            (R.retrace, ("l", "q", "r", "w"), _retrace, 2, ()),
        )
    ),
]
