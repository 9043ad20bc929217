"""The compiled kernels of the returns family: lanes, strips, threads and instruction sets."""

import math
import os
import sys

import fresh_python
import pytest
import returns_brute_force as brute
import torch
from test_returns import FAMILY, NAMES, tup

import automl_ext
from automl_ext import _native
from automl_ext.ops.targets import categorical_projection, td_targets

pytestmark = pytest.mark.skipif(
    not _native.is_loaded() or _native.current_backend() == "reference", reason="the native library is not in use"
)


def batch(name, T, B, **kwargs):
    return brute.batch(T, B, names=FAMILY[name][0], **kwargs)


def outputs_and_gradients(name, data):
    inputs = {n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in data.items()}
    out = tup(FAMILY[name][1](inputs))
    # Weights per step: weights that depend on y would multiply its rounding.
    weights = [torch.arange(len(y)).cos().to(y).reshape(-1, *[1] * (y.dim() - 1)) for y in out]
    loss = sum((y * weight).sum() for y, weight in zip(out, weights, strict=True) if y.requires_grad)
    if isinstance(loss, torch.Tensor):
        loss.backward()
    return [y.detach() for y in out] + [x.grad for x in inputs.values() if x.grad is not None]


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 8, 15, 16, 17, 63, 65, 1023, 1024, 1025, 2100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_lane_and_strip(dtype, columns):
    """Results equal the reference for any remainder of a vector or of a strip of columns."""
    for name in NAMES:
        data = batch(name, 5, columns, dtype=dtype)
        got = outputs_and_gradients(name, data)
        with automl_ext.backend("reference"):
            want = outputs_and_gradients(name, data)
        eps = torch.finfo(dtype).eps
        for a, b in zip(got, want, strict=True):
            largest = float(b.abs().max())  # sums cancel; their terms have this size
            torch.testing.assert_close(a, b, rtol=0, atol=4 * eps * largest if b.is_floating_point() else 0)


@pytest.mark.parametrize("byte", [2, 255])
def test_any_byte_but_0_is_true(byte):
    """Masks of other libraries, viewed as bool, may have other bytes than 0 and 1."""

    def other_bytes(x):
        return (x.to(torch.uint8) * byte).view(torch.bool)

    for name in NAMES:
        for data in (batch(name, 6, 37), {k: x for k, x in batch(name, 6, 32, invalid=0.0).items() if k != "valid"}):
            other = {n: other_bytes(x) if x.dtype == torch.bool else x for n, x in data.items()}
            for got, want in zip(outputs_and_gradients(name, other), outputs_and_gradients(name, data), strict=True):
                assert torch.equal(got, want), name
    r, q, end, d, _ = (x.nan_to_num() for x in td_arguments(37, 4, torch.float32))
    assert torch.equal(td_targets(r, q, other_bytes(end), d), td_targets(r, q, end, d))


@pytest.mark.parametrize("name", NAMES)
def test_a_column_does_not_depend_on_its_neighbors(name):
    data = batch(name, 20, 1100)
    together = outputs_and_gradients(name, data)
    for b in (0, 17, 1099):
        alone = outputs_and_gradients(name, {n: x[:, b].clone() for n, x in data.items()})
        assert all(torch.equal(x[:, b], y) for x, y in zip(together, alone, strict=True))


def test_long_trajectories():
    """The float32 error over 5,000 steps is bounded by the horizon 1/(1 - gamma)."""
    data = batch("discounted_returns", 5000, 3, ends=0.0005, invalid=0.0)
    args = {n: x for n, x in data.items() if n != "valid"}
    exact = automl_ext.discounted_returns(**args, gamma=0.999)
    single = {n: x.float() if x.is_floating_point() else x for n, x in args.items()}
    got = automl_ext.discounted_returns(**single, gamma=0.999)
    assert (got.double() - exact).abs().max() <= 100 * torch.finfo(torch.float32).eps * exact.abs().max()


def test_n_longer_than_the_trajectory_and_no_flag_set():
    for T, B in ((6, 3), (1, 1), (40, 17)):
        data = batch("n_step_returns", T, B, ends=0.0, invalid=0.0)
        returns, discounts, last = automl_ext.n_step_returns(**data, gamma=0.9, n=1000)
        most = automl_ext.n_step_returns(**data, gamma=0.9, n=2**63 - 1)
        assert all(torch.equal(a, b) for a, b in zip(most, (returns, discounts, last), strict=True))
        torch.testing.assert_close(returns, brute.n_step_returns(data, 0.9, 1000)[0])
        assert (last == T - 1).all()
        torch.testing.assert_close(discounts[:, 0], 0.9 ** torch.arange(T, 0, -1, dtype=torch.float64))


def every_result():
    """Return the outputs and gradients of every op in every dtype."""
    return {
        (name, dtype): outputs_and_gradients(name, batch(name, 20, 37, dtype=dtype))
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
        for name in NAMES
    }


@pytest.mark.slow
def test_every_instruction_set_gives_the_same_bits(tmp_path):
    """Except for the last bits of the two ops with an exponential, whose rounding differs."""
    here = os.path.dirname(__file__)
    results = {}
    for name in automl_ext.build_info()["instruction_sets"].split(", "):
        path = tmp_path / f"{name}.pt"
        code = (
            f"import sys; sys.path += {[here, *sys.path]!r}\n"
            "import json, torch, test_returns_native as t, automl_ext\n"
            f"torch.save(t.every_result(), {str(path)!r})\n"
            "print(json.dumps(automl_ext.build_info()['instruction_set']))"
        )
        used = fresh_python.facts(code, AUTOML_EXT_CPU=name)
        results[used] = torch.load(path)
    first = next(iter(results.values()))
    for other in results.values():
        for (name, dtype), xs in first.items():
            for x, y in zip(xs, other[name, dtype], strict=True):
                if name in ("vtrace", "retrace"):
                    assert (x.double() - y.double()).abs().max() <= 4 * torch.finfo(dtype).eps * x.abs().max()
                else:
                    assert torch.equal(x, y), (name, dtype)


def test_targets_have_no_gradient_under_func_grad():
    data = batch("vtrace", 6, 3)

    def loss(rewards):
        vs, advantages = automl_ext.vtrace(**(data | {"rewards": rewards}), gamma=0.9)
        return (vs + advantages + rewards).sum()

    assert torch.equal(torch.func.grad(loss)(data["rewards"]), torch.ones_like(data["rewards"]))


def test_wrong_arguments_of_the_raw_ops_do_not_crash():
    x, flag = torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.bool)
    ops = torch.ops.automl_ext
    with pytest.raises(ValueError, match=r"gae: values: expected shape \[4, 3\], got \[3, 3\]"):
        ops.gae(x, x[:3], x, flag, flag, None, 0.9, 0.9)
    with pytest.raises(TypeError, match="gae: values: expected"):
        ops.gae(x, x.double(), x, flag, flag, None, 0.9, 0.9)
    with pytest.raises(TypeError, match="vtrace: terminated: expected a bool tensor"):
        ops.vtrace(x, x, x, x, x, flag, None, 0.9, 0.9, 1.0, 1.0)
    with pytest.raises(ValueError, match="retrace: rewards: expected at least the time dim"):
        ops.retrace(x[0, 0], x[0, 0], x[0, 0], x[0, 0], flag[0, 0], flag[0, 0], None, 0.9, 0.9)
    with pytest.raises(ValueError, match="categorical_projection: next_probs: expected at least 2 atoms"):
        ops.categorical_projection(x[:, :1], x[:, 0], flag[:, 0], None, 0.9, -1.0, 1.0)
    with pytest.raises(ValueError, match="categorical_projection: rewards: expected shape"):
        ops.categorical_projection(x, x[:2, 0], flag[:, 0], None, 0.9, -1.0, 1.0)


# ---- categorical projection


def projection_arguments(N, atoms, dtype):
    generator = torch.Generator().manual_seed(N)
    probs = torch.randn(N, atoms, generator=generator, dtype=torch.float64).softmax(-1)
    rewards, discounts = torch.randn(N, generator=generator), torch.rand(N, generator=generator)
    return probs.to(dtype), rewards.to(dtype), torch.rand(N, generator=generator) < 0.2, discounts.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("N", "atoms"), [(1, 2), (7, 3), (100, 51), (5000, 51), (3, 1000)])
def test_projection_equals_the_reference(N, atoms, dtype):
    args = projection_arguments(N, atoms, dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        got = categorical_projection(*args, -3.0, 4.0)
        torch.set_num_threads(1)
        assert torch.equal(categorical_projection(*args, -3.0, 4.0), got)
    finally:
        torch.set_num_threads(threads)
    with automl_ext.backend("reference"):
        want = categorical_projection(*args, -3.0, 4.0)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(got, want, rtol=2 * eps, atol=1e-12)


def test_projection_opcheck():
    for dtype in (torch.float32, torch.float64):
        probs, *rest = projection_arguments(6, 5, dtype)
        for p in (probs, probs.t().contiguous().t()):
            op = torch.ops.automl_ext.categorical_projection.default
            torch.library.opcheck(op, (p, *rest, 1.0, -2.0, 2.0))
            torch.library.opcheck(op, (p, *rest[:2], None, 0.9, -2.0, 2.0))


# ---- Q-learning targets


def td_arguments(N, actions, dtype):
    generator = torch.Generator().manual_seed(N)
    q, online = torch.randn(2, N, actions, generator=generator, dtype=torch.float64).to(dtype)
    q[::7, 0], online[::11, -1] = math.nan, math.nan
    online = (2 * online).round() / 2  # many actions have equal values
    rewards, discounts = torch.randn(N, generator=generator), torch.rand(N, generator=generator)
    return rewards.to(dtype), q, torch.rand(N, generator=generator) < 0.2, discounts.to(dtype), online


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("N", "actions"), [(1, 1), (7, 3), (100, 4), (5000, 18), (33, 33), (3, 1000)])
def test_td_targets_equal_the_reference_bit_for_bit(N, actions, dtype):
    r, q, end, d, online = td_arguments(N, actions, dtype)
    threads = torch.get_num_threads()
    for discounts in (0.99, d):
        for judge in (None, online, q):
            try:
                torch.set_num_threads(2)
                got = td_targets(r, q, end, discounts, next_q_online=judge)
                torch.set_num_threads(1)
                one = td_targets(r, q, end, discounts, next_q_online=judge)
            finally:
                torch.set_num_threads(threads)
            with automl_ext.backend("reference"):
                want = td_targets(r, q, end, discounts, next_q_online=judge)
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(one, want, rtol=0, atol=0, equal_nan=True)
            layouts = (r.repeat_interleave(2)[::2], q.t().contiguous().t(), end, discounts)
            strided = td_targets(*layouts, next_q_online=judge)
            torch.testing.assert_close(strided, want, rtol=0, atol=0, equal_nan=True)


def test_td_targets_opcheck():
    op = torch.ops.automl_ext.td_targets.default
    for dtype in (torch.float32, torch.float64):
        r, q, end, d, online = (x.nan_to_num() for x in td_arguments(6, 5, dtype))
        for following in (q, q.t().contiguous().t()):
            torch.library.opcheck(op, (r, following, end, d, online, 1.0))
            torch.library.opcheck(op, (r.reshape(2, 3), following.reshape(2, 3, 5), end.reshape(2, 3), None, None, 0.9))


def test_raw_td_targets_refuse():
    x, flag, op = torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool), torch.ops.automl_ext.td_targets
    with pytest.raises(ValueError, match="td_targets: next_q: expected at least 1 action"):
        op(x[:, 0], x[:, :0], flag, None, None, 0.9)
    with pytest.raises(ValueError, match=r"td_targets: rewards: expected shape \[4\], got \[2\]"):
        op(x[:2, 0], x, flag, None, None, 0.9)
    with pytest.raises(TypeError, match="td_targets: terminated: expected a Bool tensor"):
        op(x[:, 0], x, x[:, 0], None, None, 0.9)
    with pytest.raises(ValueError, match="td_targets: next_q_online: expected shape"):
        op(x[:, 0], x, flag, None, x[:, :2], 0.9)
