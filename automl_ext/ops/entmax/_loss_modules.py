"""Fenchel–Young losses as modules, with an ignored target and a reduction."""

from __future__ import annotations

from torch import Tensor, nn

from automl_ext.ops._checks import INT_DTYPES, check_float_tensor, compute_dtype, describe, shown
from automl_ext.ops.entmax._arguments import check_targets
from automl_ext.ops.entmax._losses import (
    entmax15_loss,
    entmax_bisect_loss,
    normmax_bisect_loss,
    sparsemax_bisect_loss,
    sparsemax_loss,
)
from automl_ext.ops.entmax._reference import output_dtype, row_sum

REDUCTIONS = ("elementwise_mean", "mean", "sum", "none")


def _as_int(value: object, op: str) -> int:
    """Return ``ignore_index`` as an int; it must be a 64-bit int or an integer tensor of one element."""
    if isinstance(value, Tensor) and value.dtype in INT_DTYPES and value.numel() == 1 and not value.is_meta:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{op}: ignore_index: expected an int, got {describe(value)}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{op}: ignore_index: expected an int of 64 bits, got {shown(value)}")
    return value


class _FenchelYoungLoss(nn.Module):
    """Base class: a loss of every row of X, and their mean or sum.

    Shape:
        X: scores, [..., C]. target: class indices, int64 [...], or probabilities of the classes [..., C]. Output:
        0-dim, or [...] with reduction "none".

    Args:
        ignore_index: class index to ignore, negative or not. Its rows have loss 0 and gradient 0 and are excluded
            from the mean.
        reduction: "sum", "none", or "mean", also called "elementwise_mean" (the default). The mean is over the rows
            that are not ignored; it is NaN if there are none.

    Raises:
        ValueError: unknown reduction. ``forward`` raises the errors of the function of the same name.
    """

    def __init__(self, ignore_index: int = -100, reduction: str = "elementwise_mean") -> None:
        super().__init__()
        op = type(self).__name__
        if not isinstance(reduction, str) or reduction not in REDUCTIONS:
            raise ValueError(f"{op}: reduction: expected one of {', '.join(REDUCTIONS)}, got {shown(reduction)}")
        self.ignore_index = _as_int(ignore_index, op)
        self.reduction = reduction

    def loss(self, X: Tensor, target: Tensor) -> Tensor:
        """Return the losses [...] of all rows of X [..., C]."""
        raise NotImplementedError

    def forward(self, X: Tensor, target: Tensor) -> Tensor:
        op = type(self).__name__
        check_float_tensor(X, "X", op)
        x = X.to(compute_dtype(X))
        if check_targets(X, target, op):
            losses = self.loss(x, target)
            count: int | Tensor = losses.numel()
        else:
            ignored = target == self.ignore_index
            # Zero ignored rows before the loss too: a NaN there must not reach the gradient.
            x = x.masked_fill(ignored.unsqueeze(-1), 0)
            losses = self.loss(x, target.masked_fill(ignored, 0)).masked_fill(ignored, 0)
            count = (~ignored).sum()
        if self.reduction != "none":
            losses = row_sum(losses.flatten()).squeeze(-1)
            if self.reduction != "sum":
                losses = losses / count
        return losses.to(output_dtype(X))


class SparsemaxLoss(_FenchelYoungLoss):
    """Compute the sparsemax loss of scores X [..., C] and targets.

    The targets are class indices [...] or probabilities of the classes [..., C]. The result is 0-dim, or [...] with
    reduction "none".

    ``k`` is accepted for compatibility and ignored. A class index equal to ``ignore_index`` gives loss 0 and gradient
    0; ``reduction`` "mean" averages over the other rows.
    """

    def __init__(self, k: int | None = None, ignore_index: int = -100, reduction: str = "elementwise_mean") -> None:
        super().__init__(ignore_index, reduction)
        self.k = k

    def loss(self, X: Tensor, target: Tensor) -> Tensor:
        return sparsemax_loss(X, target, self.k)


class Entmax15Loss(_FenchelYoungLoss):
    """Compute the entmax-1.5 loss of scores X [..., C] and targets.

    The result is 0-dim, or [...] with reduction "none".

    Arguments are those of :class:`SparsemaxLoss`.
    """

    def __init__(self, k: int | None = 100, ignore_index: int = -100, reduction: str = "elementwise_mean") -> None:
        super().__init__(ignore_index, reduction)
        self.k = k

    def loss(self, X: Tensor, target: Tensor) -> Tensor:
        return entmax15_loss(X, target, self.k)


class SparsemaxBisectLoss(_FenchelYoungLoss):
    """Compute the sparsemax loss of scores X [..., C] and targets.

    The result is 0-dim, or [...] with reduction "none". It is exact; ``n_iter`` is accepted for compatibility and
    ignored. The other arguments are those of :class:`SparsemaxLoss`.
    """

    def __init__(self, n_iter: int = 50, ignore_index: int = -100, reduction: str = "elementwise_mean") -> None:
        super().__init__(ignore_index, reduction)
        self.n_iter = n_iter

    def loss(self, X: Tensor, target: Tensor) -> Tensor:
        return sparsemax_bisect_loss(X, target, self.n_iter)


class EntmaxBisectLoss(_FenchelYoungLoss):
    """Compute the alpha-entmax loss of scores X [..., C] and targets.

    The result is 0-dim, or [...] with reduction "none".

    ``alpha`` > 0 is a number or a constant tensor that broadcasts to [..., 1]. ``n_iter`` is the number of halvings of
    the bracket. The other arguments are those of :class:`SparsemaxLoss`.
    """

    def __init__(
        self,
        alpha: float | Tensor = 1.5,
        n_iter: int = 50,
        ignore_index: int = -100,
        reduction: str = "elementwise_mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        self.alpha = alpha
        self.n_iter = n_iter

    def loss(self, X: Tensor, target: Tensor) -> Tensor:
        return entmax_bisect_loss(X, target, self.alpha, self.n_iter)


class NormmaxBisectLoss(_FenchelYoungLoss):
    """Compute the alpha-normmax loss of scores X [..., C] and targets.

    The result is 0-dim, or [...] with reduction "none".

    ``alpha`` ≥ 1.0001; the other arguments are those of :class:`EntmaxBisectLoss`.
    """

    def __init__(
        self,
        alpha: float | Tensor = 2,
        n_iter: int = 50,
        ignore_index: int = -100,
        reduction: str = "elementwise_mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        self.alpha = alpha
        self.n_iter = n_iter

    def loss(self, X: Tensor, target: Tensor) -> Tensor:
        return normmax_bisect_loss(X, target, self.alpha, self.n_iter)
