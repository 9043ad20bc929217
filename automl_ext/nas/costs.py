"""The costs of a network: parameters, multiply-adds, and its measured latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP, REPEATS = 5, 30  # passes before a measurement of latency, and passes of which the median is taken


@contextmanager
def forward_hooks(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    """Call ``hook(module, arguments, output)`` after each forward pass of a module inside the block.

    Args:
        hook: its result replaces the output, unless it is None.
    """
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def count_parameters(network: nn.Module) -> int:
    """Count the parameters of a network, without an auxiliary head, which only training uses."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary."))


@torch.no_grad()
def count_macs(network: nn.Module, image: Sequence[int]) -> int:
    """Count the multiply-adds of the convolutions and linear layers, for one image of shape (C, H, W).

    Sums, pooling, batch norm and activations are not counted. The network runs once, in evaluation mode.
    """
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        # Each value of the output takes one multiply-add per weight of its filter (convolution) or row (linear).
        total += output.numel() * module.weight[0].numel()  # type: ignore[index]

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    was_training = network.training
    try:
        with forward_hooks(layers, add):
            network.eval()(torch.zeros(1, *image, device=next(network.parameters()).device))
    finally:
        network.train(was_training)
    return total


@torch.no_grad()
def latency_ms(network: nn.Module, image: Sequence[int], repeats: int = REPEATS) -> float:
    """Measure the time of one image (C, H, W) in milliseconds: batch size 1, one thread, on the network's device.

    The result is the median of ``repeats`` passes after a warm-up. Other work on the machine increases it.
    """
    x = torch.zeros(1, *image, device=next(network.parameters()).device)
    threads, was_training = torch.get_num_threads(), network.training
    torch.set_num_threads(1)
    try:
        network.eval()
        times = []
        for _ in range(WARM_UP + repeats):
            start = time.perf_counter()
            network(x).cpu()  # waits for a GPU
            times.append(time.perf_counter() - start)
    finally:
        network.train(was_training)
        torch.set_num_threads(threads)
    return 1000 * statistics.median(times[WARM_UP:])
