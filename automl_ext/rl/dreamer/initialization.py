"""Initial weights as in the authors' code of Dreamer: the defaults of Keras, which differ from PyTorch's."""

from __future__ import annotations

import math

from torch import Tensor, nn

from automl_ext.rl.networks.body import orthogonal_


def keras_(network: nn.Module) -> None:
    """Initialize the weights of a network in place as Keras does.

    Weights are Glorot uniform, ±√(6 / (inputs + outputs)) (Glorot and Bengio 2010), the recurrent weights of a GRU
    orthogonal, and biases zero.
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            size = module.weight[0, 0].numel()  # of the kernel of a convolution
            glorot_(module.weight, module.weight.shape[0] * size, module.weight.shape[1] * size)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GRUCell):  # in Keras, the weights of its three gates are one matrix
            glorot_(module.weight_ih, module.input_size, 3 * module.hidden_size)
            orthogonal_(module.weight_hh, 1.0)
            nn.init.zeros_(module.bias_ih)
            nn.init.zeros_(module.bias_hh)


def glorot_(weight: Tensor, inputs: int, outputs: int) -> None:
    """Draw the weights of a layer with this number of inputs and outputs."""
    bound = math.sqrt(6 / (inputs + outputs))
    nn.init.uniform_(weight, -bound, bound)
