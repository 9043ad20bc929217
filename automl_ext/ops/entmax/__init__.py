"""Sparse alternatives to softmax and their losses.

A drop-in replacement for the ``entmax`` package, with the same names and argument order:
``import automl_ext.ops.entmax as entmax``.
"""

from typing import TYPE_CHECKING

from automl_ext._lazy import lazy

if TYPE_CHECKING:  # loaded at first use
    from automl_ext.ops.entmax._bisect import budget_bisect, entmax_bisect, normmax_bisect, sparsemax_bisect
    from automl_ext.ops.entmax._exact import entmax15, sparsemax
    from automl_ext.ops.entmax._loss_modules import (
        Entmax15Loss,
        EntmaxBisectLoss,
        NormmaxBisectLoss,
        SparsemaxBisectLoss,
        SparsemaxLoss,
    )
    from automl_ext.ops.entmax._losses import (
        entmax15_loss,
        entmax_bisect_loss,
        normmax_bisect_loss,
        sparsemax_bisect_loss,
        sparsemax_loss,
    )
    from automl_ext.ops.entmax._modules import (
        BudgetBisect,
        Entmax15,
        EntmaxBisect,
        NormmaxBisect,
        Sparsemax,
        SparsemaxBisect,
    )

__all__ = [
    "BudgetBisect",
    "Entmax15",
    "Entmax15Loss",
    "EntmaxBisect",
    "EntmaxBisectLoss",
    "NormmaxBisect",
    "NormmaxBisectLoss",
    "Sparsemax",
    "SparsemaxBisect",
    "SparsemaxBisectLoss",
    "SparsemaxLoss",
    "budget_bisect",
    "entmax15",
    "entmax15_loss",
    "entmax_bisect",
    "entmax_bisect_loss",
    "normmax_bisect",
    "normmax_bisect_loss",
    "sparsemax",
    "sparsemax_bisect",
    "sparsemax_bisect_loss",
    "sparsemax_loss",
]

__getattr__ = lazy(__name__)
