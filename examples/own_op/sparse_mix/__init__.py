"""An op of your own, in C++, on top of the ops of automl_ext."""

import pathlib

import torch

import automl_ext  # noqa: F401  (registers its ops)

(_library,) = pathlib.Path(__file__).parent.glob("_mix*.so")
torch.ops.load_library(_library)


def mix(scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Average the rows of ``values`` [..., k, features] with weights entmax15(``scores`` [..., n, k])."""
    return torch.ops.sparse_mix.mix(scores, values)
