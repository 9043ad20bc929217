"""`nn.Module`s over the mixed op, for edges of people's own supernets."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from automl_ext.ops._checks import check_bool, describe, is_dense
from automl_ext.ops.gumbel import gumbel_entmax15, gumbel_softmax
from automl_ext.ops.mixed import mixed_op


class MixedOp(nn.Module):
    """An edge with K candidate modules of one output shape, mixed by weights given from outside.

    Only candidates of non-zero weight run; deciding that reads ``weights`` once on the host.
    """

    def __init__(self, candidates: Iterable[nn.Module]) -> None:
        super().__init__()
        given = list(candidates) if isinstance(candidates, Iterable) and not isinstance(candidates, Tensor) else None
        if given is None or not all(isinstance(candidate, nn.Module) for candidate in given):
            raise TypeError(f"MixedOp: candidates: expected a sequence of modules, got {describe(candidates)}")
        if not given:
            raise ValueError("MixedOp: candidates: expected at least one module, got none")
        self.candidates = nn.ModuleList(given)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Σₖ weights[k]·candidates[k](x); weights [K]."""
        shape = (len(self.candidates),)
        if not isinstance(weights, Tensor) or not is_dense(weights) or weights.shape != shape or weights.is_meta:
            device = " on meta, without values" if isinstance(weights, Tensor) and weights.is_meta else ""
            raise ValueError(f"MixedOp: weights: expected a tensor of shape {shape}, got {describe(weights)}{device}")
        active = [w != 0 for w in weights.detach().tolist()]
        if not any(active):
            raise ValueError("MixedOp: weights: expected at least one non-zero weight, got all zeros")
        outputs = [op(x) if on else None for op, on in zip(self.candidates, active, strict=True)]
        return mixed_op(outputs, weights)


class GumbelMixedOp(nn.Module):
    """An edge that learns which of K candidate modules to be, by Gumbel sampling (GDAS, Dong & Yang 2019).

    In training each forward draws hard Gumbel-softmax weights of log_softmax(alpha) and runs the drawn candidate
    only: w_k·op_k(x), a straight-through gradient to ``alpha``. In evaluation the candidate of the largest
    ``alpha`` runs alone.

    Args:
        candidates: modules of one output shape.
        tau: temperature, to be annealed by assignment (``edge.tau = 0.1``).
        sparse: draw soft Gumbel-entmax weights instead, and run their support (one to a few candidates).
    """

    def __init__(self, candidates: Iterable[nn.Module], *, tau: float = 1.0, sparse: bool = False) -> None:
        super().__init__()
        check_bool(sparse, "sparse", "GumbelMixedOp")
        self.mixed = MixedOp(candidates)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.mixed.candidates)))
        self.tau = tau
        self.sparse = sparse

    @property
    def choice(self) -> int:
        """Index of the candidate with the largest alpha."""
        return int(self.alpha.argmax())

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            chosen: Tensor = self.mixed.candidates[self.choice](x)
            return chosen
        logits = torch.log_softmax(self.alpha, -1)
        weights = gumbel_entmax15(logits, self.tau) if self.sparse else gumbel_softmax(logits, self.tau, hard=True)
        mixed: Tensor = self.mixed(x, weights)
        return mixed
