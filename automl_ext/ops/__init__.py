"""The ops. Each family is one file: arguments, documentation, and the choice between kernel and reference."""

from automl_ext import _native
from automl_ext.ops.entmax import entmax15, sparsemax
from automl_ext.ops.gumbel import gumbel_argmax, gumbel_entmax15, gumbel_softmax
from automl_ext.ops.mixed import cell_aggregate, mixed_op
from automl_ext.ops.modules import GumbelMixedOp, MixedOp

if _native.is_loaded():
    from automl_ext.ops._register import register

    register()

__all__ = [
    "GumbelMixedOp",
    "MixedOp",
    "cell_aggregate",
    "entmax15",
    "gumbel_argmax",
    "gumbel_entmax15",
    "gumbel_softmax",
    "mixed_op",
    "sparsemax",
]
