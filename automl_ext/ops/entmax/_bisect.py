"""Sparse maps whose threshold has no closed form: the compiled kernel where available, and the reference elsewhere.

The kernel (csrc/bisect) uses Newton's method in a bracket. The reference is a bisection, which computes no gradient.
After it, two steps of Newton's method that keep the value at the root add the derivatives. By the implicit function
theorem, the first step makes the first derivative exact and the second step the second derivative. Double backward
works in X and in alpha or budget; third derivatives of the reference are not exact.

Entmax and normmax share one function. Let a = α − 1, let m be the largest output of the row and δ = x − max x ≤ 0:

    p(δ) = m · [1 + a·w]₊^(1/a),   w = δ·m^(−a).

This form is accurate on long flat rows, because no threshold is subtracted from a nearly equal score. Its limit at
α = 1 is m·exp(δ), softmax. For α < 1, 1 + a·w is at least 1 and no output is zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from automl_ext import _native
from automl_ext.ops._checks import check_bool, check_dim, check_float_tensor, compute_dtype
from automl_ext.ops.entmax._arguments import check_positive_int, check_row_parameter, parameter_tensor
from automl_ext.ops.entmax._exact import entmax15, sparsemax
from automl_ext.ops.entmax._reference import nan_rows, output_dtype, row_sum, shift_by_max

NORMMAX_MIN_ALPHA = 1.0001
CODES = ("entmax", "normmax", "budget", "entmax_raw")  # their indices: BisectMap of csrc/bisect/bisect.h


def entmax_bisect(
    X: Tensor,
    alpha: float | Tensor = 1.5,
    dim: int = -1,
    n_iter: int = 50,
    ensure_sum_one: bool = True,
) -> Tensor:
    """Compute alpha-entmax: softmax at α = 1, sparsemax at α = 2, heavier tails than softmax for α < 1.

    Solves max_p ⟨x, p⟩ + H_α(p) over the simplex, where H_α is the Tsallis entropy: p = [(α−1)x − τ]₊^(1/(α−1)) with
    Σp = 1 (Peters, Niculae and Martins 2019; learnable α: Correia, Niculae and Martins 2019, arXiv 1909.00015).
    Twice differentiable in ``X`` and ``alpha``.

    Args:
        X: scores of any shape; float64, float32, bfloat16 or float16. −inf masks an entry (exact 0). A row of only
            −inf gives zeros with zero gradient. NaN or +inf in a row gives a NaN row.
        alpha: > 0. A number, or a tensor on the device of ``X`` that broadcasts to the shape of ``X`` with size 1 at
            ``dim``. On a GPU and inside torch.compile, the values of a tensor are not checked: an invalid one gives
            NaN rows.
        dim: the dim that sums to one.
        n_iter: ≥ 1. The compiled kernels do not use it: they find the threshold exactly, in a few steps. Without them,
            the largest number of halvings of the bracket of the threshold; 24 are enough for float32.
        ensure_sum_one: divide the result by its sum.

    Returns:
        Probabilities in the shape and dtype of ``X`` (float32 for half precision under autocast).

    Raises:
        TypeError: an argument has the wrong type or dtype.
        IndexError: ``dim`` is out of range.
        ValueError: ``alpha`` is not positive and finite, does not broadcast or is on another device, or ``n_iter`` < 1.
    """
    op = "entmax_bisect"
    dim, alpha = _check(X, alpha, "alpha", dim, n_iter, op, low=0.0, high=math.inf, above=True)
    check_bool(ensure_sum_one, "ensure_sum_one", op)
    if isinstance(alpha, float) and alpha in (1.5, 2.0):
        return entmax15(X, dim) if alpha == 1.5 else sparsemax(X, dim)

    return _map("entmax" if ensure_sum_one else "entmax_raw", X, alpha, dim, n_iter)


def sparsemax_bisect(X: Tensor, dim: int = -1, n_iter: int = 50, ensure_sum_one: bool = True) -> Tensor:
    """Compute :func:`sparsemax`, exactly and without bisection.

    ``n_iter`` and ``ensure_sum_one`` are accepted for compatibility and ignored. Shapes and errors are those of
    :func:`sparsemax`.
    """
    op = "sparsemax_bisect"
    check_float_tensor(X, "X", op)
    dim = check_dim(dim, X.ndim, op)
    check_positive_int(n_iter, "n_iter", op)
    check_bool(ensure_sum_one, "ensure_sum_one", op)
    return sparsemax(X, dim)


def normmax_bisect(X: Tensor, alpha: float | Tensor = 2, dim: int = -1, n_iter: int = 50) -> Tensor:
    """Compute alpha-normmax; for large α it is nearly uniform on its support.

    Solves max_p ⟨x, p⟩ − ‖p‖_α over the simplex: p ∝ [x − τ]₊^(1/(α−1)) with τ such that Σ[x − τ]₊^(α/(α−1)) = 1
    (Blondel, Martins and Niculae 2020, "Learning with Fenchel–Young losses", arXiv 1901.02324, section 4.3). Twice
    differentiable in ``X`` and ``alpha``.

    Arguments, results and errors are those of :func:`entmax_bisect`, but alpha ≥ 1.0001: at 1 the solution is not
    unique.
    """
    op = "normmax_bisect"
    dim, alpha = _check(X, alpha, "alpha", dim, n_iter, op, low=NORMMAX_MIN_ALPHA, high=math.inf)
    return _map("normmax", X, alpha, dim, n_iter)


def budget_bisect(X: Tensor, budget: float | Tensor = 2, dim: int = -1, n_iter: int = 50) -> Tensor:
    """Compute budget-sparsemax, the Euclidean projection onto {0 ≤ p ≤ 1, Σp = budget}: a soft choice of k of n.

    p = min(max(x − τ, 0), 1) (Malaviya, Ferreira and Martins 2018, arXiv 1805.08241). Twice differentiable in ``X``
    and ``budget``.

    Args:
        X: scores, as in :func:`entmax_bisect`. If a row has fewer unmasked entries than its budget, each of them
            gets 1.
        budget: in [0, size of ``dim``]; a number, or a tensor like ``alpha`` in :func:`entmax_bisect`.
        dim: the dim that sums to ``budget``.
        n_iter: as in :func:`entmax_bisect`.

    Results and errors are those of :func:`entmax_bisect`.
    """
    op = "budget_bisect"
    check_float_tensor(X, "X", op)
    size = X.shape[check_dim(dim, X.ndim, op)] if X.ndim else 1
    dim, budget = _check(X, budget, "budget", dim, n_iter, op, low=0.0, high=float(size))
    return _map("budget", X, budget, dim, n_iter)


def _check(
    X: Tensor,
    value: float | Tensor,
    name: str,
    dim: int,
    n_iter: int,
    op: str,
    *,
    low: float,
    high: float,
    above: bool = False,
) -> tuple[int, float | Tensor]:
    check_float_tensor(X, "X", op)
    dim = check_dim(dim, X.ndim, op)
    check_positive_int(n_iter, "n_iter", op)
    row_shape = [1 if i == dim else n for i, n in enumerate(X.shape)]
    return dim, check_row_parameter(value, name, op, X, row_shape, low, high, above=above)


def _map(name: str, x: Tensor, parameter: float | Tensor, dim: int, n_iter: int) -> Tensor:
    if not _native.use_native(x):
        return bisect_reference(name, x, parameter, dim, n_iter)
    code = CODES.index(name)
    if not isinstance(parameter, Tensor) and not torch.compiler.is_compiling():
        y: Tensor = torch.ops.automl_ext.bisect_map(x, parameter, None, code, dim)
        return y
    shape = [1 if i == dim else n for i, n in enumerate(x.shape)]
    parameter = parameter_tensor(parameter, compute_dtype(x), x.device)
    parameter = parameter.reshape(()) if x.ndim == 0 else parameter
    y = torch.ops.automl_ext.bisect_map(x, 0.0, parameter.expand(shape), code, dim)
    return y


def bisect_reference(name: str, x: Tensor, parameter: float | Tensor, dim: int, n_iter: int = 64) -> Tensor:
    """Compute the map ``name``, one of CODES, with differentiable PyTorch ops; arguments as in entmax_bisect."""
    dtype = output_dtype(x)
    if x.numel() == 0:
        return x.to(dtype, copy=True)
    if x.ndim == 0:
        return bisect_reference(name, x.unsqueeze(0), parameter, 0, n_iter).squeeze(0)
    work = compute_dtype(x)
    parameter = parameter_tensor(parameter, work, x.device)
    # Add leading dims, so that movedim moves the same dim of both.
    parameter = parameter[(None,) * (x.ndim - parameter.ndim)]
    y = _rows(name, x.movedim(dim, -1).to(work), parameter.movedim(dim, -1), n_iter)
    return y.movedim(-1, dim).to(dtype)


def _rows(name: str, x: Tensor, parameter: Tensor, n_iter: int) -> Tensor:
    if name == "budget":
        bad = ~(x.detach().amax(-1, keepdim=True) < torch.inf)
        valid = (parameter >= 0) & (parameter <= x.shape[-1])
        return nan_rows(_budget_outputs(x, parameter, n_iter), x, bad | ~valid)
    delta, bad = shift_by_max(x)
    a = parameter - 1
    if name == "normmax":
        # A mask is −∞/a, whose derivative in a would be NaN.
        masked = delta == -torch.inf
        delta = torch.where(masked, -torch.inf, torch.where(masked, 0, delta) / a)
        return nan_rows(_normalize(_outputs(delta, a, parameter, n_iter)), x, bad | ~(a > 0))
    p = _outputs(delta, a, torch.ones_like(a), n_iter)
    return nan_rows(p if name == "entmax_raw" else _normalize(p), x, bad | ~(parameter > 0))


def _bisect(excess, low: Tensor, high: Tensor, n_iter: int) -> Tensor:  # type: ignore[no-untyped-def]
    """Return the root in [low, high] of the increasing function ``excess``."""
    with torch.no_grad():
        width = high - low
        # More halvings than the dtype has binary digits have no effect.
        for _ in range(min(n_iter, 32 if low.dtype == torch.float32 else 64)):
            width = width / 2
            low = torch.where(excess(low + width) < 0, low + width, low)
        return low + width / 2


def _carry_derivatives(root: Tensor, excess: Tensor, slope: Tensor) -> Tensor:
    """Return ``root`` with one more order of exact derivatives, by a Newton step that does not change the value."""
    slope = slope.detach()
    return root - (excess - excess.detach()) / torch.where(slope > 0, slope, 1)


def _normalize(p: Tensor) -> Tensor:
    total = row_sum(p)
    return p / torch.where(total > 0, total, 1)  # a row of only -inf stays 0


def _outputs(delta: Tensor, a: Tensor, power: Tensor, n_iter: int) -> Tensor:
    """Return p with Σ p^power = 1 over the last dim, see the module docstring. delta [..., n]; a, power [..., 1]."""

    # With a tiny a instead of 0 the value is exact; only the derivative in a needs the series of _log1p_ratio.
    fixed_a, fixed_power = away_from_zero(a.detach()), power.detach()
    stretched, exponent = fixed_a * delta.detach(), fixed_power / fixed_a

    def excess(log_m: Tensor) -> Tensor:
        y = (stretched * _scale(fixed_a, log_m)).clamp(min=-1)
        mass = row_sum(torch.exp(exponent * torch.log1p(y)))
        return torch.exp(fixed_power * log_m) * mass - 1

    # Bracket of log m: the largest output m is at most 1, and at least n^(−1/power), its value for equal inputs.
    low = -math.log(delta.shape[-1]) / fixed_power
    log_m = _bisect(excess, low, torch.zeros_like(low), n_iter)
    for _ in range(2):
        y, w, on = _stretch(delta, a, log_m)
        mass = torch.where(on, torch.exp(power * (log_m + w * _log1p_ratio(y))), 0)
        slope = row_sum(power * mass / (1 + y))
        log_m = _carry_derivatives(log_m, row_sum(mass) - 1, slope)
    y, w, on = _stretch(delta, a, log_m)
    return torch.where(on, torch.exp(log_m + w * _log1p_ratio(y)), 0)


def away_from_zero(a: Tensor) -> Tensor:
    """Return ``a`` with 1e-12 for smaller values: a divisor for formulas that have a limit at 0."""
    return torch.where(a.abs() < 1e-12, 1e-12, a)


def _scale(a: Tensor, log_m: Tensor) -> Tensor:
    """Return m^(−a), clamped to be finite because the largest score multiplies it by δ = 0."""
    return (-a * log_m).clamp(max=0.9 * math.log(torch.finfo(log_m.dtype).max)).exp()


def _stretch(delta: Tensor, a: Tensor, log_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y, w, on): y = a·w > −1 and w = δ·m^(−a) on the support; 0 off it, where δ may be infinite."""
    scale = _scale(a, log_m)
    on = ((delta * scale * a > -1) & (delta > -torch.inf)).detach()
    w = torch.where(on, delta, 0) * scale
    return a * w, w, on


def _log1p_ratio(y: Tensor) -> Tensor:
    """Return log1p(y)/y with exact derivatives also near 0, where the terms of the quotient's derivative cancel."""
    small = y.abs() < 0.03
    near, far = torch.where(small, y, 0), torch.where(small, 1, y)
    series = torch.zeros_like(y)
    for k in range(11, 0, -1):
        series = 1 / k - near * series
    return torch.where(small, series, torch.log1p(far) / far)


def _budget_outputs(x: Tensor, budget: Tensor, n_iter: int) -> Tensor:
    """Return p with Σp = budget over the last dim. x [..., n], budget [..., 1]."""
    fixed, fixed_budget = x.detach(), budget.detach()
    # Let s be the scores in descending order and B the budget. At τ = s[⌈B⌉] − 1 the first ⌈B⌉ entries get 1 each; at
    # τ = s[⌊B⌋ + 1] at most ⌊B⌋ entries are not 0. The bracket between them is at most 1 wide for any range of scores.
    ordered = fixed.sort(-1, descending=True).values
    last = (fixed > -torch.inf).sum(-1, keepdim=True) - 1
    enough = ordered.gather(-1, torch.minimum(fixed_budget.ceil().long() - 1, last).clamp(min=0))
    beyond = ordered.gather(-1, torch.minimum(fixed_budget.floor().long(), last).clamp(min=0))
    # Subtract the upper end of the bracket, so that −1 ≤ τ ≤ 0 and large scores do not reduce the precision near the
    # threshold. An entry beyond ±2 is 0 or 1 for every τ of the bracket.
    delta = (x - torch.where(beyond.isinf(), 0, beyond)).clamp(-2, 2)
    low = (torch.where(last < 0, 0, enough - beyond) - 1).clamp(-1, 0)

    def excess(tau: Tensor) -> Tensor:
        return fixed_budget - row_sum((delta.detach() - tau).clamp(0, 1))

    high = torch.zeros_like(low)
    tau = _bisect(excess, low, high, n_iter)
    # Bisection never reaches the ends of the bracket; there, outputs of 0 and 1 are exact.
    tau = torch.where(excess(high) > 0, tau, high)
    tau = torch.where(excess(low) < 0, tau, low)
    for _ in range(2):
        p, free = _clipped(delta, tau)
        tau = _carry_derivatives(tau, budget - row_sum(p), free.sum(-1, keepdim=True))
    return _clipped(delta, tau)[0]


def _clipped(delta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Return min(max(δ − τ, 0), 1) and the mask of the entries strictly between 0 and 1."""
    gap = (delta - tau).detach()
    free = (gap > 0) & (gap < 1)
    return torch.where(free, delta - tau, (gap >= 1).to(delta.dtype)), free
