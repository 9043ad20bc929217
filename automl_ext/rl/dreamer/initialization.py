"""Initial weights as in the authors' code of Dreamer: the defaults of Keras, which differ from PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from automl_ext.rl.dreamer.rssm import RSSM
from automl_ext.rl.networks.body import orthogonal_


def keras_(networks: Sequence[nn.Module]) -> None:
    """Initialize the weights of Dreamer's networks in place as Keras does.

    Weights are Glorot uniform, ±√(6 / (inputs + outputs)) (Glorot and Bengio 2010), the recurrent weights of a GRU
    orthogonal, and biases zero. Two layers of the RSSM whose outputs are added count as one layer with both inputs.
    """
    for network in networks:
        for module in network.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                size = module.weight[0, 0].numel()  # of the kernel of a convolution
                glorot_([module.weight], module.weight.shape[0] * size, module.weight.shape[1] * size)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in network.modules():
            if isinstance(module, RSSM):
                for parts in (module.from_stoch, module.from_action), (module.from_deter, module.from_embedding):
                    inputs = sum(part.in_features for part in parts)
                    glorot_([part.weight for part in parts], inputs, parts[0].out_features)
                gru_(module.cell)


def glorot_(weights: Sequence[Tensor], inputs: int, outputs: int) -> None:
    """Draw the weights of a layer with this number of inputs and outputs."""
    bound = math.sqrt(6 / (inputs + outputs))
    for weight in weights:
        nn.init.uniform_(weight, -bound, bound)


def gru_(cell: nn.GRUCell) -> None:
    """Initialize a GRU. In Keras, the weights of its three gates are one matrix."""
    glorot_([cell.weight_ih], cell.input_size, 3 * cell.hidden_size)
    orthogonal_(cell.weight_hh, 1.0)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
