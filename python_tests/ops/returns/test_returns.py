"""The returns family against brute force, hand-computed cases and identities."""

import math

import pytest
import returns_brute_force as brute
import torch

from automl_ext.ops import returns as R

GAMMA, LAM = 0.9, 0.7
SHAPES = [(1, 1), (2, 3), (7, 8), (8, 33), (33, 5)]
FLAGS = ("terminated", "truncated")

# name -> (float arguments, call on a batch, brute force on a batch)
FAMILY = {
    "discounted_returns": (
        ("rewards", "next_values"),
        lambda d, **k: R.discounted_returns(**d, gamma=GAMMA, **k),
        lambda d: brute.discounted_returns(d, GAMMA),
    ),
    "n_step_returns": (
        ("rewards", "next_values"),
        lambda d, **k: R.n_step_returns(**d, gamma=GAMMA, n=3, **k),
        lambda d: brute.n_step_returns(d, GAMMA, 3),
    ),
    "gae": (
        ("rewards", "values", "next_values"),
        lambda d, **k: R.gae(**d, gamma=GAMMA, lam=LAM, **k),
        lambda d: brute.gae(d, GAMMA, LAM),
    ),
    "lambda_returns": (
        ("rewards", "next_values"),
        lambda d, **k: R.lambda_returns(**d, gamma=GAMMA, lam=LAM, **k),
        lambda d: brute.lambda_returns(d, GAMMA, LAM),
    ),
    "lambda_returns with discounts": (
        ("rewards", "next_values", "discounts"),
        lambda d, **k: R.lambda_returns(**d, gamma=GAMMA, lam=LAM, **k),
        lambda d: brute.lambda_returns(d, GAMMA, LAM, discounts=True),
    ),
    "vtrace": (
        ("log_rhos", "rewards", "values", "next_values"),
        lambda d, **k: R.vtrace(**d, gamma=GAMMA, lam=LAM, rho_clip=1.5, c_clip=1.1, **k),
        lambda d: brute.vtrace(d, GAMMA, LAM, 1.5, 1.1),
    ),
    "retrace": (
        ("log_rhos", "q_values", "rewards", "next_values"),
        lambda d, **k: R.retrace(**d, gamma=GAMMA, lam=LAM, **k),
        lambda d: brute.retrace(d, GAMMA, LAM),
    ),
}
NAMES = list(FAMILY)


def tup(x):
    return x if isinstance(x, tuple) else (x,)


def assert_equal(got, want, **tolerance):
    got, want = tup(got), tup(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), **tolerance)


def family_batch(name, T, B, **kwargs):
    return brute.batch(T, B, names=FAMILY[name][0], **kwargs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_brute_force(name, shape):
    _, call, slow = FAMILY[name]
    data = family_batch(name, *shape)
    assert_equal(call(data), slow(data))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_brute_force_without_valid(name, shape):
    _, call, slow = FAMILY[name]
    data = family_batch(name, *shape, invalid=0.0, seed=1)
    assert data["valid"].all()
    assert_equal(call({n: x for n, x in data.items() if n != "valid"}), slow(data))


@pytest.mark.parametrize("n", [1, 2, 5, 20, 100])
def test_n_step_any_n(n):
    data = brute.batch(20, 6, names=("rewards", "next_values"), ends=0.05, invalid=0.05)
    assert_equal(R.n_step_returns(**data, gamma=GAMMA, n=n), brute.n_step_returns(data, GAMMA, n))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.99, 1.0])
def test_corners_of_gamma_and_lambda(gamma, lam):
    data = brute.batch(12, 4, names=("log_rhos", "rewards", "values", "next_values"))
    gae_data = {n: x for n, x in data.items() if n != "log_rhos"}
    return_data = {n: x for n, x in gae_data.items() if n != "values"}
    assert_equal(R.gae(**gae_data, gamma=gamma, lam=lam), brute.gae(gae_data, gamma, lam))
    want = brute.lambda_returns(return_data, gamma, lam)
    assert_equal(R.lambda_returns(**return_data, gamma=gamma, lam=lam), want)
    assert_equal(R.vtrace(**data, gamma=gamma, lam=lam), brute.vtrace(data, gamma, lam))


@pytest.mark.parametrize("clip", [(1.0, 1.0), (2.0, 0.5), (math.inf, math.inf)])
def test_vtrace_clips(clip):
    data = brute.batch(12, 4, names=("log_rhos", "rewards", "values", "next_values"))
    got = R.vtrace(**data, gamma=GAMMA, rho_clip=clip[0], c_clip=clip[1])
    assert_equal(got, brute.vtrace(data, GAMMA, 1.0, *clip))


def test_by_hand():
    # Rewards 1, 2, 4, gamma 1/2; step 1 ends its episode, V' = 8 throughout, V = 1.
    r, eight, one = torch.tensor([1.0, 2.0, 4.0]), torch.full((3,), 8.0), torch.ones(3)
    end, no = torch.tensor([False, True, False]), torch.zeros(3, dtype=torch.bool)
    assert R.discounted_returns(r, eight, end, no, 0.5).tolist() == [2.0, 2.0, 8.0]
    assert R.discounted_returns(r, eight, no, end, 0.5).tolist() == [4.0, 6.0, 8.0]
    # delta = 4, 1, 7 and A = 4 + 1/4, 1, 7.
    advantages, returns = R.gae(r, one, eight, end, no, 0.5, 0.5)
    assert advantages.tolist() == [4.25, 1.0, 7.0]
    assert returns.tolist() == [5.25, 2.0, 8.0]
    # G_0 = 1 + (8/2 + 2/2) / 2.
    assert R.lambda_returns(r, eight, end, no, 0.5, 0.5).tolist() == [3.5, 2.0, 8.0]
    got = R.n_step_returns(r, eight, no, end, 0.5, 2)
    assert [x.tolist() for x in got] == [[4.0, 6.0, 8.0], [0.25, 0.5, 0.5], [1, 1, 2]]
    # rho = 1/2, c = 1/2: vs_1 = 1 + 1/2, vs_0 = 1 + (1 + 4 - 1)/2 + 1/2 * 1/2 * 1/2.
    half = torch.full((3,), math.log(0.5))
    vs, advantages = R.vtrace(half, r, one, eight, end, no, 0.5)
    torch.testing.assert_close(vs, torch.tensor([3.125, 1.5, 4.5]))
    torch.testing.assert_close(advantages, torch.tensor([0.375, 0.5, 3.5]))
    # Q_0 = 1 + (8 + w_1 (2 - 1)) / 2.
    torch.testing.assert_close(R.retrace(half, one, r, eight, end, no, 0.5), torch.tensor([5.25, 2.0, 8.0]))


@pytest.mark.parametrize("name", NAMES)
def test_nan_at_invalid_steps_and_terminated_next_values_is_ignored(name):
    _, call, _ = FAMILY[name]
    data = family_batch(name, 24, 6)
    corrupted = brute.corrupt(data)
    if "discounts" in data:  # they replace (1 - terminated), so V' of a terminated step is used
        corrupted["next_values"] = torch.where(data["valid"], data["next_values"], math.nan)
    assert corrupted["next_values"].isnan().any() or corrupted["next_values"].isinf().any()
    for i, (got, want) in enumerate(zip(tup(call(corrupted)), tup(call(data)), strict=True)):
        if (name, i) in {("gae", 1), ("vtrace", 0), ("retrace", 0)}:  # the value itself at invalid steps
            got, want = (torch.where(data["valid"], x, 0) for x in (got, want))
        assert_equal(got, want)


def test_outputs_at_invalid_steps():
    data = brute.batch(16, 5, names=("log_rhos", "rewards", "values", "next_values"))
    invalid, values = ~data["valid"], data["values"]
    pick = lambda *names: {n: data[n] for n in (*names, *brute.FLAGS)}  # noqa: E731
    plain = pick("rewards", "next_values")
    assert (R.discounted_returns(**plain, gamma=GAMMA)[invalid] == 0).all()
    assert (R.lambda_returns(**plain, gamma=GAMMA, lam=LAM)[invalid] == 0).all()
    returns, discounts, last = R.n_step_returns(**plain, gamma=GAMMA, n=3)
    assert (returns[invalid] == 0).all()
    assert (discounts[invalid] == 0).all()
    assert (last[invalid] == torch.arange(16)[:, None].expand(16, 5)[invalid]).all()
    advantages, returns = R.gae(**pick("rewards", "values", "next_values"), gamma=GAMMA, lam=LAM)
    vs, policy_advantages = R.vtrace(**data, gamma=GAMMA)
    assert (advantages[invalid] == 0).all()
    assert (policy_advantages[invalid] == 0).all()
    assert (returns[invalid] == values[invalid]).all()
    assert (vs[invalid] == values[invalid]).all()
    q = pick("log_rhos", "rewards", "next_values")
    assert (R.retrace(**q, q_values=values, gamma=GAMMA)[invalid] == values[invalid]).all()


@pytest.mark.parametrize("layout", ["time_dim=1", "time_dim=-1", "transposed", "sliced", "expanded", "1d", "4d"])
@pytest.mark.parametrize("name", NAMES)
def test_layouts(name, layout):
    """The kernels of PufferLib gave silently wrong results for non-contiguous tensors."""
    _, call, _ = FAMILY[name]
    data = family_batch(name, 9, 6)
    if layout == "expanded":
        data = {n: x[:, :1].expand(9, 6) for n, x in data.items()}
    want = tup(call({n: x.contiguous() for n, x in data.items()}))
    back = lambda x: x  # noqa: E731
    kwargs = {}
    if layout.startswith("time_dim"):
        kwargs = {"time_dim": int(layout.split("=")[1])}
        data, back = {n: x.t().contiguous() for n, x in data.items()}, torch.t
    elif layout == "transposed":
        data = {n: x.t().contiguous().t() for n, x in data.items()}
    elif layout == "sliced":
        data = {n: x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, 1::3] for n, x in data.items()}
    elif layout == "1d":
        data, want = {n: x[:, 0] for n, x in data.items()}, tuple(x[:, 0] for x in want)
    elif layout == "4d":
        kwargs = {"time_dim": 2}
        data = {n: x.t().reshape(2, 3, 9, 1) for n, x in data.items()}
        back = lambda x: x.reshape(6, 9).t()  # noqa: E731
    got = tup(call(data, **kwargs))
    assert all(x.shape == data["rewards"].shape for x in got)
    assert_equal(tuple(back(x) for x in got), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0), (0, 0), (2, 0, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_empty(name, shape):
    names, call, _ = FAMILY[name]
    data = {n: torch.zeros(shape, requires_grad=True) for n in names}
    data |= {n: torch.zeros(shape, dtype=torch.bool) for n in brute.FLAGS}
    assert all(x.shape == shape for x in tup(call(data)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name, dtype):
    """Half precision is computed in float32: the error is one rounding of the output, plus that of gamma in float32."""
    _, call, _ = FAMILY[name]
    data = family_batch(name, 40, 8, dtype=dtype)
    want = tup(call({n: x.double() if x.is_floating_point() else x for n, x in data.items()}))
    eps = torch.finfo(dtype).eps
    for got, exact in zip(tup(call(data)), want, strict=True):
        if got.dtype == torch.int64:
            assert torch.equal(got, exact)
            continue
        assert got.dtype == dtype
        slack = (eps if dtype != torch.float32 else 8 * eps) * exact.abs().clamp(min=1)
        assert ((got.double() - exact).abs() <= slack).all()


# ---- identities


def test_lambda_one_is_discounted():
    data = brute.batch(20, 5, names=("rewards", "next_values"))
    got = R.lambda_returns(**data, gamma=GAMMA, lam=1.0)
    assert_equal(got, R.discounted_returns(**data, gamma=GAMMA))


def test_lambda_zero_is_one_step():
    data = brute.batch(20, 5, names=("rewards", "next_values"))
    got = R.lambda_returns(**data, gamma=GAMMA, lam=0.0)
    assert_equal(got, R.n_step_returns(**data, gamma=GAMMA, n=1)[0])


def test_long_n_step_is_discounted():
    data = brute.batch(20, 5, names=("rewards", "next_values"))
    got = R.n_step_returns(**data, gamma=GAMMA, n=20)[0]
    assert_equal(got, R.discounted_returns(**data, gamma=GAMMA))


def test_n_step_bootstrap_can_be_added_later():
    data = brute.batch(20, 5, names=("rewards", "next_values"))
    want = R.n_step_returns(**data, gamma=GAMMA, n=4)[0]
    later = data | {"next_values": None}
    returns, discounts, last = R.n_step_returns(**later, gamma=GAMMA, n=4)
    assert_equal(returns + discounts * data["next_values"].gather(0, last), want)


def consistent_values(data):
    """Return the batch with V'_t = V_{t+1} inside episodes, as the on-policy identities require."""
    shifted = torch.cat([data["values"][1:], data["next_values"][-1:]])
    ends = data["terminated"] | data["truncated"]
    return data | {"next_values": torch.where(ends, data["next_values"], shifted)}


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_gae_plus_value_is_lambda_return_when_values_are_consistent(lam):
    data = consistent_values(brute.batch(20, 5, names=("rewards", "values", "next_values"), invalid=0.0))
    advantages, returns = R.gae(**data, gamma=GAMMA, lam=lam)
    values = data.pop("values")
    assert_equal(returns, R.lambda_returns(**data, gamma=GAMMA, lam=lam))
    assert_equal(advantages + values, returns)


@pytest.mark.parametrize("lam", [0.5, 1.0])
def test_on_policy_vtrace_and_retrace_are_lambda_returns(lam):
    data = consistent_values(brute.batch(20, 5, names=("rewards", "values", "next_values"), invalid=0.0))
    zeros = torch.zeros_like(data["rewards"])
    vs, _ = R.vtrace(zeros, **data, gamma=GAMMA, lam=lam)
    values = data.pop("values")
    want = R.lambda_returns(**data, gamma=GAMMA, lam=lam)
    assert_equal(vs, want)
    assert_equal(R.retrace(zeros, values, **data, gamma=GAMMA, lam=lam), want)


@pytest.mark.parametrize("name", NAMES)
def test_next_step_autoreset_equals_separate_episodes(name):
    """With NEXT_STEP autoreset the step after a done is invalid; the results equal those of separate episodes."""
    names, call, _ = FAMILY[name]
    lengths, ends = (5, 1, 8, 3), ("terminated", "truncated", "terminated", None)
    generator = torch.Generator().manual_seed(3)
    episodes, rows = [], []
    for length, end in zip(lengths, ends, strict=True):
        data = {n: torch.randn(length, 1, generator=generator, dtype=torch.float64) for n in names}
        data |= {n: torch.zeros(length, 1, dtype=torch.bool) for n in FLAGS}
        data["valid"] = torch.ones(length, 1, dtype=torch.bool)
        reset = {n: torch.full((1, 1), math.nan, dtype=torch.float64) for n in names}
        reset |= {n: torch.zeros(1, 1, dtype=torch.bool) for n in (*FLAGS, "valid")}
        episodes.append(data)
        rows.append(data)
        if end:
            data[end][-1] = True
            rows.append(reset)
    together = tup(call({n: torch.cat([row[n] for row in rows]) for n in rows[0]}))
    start = 0
    for data, length in zip(episodes, lengths, strict=True):
        for got, want in zip(together, tup(call(data)), strict=True):
            offset = start if got.dtype == torch.int64 else 0
            assert_equal(got[start : start + length] - offset, want)
        start += length + 1
