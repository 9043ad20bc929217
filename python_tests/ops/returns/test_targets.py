"""TD targets and the categorical projection against brute force, hand-computed cases and known bugs."""

import math

import pytest
import returns_brute_force as brute
import torch

import automl_ext
from automl_ext.ops import _checks
from automl_ext.ops.targets import categorical_projection, td_targets


def transitions(N=64, atoms=11, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(N, atoms, generator=generator, dtype=torch.float64).softmax(-1).to(dtype)
    rewards = 3 * torch.randn(N, generator=generator, dtype=torch.float64).to(dtype)
    terminated = torch.rand(N, generator=generator) < 0.3
    discounts = torch.rand(N, generator=generator, dtype=torch.float64).to(dtype)
    return probs, rewards, terminated, discounts


def test_td_targets_by_hand():
    r, q = torch.tensor([1.0, 1.0]), torch.tensor([[2.0, 4.0], [8.0, 6.0]])
    end = torch.tensor([False, True])
    assert td_targets(r, q, end, 0.5).tolist() == [3.0, 1.0]
    online = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    no = torch.tensor([False, False])
    assert td_targets(r, q, no, 0.5, next_q_online=online).tolist() == [2.0, 4.0]
    assert td_targets(r, q, no, torch.tensor([0.5, 0.25]), next_q_online=online).tolist() == [2.0, 2.5]


@pytest.mark.parametrize("double", [False, True])
def test_td_targets_do_not_read_the_next_state_of_terminated_steps(double):
    r, end = torch.ones(3), torch.tensor([False, True, True])
    q = torch.tensor([[2.0, 4.0], [math.nan, 0.0], [math.inf, math.inf]])
    online = q if double else None
    assert td_targets(r, q, end, 0.5, next_q_online=online).tolist() == [3.0, 1.0, 1.0]
    d = torch.tensor([0.5, math.nan, math.inf])
    assert td_targets(r, q, end, d, next_q_online=online).tolist() == [3.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_td_targets_dtypes_and_no_gradient(dtype):
    q, r, end, d = transitions(dtype=dtype)
    got = td_targets(r.requires_grad_(), q.requires_grad_(), end, d.requires_grad_())
    want = r.double() + d.double() * (~end) * q.double().amax(-1)
    assert got.dtype == dtype
    assert not got.requires_grad
    assert ((got - want).abs() <= torch.finfo(dtype).eps * want.abs().clamp(min=1)).all()


def test_targets_have_no_tangent():
    p, r, end, d = transitions()
    calls = (lambda p, r, d: td_targets(r, p, end, d), lambda p, r, d: categorical_projection(p, r, end, d, -2.0, 2.0))
    for call in calls:
        value, tangent = torch.func.jvp(call, (p, r, d), (p, r, d))
        torch.testing.assert_close(value, call(p, r, d))
        assert not tangent.any()


@pytest.mark.parametrize("atoms", [2, 3, 11, 51])
@pytest.mark.parametrize("bounds", [(-10.0, 10.0), (-1.0, 2.5), (0.0, 1e-3)])
def test_projection_brute_force(atoms, bounds):
    probs, rewards, end, discounts = transitions(atoms=atoms)
    got = categorical_projection(probs, rewards, end, discounts, *bounds)
    want = brute.categorical_projection(probs, rewards, end, discounts, *bounds)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    got = categorical_projection(probs, rewards, end, 0.9, *bounds)
    want = brute.categorical_projection(probs, rewards, end, torch.full((64,), 0.9), *bounds)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)  # rounding of 0.9 to float32


def test_projection_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25]] * 3)
    r, end = torch.tensor([0.5, 1.0, 0.0]), torch.tensor([False, True, False])
    got = categorical_projection(p, r, end, 1.0, -1.0, 1.0)
    assert got.tolist() == [[0.25, 0.375, 0.375], [0.0, 0.0, 1.0], [0.5, 0.25, 0.25]]


@pytest.mark.parametrize("reward", [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
def test_no_mass_is_lost_when_an_atom_falls_on_the_grid(reward):
    """The common weights (u - b) and (b - l) are both 0 at an integer b and lose the mass of the atom."""
    p = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]], dtype=torch.float64)
    for end in (True, False):
        args = (torch.tensor([reward], dtype=torch.float64), torch.tensor([end]), 1.0, -2.0, 2.0)
        torch.testing.assert_close(categorical_projection(p, *args).sum(), p.sum(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_row_sums_are_preserved(dtype):
    """Also for unnormalized rows; with the bounds of C51, atoms fall on the grid."""
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(500, 51, generator=generator, dtype=torch.float64).to(dtype) / 32
    r = torch.randint(-30, 30, (500,), generator=generator).to(dtype) * 0.1
    end = torch.rand(500, generator=generator) < 0.3
    got = categorical_projection(p, r, end, 0.99, -10.0, 10.0)
    assert got.dtype == dtype
    assert (got >= 0).all()
    # Each output is rounded once, by at most half an ulp; the rest is the float64 error of sums of 51 terms.
    slack = (torch.finfo(dtype).eps + 51 * torch.finfo(torch.float64).eps) * got.double().sum(-1)
    assert ((got.double().sum(-1) - p.double().sum(-1)).abs() <= slack).all()


def test_projection_mean_is_the_target_inside_the_bounds():
    probs, rewards, end, discounts = transitions(atoms=51)
    z = torch.linspace(-20, 20, 51, dtype=torch.float64)
    got = categorical_projection(probs, rewards / 10, end, 0.5 * discounts, -20.0, 20.0) @ z
    torch.testing.assert_close(got, rewards / 10 + 0.5 * discounts * ~end * (probs @ z))


def test_projection_nan_rows_and_infinite_rewards():
    p = torch.full((5, 3), 1 / 3)
    r = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 0.0])
    p[3, 1] = math.nan
    got = categorical_projection(p, r, torch.zeros(5, dtype=torch.bool), 0.5, -1.0, 1.0)
    assert got[[0, 3]].isnan().all()
    torch.testing.assert_close(got[1], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(got[2], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(got[4], torch.tensor([1 / 6, 2 / 3, 1 / 6]))


def test_projection_does_not_read_the_next_distribution_of_terminated_steps():
    p = torch.tensor([[math.nan] * 3, [math.inf, 0.0, 0.0], [0.2, 0.3, 0.5]])
    end = torch.tensor([True, True, True])
    d = torch.tensor([math.nan, math.inf, 0.9])
    got = categorical_projection(p, torch.tensor([1.0, -0.5, 0.0]), end, d, -1.0, 1.0)
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))


def test_projection_layouts_shapes_and_no_gradient():
    probs, rewards, end, discounts = transitions(N=12, atoms=5)
    want = categorical_projection(probs, rewards, end, discounts, -2.0, 2.0)
    args = (rewards.repeat_interleave(2)[::2], end.repeat_interleave(2)[::2], discounts.requires_grad_())
    got = categorical_projection(probs.t().contiguous().t().requires_grad_(), *args, -2.0, 2.0)
    assert torch.equal(got, want)
    assert not got.requires_grad
    nested = [x.reshape(3, 4, *x.shape[1:]) for x in (probs, rewards, end, discounts)]
    assert torch.equal(categorical_projection(*nested, -2.0, 2.0), want.reshape(3, 4, 5))
    empty = [x[:0] for x in (probs, rewards, end, discounts)]
    assert categorical_projection(*empty, -2.0, 2.0).shape == (0, 5)
    assert td_targets(empty[1], empty[0], empty[2], 0.9).shape == (0,)


def test_projection_compile_and_vmap():
    probs, rewards, end, discounts = transitions(N=12, atoms=5)
    f = lambda *x: categorical_projection(*x, -2.0, 2.0)  # noqa: E731
    want = f(probs, rewards, end, discounts)
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(probs, rewards, end, discounts), want)
    torch.testing.assert_close(torch.vmap(f)(probs, rewards, end, discounts), want)


@pytest.mark.parametrize("double", [False, True])
def test_td_targets_compile_and_vmap(double):
    q, rewards, end, discounts = transitions(N=12, atoms=5)
    f = lambda r, q, e, d: td_targets(r, q, e, d, next_q_online=-q if double else None)  # noqa: E731
    want = f(rewards, q, end, discounts)
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rewards, q, end, discounts), want)
    torch.testing.assert_close(torch.vmap(f)(rewards, q, end, discounts), want)
    only_q = torch.vmap(f, in_dims=(None, 0, None, None))(rewards[0], q, end[0], discounts[0])
    torch.testing.assert_close(only_q, f(rewards[:1].expand(12), q, end[:1].expand(12), discounts[:1].expand(12)))


P, RW, E = torch.full((4, 3), 1 / 3), torch.zeros(4), torch.zeros(4, dtype=torch.bool)


def project(next_probs=P, rewards=RW, terminated=E, discounts=0.9, v_min=-1.0, v_max=1.0):
    return categorical_projection(next_probs, rewards, terminated, discounts, v_min, v_max)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"next_probs": P.int()}, TypeError, "next_probs: expected a float64, float32"),
        ({"next_probs": P[:, :1]}, ValueError, "next_probs: expected at least 2 atoms, got 1"),
        ({"next_probs": P[:, :0]}, ValueError, "next_probs: expected a non-empty last dim"),
        ({"next_probs": P[0, 0]}, ValueError, "next_probs: expected a non-empty last dim"),
        ({"rewards": RW.double()}, TypeError, "rewards: expected a float32 tensor, got float64"),
        ({"rewards": RW[:2]}, ValueError, r"rewards: expected shape \(4,\), got \(2,\)"),
        ({"rewards": RW.to("meta")}, ValueError, "rewards: expected a tensor on cpu, got one on meta"),
        ({"terminated": RW}, TypeError, r"terminated: expected a bool tensor, .*terminated\.bool\(\)"),
        ({"terminated": None}, TypeError, "terminated: expected a bool tensor, got NoneType"),
        ({"discounts": 1.5}, ValueError, r"discounts: expected a number in \[0, 1\], got 1.5"),
        ({"discounts": "x"}, TypeError, "discounts: expected a float, got"),
        ({"discounts": RW[:1]}, ValueError, r"discounts: expected shape \(4,\)"),
        ({"v_min": 1.0}, ValueError, "v_max: expected a number above v_min = 1.0, got 1.0"),
        ({"v_max": -2}, ValueError, "v_max: expected a number above v_min"),
        ({"v_min": -1e308, "v_max": 1e308}, ValueError, "v_max: expected"),
        ({"v_min": -math.inf}, ValueError, "v_min: expected"),
        ({"v_max": math.nan}, ValueError, "v_max: expected"),
    ],
)
def test_projection_refuses(change, error, message):
    with pytest.raises(error, match=f"categorical_projection: {message}"):
        project(**change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rewards": RW.int()}, TypeError, "rewards: expected a float32 tensor"),
        ({"next_q": P[:2]}, ValueError, r"rewards: expected shape \(2,\), got \(4,\)"),
        ({"next_q": P[:, :0]}, ValueError, "next_q: expected a non-empty last dim"),
        ({"next_q_online": P[:, :2]}, ValueError, r"next_q_online: expected shape \(4, 3\), got \(4, 2\)"),
        ({"next_q_online": P.double()}, TypeError, "next_q_online: expected a float32 tensor"),
        ({"terminated": RW}, TypeError, "terminated: expected a bool tensor"),
        ({"discounts": -0.1}, ValueError, "discounts: expected a number"),
    ],
)
def test_td_targets_refuse(change, error, message):
    arguments = {"rewards": RW, "next_q": P, "terminated": E, "discounts": 0.9} | change
    with pytest.raises(error, match=f"td_targets: {message}"):
        td_targets(**arguments)


def test_atoms_too_close_for_a_grid_are_refused():
    with pytest.raises(ValueError, match="v_max"):
        categorical_projection(torch.ones(1, 3) / 3, torch.zeros(1), torch.zeros(1, dtype=bool), 0.9, 0.0, 5e-324)


def test_reference_of_the_projection_on_a_device_without_float64(monkeypatch):
    probs, rewards, terminated, discounts = transitions(dtype=torch.float32)
    with automl_ext.backend("reference"):
        expected = categorical_projection(probs, rewards, terminated, discounts, -2.0, 3.0)
        monkeypatch.setattr(_checks, "NO_FLOAT64", ("cpu",))
        monkeypatch.setattr(torch.Tensor, "double", None)
        got = categorical_projection(probs, rewards, terminated, discounts, -2.0, 3.0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
