"""The ops of the shared conformance suite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from attention_specs import ATTENTION_SPECS
from mlp_specs import MLP_SPECS
from op_spec import OpSpec
from policy_specs import POLICY_SPECS
from returns_specs import RETURNS_SPECS
from torch import Tensor

import automl_ext
from automl_ext.ops import _gumbel_reference
from automl_ext.ops.entmax import entmax_bisect
from automl_ext.ops.entmax._bisect import bisect_reference
from automl_ext.ops.entmax._reference import _entmax15_reference, _sparsemax_reference

SEED = 20240229
SIZES = (0, 1, 2, 7, 8, 31, 32, 33, 127, 1000)


def _shape(size: int, dim: int) -> list[int]:
    shape = [3, 2, 4]
    shape[dim] = size
    return shape


def _logits(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
    return [2 * torch.randn(_shape(size, dim), generator=generator, dtype=torch.float64)], {}


def _entmax_native(name: str) -> Callable[..., list[tuple[str, tuple]]]:
    def native(tensors: Sequence[Tensor], dim: int) -> list[tuple[str, tuple]]:
        x = tensors[0]
        return [(name, (x, dim)), (f"_{name}_backward", (torch.randn_like(x), x.detach().softmax(dim), dim))]

    return native


def _logits_and_alphas(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
    logits = _logits(size, dim, generator)[0]
    return [*logits, 1.1 + 0.8 * torch.rand(_shape(1, dim), generator=generator, dtype=torch.float64)], {}


def _bisect_native(tensors: Sequence[Tensor], dim: int) -> list[tuple[str, tuple]]:
    x, alpha = tensors
    p = x.detach().softmax(dim)
    return [
        ("bisect_map", (x, 0.0, alpha, 0, dim)),
        ("_bisect_map_backward", (torch.randn_like(p), p, 0.0, alpha.detach(), 0, dim, True)),
    ]


def off_threshold(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Return the mask of rows without an entry on the threshold of sparsemax, a kink common in half precision."""
    x = tensors[0].detach().double()
    if not x.numel():
        return torch.ones_like(x, dtype=torch.bool)
    p = _sparsemax_reference(x, dim)
    threshold = (x.amax(dim, keepdim=True) - p.amax(dim, keepdim=True)).expand_as(x)
    return ((x - threshold).abs() > 1e-9).all(dim, keepdim=True)


def _gumbel_native(name: str, hard: bool, with_tau: bool) -> Callable[..., list[tuple[str, tuple]]]:
    def native(tensors: Sequence[Tensor], dim: int) -> list[tuple[str, tuple]]:
        logits, tau = tensors[0], tensors[1] if with_tau else None
        y = logits.detach().softmax(dim)
        seed = torch.tensor(SEED, device=logits.device)
        return [
            (name, (logits, seed, 0.7, tau, dim, hard, True)),
            (f"_{name}_backward", (torch.randn_like(y), y, 0.7, None if tau is None else tau.detach(), dim, with_tau)),
        ]

    return native


def _gumbel(function: Callable[..., Tensor], hard: bool) -> Callable[..., Tensor]:
    return lambda tensors, dim: function(tensors[0], tensors[1], hard, dim, seed=SEED)


def _logits_and_tau(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
    return [*_logits(size, dim, generator)[0], torch.tensor(0.7, dtype=torch.float64)], {}


def _logits_and_taus(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
    logits = _logits(size, dim, generator)[0]
    return [*logits, 0.5 + torch.rand(_shape(1, dim), generator=generator, dtype=torch.float64)], {}


def _mixed_inputs(size: int, dim: int, generator: torch.Generator) -> tuple[list[Tensor], dict]:
    xs = [torch.randn(_shape(size, dim), generator=generator, dtype=torch.float64) for _ in range(3)]
    return [*xs, torch.tensor([0.5, -1.5, 0.0, 2.0], dtype=torch.float64)], {}


def _mixed(tensors: Sequence[Tensor], dim: int) -> Tensor:
    *xs, weights = tensors
    return automl_ext.mixed_op([xs[0], None, xs[1], xs[2]], weights)


def _mixed_native(tensors: Sequence[Tensor], dim: int) -> list[tuple[str, tuple]]:
    *xs, weights = tensors
    detached = [x.detach() for x in xs]
    return [
        ("mixed_op", (xs, weights, [0, 2, 3])),
        (
            "_mixed_op_backward",
            (torch.randn_like(xs[0]), detached, weights.detach(), [0, 2, 3], [True, False, True]),
        ),
    ]


def _cell(tensors: Sequence[Tensor], dim: int) -> Tensor:
    *xs, weights = tensors
    return automl_ext.cell_aggregate([[xs[0], None], [xs[1], xs[2]]], weights.reshape(2, 2))


def _mixed_eager(tensors: Sequence[Tensor], dim: int) -> Tensor:
    *xs, weights = tensors
    return weights[0] * xs[0] + weights[2] * xs[1] + weights[3] * xs[2]


@contextlib.contextmanager
def _exact_gumbel(dtype: torch.dtype) -> Iterator[None]:
    """Use the reference with exact noise: float32 noise is a function of v in float32, evaluated in float64."""
    original = _gumbel_reference.gumbel_from_words

    def from_float32_words(words: Tensor, _: torch.dtype) -> Tensor:
        v = (words.to(torch.float32) * 2.0**-32 + 2.0**-33).clamp(max=1 - 2.0**-24).double()
        return -torch.log(-torch.log1p(-v))

    if dtype != torch.float64:
        _gumbel_reference.gumbel_from_words = from_float32_words
    try:
        with automl_ext.backend("reference"):
            yield
    finally:
        _gumbel_reference.gumbel_from_words = original


def _gumbel_eager(activation: Callable[[Tensor, int], Tensor], hard: bool) -> Callable[..., Tensor]:
    """Return a version of torch.nn.functional.gumbel_softmax with the noise of our random stream."""

    def eager(tensors: Sequence[Tensor], dim: int) -> Tensor:
        logits, tau = tensors
        with automl_ext.backend("reference"):
            zeros = torch.zeros_like(logits, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
            noise = _gumbel_reference.perturbed(zeros, torch.tensor(SEED, device=zeros.device), dim)
        soft = activation((logits + noise.to(logits.dtype)) / tau, dim)
        if not hard or not soft.numel():
            return soft
        index = (logits.detach().to(noise.dtype) + noise).argmax(dim, keepdim=True)
        return torch.zeros_like(soft).scatter(dim, index, 1.0) + (soft - soft.detach())

    return eager


def _gumbel_spec(
    name: str, activation: Callable[[Tensor, int], Tensor], hard: bool = False, rows: bool = False
) -> OpSpec:
    return OpSpec(
        name + ("_hard" if hard else "_tau_per_row" if rows else ""),
        _logits_and_taus if rows else _logits_and_tau,
        _gumbel(getattr(automl_ext, name), hard),
        _gumbel_native(name, hard, with_tau=not (hard or rows)),
        eager=_gumbel_eager(activation, hard),
        exact=_exact_gumbel,
        noise_seed=SEED,
    )


SPECS = [
    OpSpec(
        "entmax15",
        _logits,
        lambda t, dim: automl_ext.entmax15(t[0], dim),
        _entmax_native("entmax15"),
        eager=lambda t, dim: _entmax15_reference(t[0], dim),
    ),
    OpSpec(
        "sparsemax",
        _logits,
        lambda t, dim: automl_ext.sparsemax(t[0], dim),
        _entmax_native("sparsemax"),
        eager=lambda t, dim: _sparsemax_reference(t[0], dim),
        smooth=off_threshold,
    ),
    OpSpec(
        "entmax_bisect",
        _logits_and_alphas,
        lambda t, dim: entmax_bisect(t[0], t[1], dim, n_iter=64),  # for the float64 reference
        _bisect_native,
        eager=lambda t, dim: bisect_reference("entmax", t[0], t[1], dim),
        dims=(0, -1),
    ),
    _gumbel_spec("gumbel_softmax", torch.softmax),
    _gumbel_spec("gumbel_softmax", torch.softmax, hard=True),
    _gumbel_spec("gumbel_softmax", torch.softmax, rows=True),
    _gumbel_spec("gumbel_entmax15", _entmax15_reference),
    _gumbel_spec("gumbel_entmax15", _entmax15_reference, hard=True),
    _gumbel_spec("gumbel_entmax15", _entmax15_reference, rows=True),
    OpSpec(
        "mixed_op",
        _mixed_inputs,
        _mixed,
        _mixed_native,
        eager=_mixed_eager,
        autocast_dtype=None,
        dims=(0, 1),
        rowwise=False,
    ),
    OpSpec(
        "cell_aggregate",
        _mixed_inputs,
        _cell,
        _mixed_native,
        eager=_mixed_eager,
        autocast_dtype=None,
        dims=(0, 1),
        rowwise=False,
    ),
    *ATTENTION_SPECS,
    *RETURNS_SPECS,
    *MLP_SPECS,
    *POLICY_SPECS,
]

# One spec for each op and for each branch of its Python: what traces or transforms a call takes seconds for each.
TRACED_NAMES = (
    "entmax15",
    "sparsemax",
    "entmax_bisect",
    "gumbel_softmax_hard",
    "gumbel_softmax_tau_per_row",
    "gumbel_entmax15",
    "cell_aggregate",
    "entmax15_attention_causal_groups",
    "entmax15_attention_bool_mask",
    "gae",
    "lambda_returns_discounts_carry",
    "n_step_returns_carry",
    "gae_tensors",
    "vtrace",
    "retrace",
    "mlp_gelu_last",
    "mlp_silu_stack",
    "gru_cell",
    "categorical_log_probs_3",
    "policy_gradient_loss_old_log_probs_old_values_weights",
)
TRACED = [spec for spec in SPECS if spec.name in TRACED_NAMES]
