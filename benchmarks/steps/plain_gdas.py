"""Implement NAS-Bench-201's supernet and its GDAS step in plain PyTorch, for comparison.

Parameters and buffers have the same names as in automl_ext, so that state_dicts are interchangeable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

Weights = tuple[Tensor, list[int]]  # weights [6 edges, 5 operations], and the index sampled for each edge


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0)


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


def candidates(c: int) -> nn.ModuleList:
    pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.ModuleList([Zero(), nn.Identity(), conv_bn(c, c, 1, affine=False), conv_bn(c, c, 3, affine=False), pool])


class Cell(nn.Module):
    """A cell. With ``mixed``, all operations are computed.

    Otherwise only the sampled operation of each edge is computed, and the other weights are added as constants.
    """

    def __init__(self, channels: int, mixed: bool) -> None:
        super().__init__()
        self.mixed = mixed
        self.edges = nn.ModuleList(candidates(channels) for _ in range(6))

    def forward(self, x: Tensor, weights: Tensor, index: list[int]) -> Tensor:
        nodes, edge = [x], 0
        for node in range(1, 4):
            incoming = []
            for source in range(node):
                incoming.append(self.run_edge(nodes[source], self.edges[edge], weights[edge], index[edge]))
                edge += 1
            nodes.append(sum(incoming))
        return nodes[-1]

    def run_edge(self, x: Tensor, operations: Any, weights: Tensor, drawn: int) -> Tensor:
        if self.mixed:
            return sum(weights[k] * op(x) for k, op in enumerate(operations))  # type: ignore[return-value]
        terms = (weights[k] * op(x) if k == drawn else weights[k] for k, op in enumerate(operations))
        return sum(terms)  # type: ignore[return-value]


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_bn(c_in, c_out, 3, stride=2), conv_bn(c_out, c_out, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


class Network(nn.Module):
    """Maps images [N, 3, H, W] to logits [N, 10]. The first of three stages has C = ``channels`` channels."""

    def __init__(self, channels: int, cells: int, mixed: bool) -> None:
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels]
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.stages = nn.ModuleList(nn.ModuleList(Cell(c, mixed) for _ in range(cells)) for c in widths)
        self.reductions = nn.ModuleList([nn.Identity(), Residual(*widths[:2]), Residual(*widths[1:])])
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)
        )

    def forward(self, x: Tensor, weights: Tensor, index: list[int]) -> Tensor:
        x = self.stem(x)
        for reduction, stage in zip(self.reductions, self.stages, strict=True):
            x = reduction(x)
            for cell in stage:  # type: ignore[attr-defined]
                x = cell(x, weights, index)
        return self.head(x)


def hard_weights(alpha: Tensor, tau: float, noise: Tensor) -> Weights:
    """Return the weights of GDAS: one-hot, with the gradient of the softmax."""
    p = torch.softmax((torch.log_softmax(alpha, -1) + noise) / tau, -1)
    index = p.argmax(-1, keepdim=True)
    one_hot = torch.zeros_like(p).scatter_(-1, index, 1.0)
    return one_hot - p.detach() + p, index.flatten().tolist()


def soft_weights(alpha: Tensor, tau: float, noise: Tensor) -> Weights:
    """Return soft weights, for which all operations are computed."""
    return torch.softmax((torch.log_softmax(alpha, -1) + noise) / tau, -1), [0] * len(alpha)


class PlainStep:
    """Updates the weights, then α. Returns the losses of both steps."""

    def __init__(
        self, network: nn.Module, alpha: Tensor, weigh: Callable[[Tensor, float, Tensor], Weights], tau: float
    ) -> None:
        self.network, self.alpha, self.weigh, self.tau = network, alpha, weigh, tau
        self.optimizers = optimizers(network.parameters(), [alpha])

    def __call__(
        self, images: Sequence[Tensor], labels: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> tuple[float, float]:
        weight_optimizer, alpha_optimizer = self.optimizers
        weight_optimizer.zero_grad()
        loss = F.cross_entropy(self.network(images[0], *self.weigh(self.alpha, self.tau, noise[0])), labels[0])
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        weight_optimizer.step()

        alpha_optimizer.zero_grad()
        alpha_loss = F.cross_entropy(self.network(images[1], *self.weigh(self.alpha, self.tau, noise[1])), labels[1])
        alpha_loss.backward()
        alpha_optimizer.step()
        return loss.item(), alpha_loss.item()


def optimizers(weights: Any, alphas: Any) -> tuple[Optimizer, Optimizer]:
    """Make the optimizers of the GDAS paper, for the weights and for α."""
    sgd = torch.optim.SGD(weights, lr=0.025, momentum=0.9, weight_decay=5e-4, nesterov=True)
    return sgd, torch.optim.Adam(alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
