"""``nn.Module`` wrappers of the mixed op, for the edges of custom supernets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from automl_ext.ops._checks import check_bool, describe, is_dense, is_sequence
from automl_ext.ops.gumbel import gumbel_entmax15, gumbel_softmax, split_tau
from automl_ext.ops.mixed import mixed_op


def _is_batched(x: Tensor) -> bool:
    """Return whether x is a batch of tensors under vmap, at any level of torch.func's transforms."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return False


Candidates = Iterable[nn.Module] | Mapping[str, nn.Module] | nn.ModuleDict


class MixedOp(nn.Module):
    """An edge of K candidate modules with the same output shape, mixed by weights passed to ``forward``.

    Only candidates with a non-zero weight run. To find them, ``weights`` is copied to the host (a GPU
    synchronization). Under ``torch.vmap`` over the weights and in ``torch.export``, their values are unknown, so all
    candidates run, and weights of 0 get a gradient too.

    Args:
        candidates: the K modules: a sequence; or a dict or an ``nn.ModuleDict``, which names them.

    Attributes:
        candidates: the modules, an ``nn.ModuleList`` or an ``nn.ModuleDict``.

    Raises:
        TypeError: ``candidates`` is neither a sequence of modules nor a dict from names to modules.
        ValueError: no candidates, or a name that no module can have; in ``forward``, weights that are not a dense
            tensor of shape [K] with readable values, or that are all zero.
    """

    def __init__(self, candidates: Candidates) -> None:
        super().__init__()
        by_name: dict[str, nn.Module] | None = None
        given: list[nn.Module] | None = None
        if isinstance(candidates, (Mapping, nn.ModuleDict)):
            by_name = dict(candidates.items())
            given = list(by_name.values()) if all(isinstance(name, str) for name in by_name) else None
        elif is_sequence(candidates) and not isinstance(candidates, Tensor):
            given = list(candidates)
        if given is None or not all(isinstance(candidate, nn.Module) for candidate in given):
            raise TypeError(
                f"MixedOp: candidates: expected a sequence or a dict of modules, got {describe(candidates)}"
            )
        if not given:
            raise ValueError("MixedOp: candidates: expected at least one module, got none")
        self.candidates: nn.ModuleList | nn.ModuleDict
        try:
            self.candidates = nn.ModuleList(given) if by_name is None else nn.ModuleDict(by_name)
        except KeyError as error:  # a name with a dot, or of a method
            raise ValueError(f"MixedOp: candidates: expected names of modules: {error.args[0]}") from None

    def modules_in_order(self) -> list[nn.Module]:
        """Return the candidates in the order of the weights."""
        return list(self.candidates.values() if isinstance(self.candidates, nn.ModuleDict) else self.candidates)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return Σₖ weights[k]·candidates[k](x), for weights of shape [K]."""
        shape = (len(self.candidates),)
        readable = isinstance(weights, Tensor) and is_dense(weights) and not (weights.is_meta or weights.is_quantized)
        if not readable or weights.shape != shape:
            device = " on the meta device" if isinstance(weights, Tensor) and weights.is_meta else ""
            raise ValueError(f"MixedOp: weights: expected a tensor of shape {shape}, got {describe(weights)}{device}")
        unknown = torch.compiler.is_exporting() or _is_batched(weights)
        active = [True] * shape[0] if unknown else [w != 0 for w in weights.detach().tolist()]
        if not any(active):
            raise ValueError("MixedOp: weights: expected at least one non-zero weight, got all zeros")
        outputs = [op(x) if on else None for op, on in zip(self.modules_in_order(), active, strict=True)]
        return mixed_op(outputs, weights)


class GumbelMixedOp(nn.Module):
    """An edge that learns the choice among K candidate modules by Gumbel sampling (GDAS, Dong and Yang 2019).

    In training mode, each forward pass samples hard Gumbel-softmax weights from log_softmax(alpha) and runs only the
    sampled candidate k. It returns w_k·op_k(x), with a straight-through gradient to ``alpha``. In evaluation mode, only
    the candidate with the largest ``alpha`` runs. In ``torch.export``, the values of ``alpha`` are unknown: all
    candidates run and one result is selected. To export the chosen candidate alone, replace the edge by it.

    Args:
        candidates: modules with the same output shape: a sequence; or a dict or an ``nn.ModuleDict``, which names them.
        tau: temperature > 0; anneal it by assignment (``edge.tau = 0.1``).
        sparse: sample soft Gumbel-entmax weights instead, and run the candidates in their support.

    Attributes:
        alpha: the logits of the candidates, a parameter [K].
        mixed: the :class:`MixedOp` of the candidates.
    """

    def __init__(self, candidates: Candidates, *, tau: float = 1.0, sparse: bool = False) -> None:
        super().__init__()
        check_bool(sparse, "sparse", "GumbelMixedOp")
        self.mixed = MixedOp(candidates)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.mixed.candidates)))
        if not isinstance(tau, Tensor):  # a tensor may be on the device to which the module moves
            split_tau(tau, self.alpha, "GumbelMixedOp")
        self.tau = tau
        self.sparse = sparse

    @property
    def choice(self) -> int | str:
        """The index of the candidate with the largest ``alpha``, or its name if the candidates have names."""
        best = int(self.alpha.argmax())
        return list(self.mixed.candidates)[best] if isinstance(self.mixed.candidates, nn.ModuleDict) else best

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and torch.compiler.is_exporting():
            outputs = torch.stack([candidate(x) for candidate in self.mixed.modules_in_order()])
            return outputs.index_select(0, self.alpha.argmax(0, keepdim=True)).squeeze(0)
        if not self.training:
            chosen: Tensor = self.mixed.candidates[self.choice](x)  # type: ignore[index]
            return chosen
        logits = torch.log_softmax(self.alpha, -1)
        weights = gumbel_entmax15(logits, self.tau) if self.sparse else gumbel_softmax(logits, self.tau, hard=True)
        mixed: Tensor = self.mixed(x, weights)
        return mixed
