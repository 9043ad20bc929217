"""The public ops. Each family is one file that checks arguments and selects the kernel or the reference."""

from typing import TYPE_CHECKING

from automl_ext import _native
from automl_ext._lazy import lazy

if TYPE_CHECKING:  # loaded at first use
    from automl_ext.ops.attention import entmax15_attention
    from automl_ext.ops.entmax import entmax15, sparsemax
    from automl_ext.ops.gumbel import gumbel_argmax, gumbel_entmax15, gumbel_softmax
    from automl_ext.ops.mixed import cell_aggregate, mixed_op
    from automl_ext.ops.modules import GumbelMixedOp, MixedOp
    from automl_ext.ops.multihead_attention import EntmaxMultiheadAttention
    from automl_ext.ops.networks import FusedMLP, gru_cell, mlp
    from automl_ext.ops.policy import categorical_log_probs, policy_gradient_loss
    from automl_ext.ops.returns import discounted_returns, gae, lambda_returns, n_step_returns, retrace, vtrace
    from automl_ext.ops.steps import policy_act, policy_gradient_step, td_step
    from automl_ext.ops.targets import categorical_projection, td_targets

if _native.is_loaded():
    from automl_ext.ops._register import register

    register()
    if _native.autograd is None:
        from automl_ext.ops import _python_autograd

        _python_autograd.register()

__all__ = [
    "EntmaxMultiheadAttention",
    "FusedMLP",
    "GumbelMixedOp",
    "MixedOp",
    "categorical_log_probs",
    "categorical_projection",
    "cell_aggregate",
    "discounted_returns",
    "entmax15",
    "entmax15_attention",
    "gae",
    "gru_cell",
    "gumbel_argmax",
    "gumbel_entmax15",
    "gumbel_softmax",
    "lambda_returns",
    "mixed_op",
    "mlp",
    "n_step_returns",
    "policy_act",
    "policy_gradient_loss",
    "policy_gradient_step",
    "retrace",
    "sparsemax",
    "td_step",
    "td_targets",
    "vtrace",
]

__getattr__ = lazy(__name__)
