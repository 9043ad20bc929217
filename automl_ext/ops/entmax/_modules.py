"""Sparse maps as modules. Each maps a tensor of any shape to one of the same shape."""

from __future__ import annotations

from torch import Tensor, nn

from automl_ext.ops.entmax._bisect import budget_bisect, entmax_bisect, normmax_bisect, sparsemax_bisect
from automl_ext.ops.entmax._exact import entmax15, sparsemax


class Sparsemax(nn.Module):
    """A module that computes :func:`sparsemax` over ``dim``; ``k`` is accepted for compatibility and ignored."""

    def __init__(self, dim: int = -1, k: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.k = k

    def forward(self, X: Tensor) -> Tensor:
        return sparsemax(X, self.dim, self.k)


class Entmax15(nn.Module):
    """A module that computes :func:`entmax15` over ``dim``; ``k`` is accepted for compatibility and ignored."""

    def __init__(self, dim: int = -1, k: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.k = k

    def forward(self, X: Tensor) -> Tensor:
        return entmax15(X, self.dim, self.k)


class SparsemaxBisect(nn.Module):
    """A module that computes :func:`sparsemax_bisect` over ``dim``; ``n_iter`` is ignored, as there."""

    def __init__(self, dim: int = -1, n_iter: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.n_iter = n_iter

    def forward(self, X: Tensor) -> Tensor:
        return sparsemax_bisect(X, self.dim, 50 if self.n_iter is None else self.n_iter)


class EntmaxBisect(nn.Module):
    """A module that computes :func:`entmax_bisect` over ``dim``. Pass ``alpha`` as an nn.Parameter to learn it."""

    def __init__(self, alpha: float | Tensor = 1.5, dim: int = -1, n_iter: int = 50) -> None:
        super().__init__()
        self.dim = dim
        self.n_iter = n_iter
        self.alpha = alpha

    def forward(self, X: Tensor) -> Tensor:
        return entmax_bisect(X, self.alpha, self.dim, self.n_iter)


class NormmaxBisect(nn.Module):
    """A module that computes :func:`normmax_bisect` over ``dim``. Pass ``alpha`` as an nn.Parameter to learn it."""

    def __init__(self, alpha: float | Tensor = 2, dim: int = -1, n_iter: int = 50) -> None:
        super().__init__()
        self.dim = dim
        self.n_iter = n_iter
        self.alpha = alpha

    def forward(self, X: Tensor) -> Tensor:
        return normmax_bisect(X, self.alpha, self.dim, self.n_iter)


class BudgetBisect(nn.Module):
    """A module that computes :func:`budget_bisect` over ``dim``. Pass ``budget`` as an nn.Parameter to learn it."""

    def __init__(self, budget: float | Tensor = 2, dim: int = -1, n_iter: int = 50) -> None:
        super().__init__()
        self.dim = dim
        self.n_iter = n_iter
        self.budget = budget

    def forward(self, X: Tensor) -> Tensor:
        return budget_bisect(X, self.budget, self.dim, self.n_iter)
