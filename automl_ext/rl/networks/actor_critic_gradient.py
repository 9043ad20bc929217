"""The gradient of a small actor-critic on the CPU, in NumPy.

For small networks and minibatches, most of an update's time is the overhead of calls: autograd builds a graph of short
operations. NumPy's calls take less time than torch's. The arrays share memory with the network's parameters and
gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from automl_ext.rl.networks.actor_critic import ActorCritic, TwinMLP
from automl_ext.rl.networks.distributions import Categorical, DiagonalGaussian

Backward = Callable[[np.ndarray, float], np.ndarray]


class ActorCriticGradient:
    """Forward and backward pass of an :class:`ActorCritic` whose body is a :class:`TwinMLP`.

    Args:
        network: on the CPU, with gradients (:func:`automl_ext.rl.networks.parameters.flatten_parameters`). Neither
            parameters nor gradients may be moved.
    """

    def __init__(self, network: ActorCritic) -> None:
        assert isinstance(network.body, TwinMLP)
        body, heads = network.body, (network.policy_head, network.value_head)
        self._layers = [(*arrays(w), *arrays(b)) for w, b in zip(body.weights, body.biases, strict=True)]
        self._heads = [(*arrays(head.weight), *arrays(head.bias)) for head in heads]
        self._activations: list[np.ndarray] = []  # [2, N, units] of each layer, the observations first

    def forward(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the outputs [N, outputs] and the values [N] of normalized observations, float32 [N, inputs]."""
        x = np.broadcast_to(observations, (2, *observations.shape))
        self._activations = [x]
        for weight, _, bias, _ in self._layers:
            x = x @ weight
            x += bias
            np.tanh(x, out=x)
            self._activations.append(x)
        outputs, values = (x[i] @ weight.T + bias for i, (weight, _, bias, _) in enumerate(self._heads))
        return outputs, values[:, 0]

    def backward(self, of_outputs: np.ndarray, of_values: np.ndarray) -> None:
        """Write the gradients of the body and the heads, given those of outputs [N, outputs] and values [N].

        Each :meth:`forward` allows one call.
        """
        x = self._activations.pop()
        gradient = np.empty_like(x)
        for i, of_head in enumerate((of_outputs, of_values[:, None])):
            weight, of_weight, _, of_bias = self._heads[i]
            np.matmul(of_head.T, x[i], out=of_weight)
            of_head.sum(0, out=of_bias)
            np.matmul(of_head, weight, out=gradient[i])
        for weight, of_weight, _, of_bias in reversed(self._layers):
            np.multiply(x, x, out=x)
            np.subtract(1, x, out=x)
            gradient *= x  # tanh′ = 1 − tanh²
            x = self._activations.pop()
            np.matmul(x.transpose(0, 2, 1), gradient, out=of_weight)
            gradient.sum(1, keepdims=True, out=of_bias)
            if self._activations:
                gradient = gradient @ weight.transpose(0, 2, 1)


def arrays(parameter: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return a parameter and its gradient as arrays that share their memory."""
    assert parameter.grad is not None
    return parameter.detach().numpy(), parameter.grad.numpy()


def differentiable(
    distribution: Categorical | DiagonalGaussian, outputs: np.ndarray, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Backward]:
    """Compute log π(a) and the entropies, without autograd.

    Args:
        distribution: the policy's distribution.
        outputs: its parameters, [N, outputs].
        actions: [N] or [N, dims].

    Returns:
        log π(a), [N]; the entropies, [N]; and a function that returns the gradient of a loss with respect to
        ``outputs``, given its gradients with respect to log π(a), [N], and to each entropy, a number. The function
        writes the gradients of the distribution's own parameters.
    """
    if isinstance(distribution, Categorical):
        return _categorical(outputs, actions)
    return _gaussian(distribution, outputs, actions)


def _categorical(logits: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Backward]:
    rows = np.arange(len(actions))
    logs = logits - logits.max(1, keepdims=True)
    probs = np.exp(logs)
    total = probs.sum(1, keepdims=True)
    probs /= total
    logs -= np.log(total)
    entropy = -(probs * logs).sum(1)

    def backward(of_log_probs: np.ndarray, of_entropy: float) -> np.ndarray:
        """d log π(a) / d logits = one-hot(a) − p; dH / d logits = −p (log p + H)."""
        gradient = -probs * (of_log_probs[:, None] + of_entropy * (logs + entropy[:, None]))
        gradient[rows, actions] += of_log_probs
        return gradient

    return logs[rows, actions], entropy, backward


def _gaussian(
    distribution: DiagonalGaussian, means: np.ndarray, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Backward]:
    log_std, of_log_std = arrays(distribution.log_std)
    inverse = np.exp(-log_std)
    z = (actions - means) * inverse
    log_probs = -(0.5 * z * z + log_std + 0.5 * math.log(2 * math.pi)).sum(1)
    entropy = np.full(len(means), (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum())

    def backward(of_log_probs: np.ndarray, of_entropy: float) -> np.ndarray:
        """d log π(a) / d mean = z / σ, d log π(a) / d log σ = z² − 1; dH / d log σ = 1."""
        of_log_probs = of_log_probs[:, None]
        np.sum((z * z - 1) * of_log_probs + of_entropy, 0, out=of_log_std)
        return z * inverse * of_log_probs

    return log_probs, entropy, backward
