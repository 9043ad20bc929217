"""A GDAS search step, ours against plain PyTorch: ``python benchmarks/gdas_step.py [--json FILE] [--steps N]``.

A step is one of the weights and one of α, on NAS-Bench-201's supernet (C = 16, N = 1) and 64 images of 32 × 32 each.
Rows: with one operation drawn per edge, plain as GDAS's own code does it; with all operations mixed on every edge.
Both start from the same weights, see the same images and draw the same operations, step by step, and their losses are
compared. Contenders take turns; medians. For steady numbers: ``OMP_NUM_THREADS=1 taskset -c 0 python …``, and on a
machine that others use too ``--clock cpu``, the seconds that the process was given.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import plain_gdas
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from automl_ext.nas.gdas import alpha_step, frozen, weight_step
from automl_ext.nas.nasbench201 import NASBench201
from automl_ext.nas.supernet import Choice, Supernet
from automl_ext.ops._gumbel_reference import perturbed
from automl_ext.ops.gumbel import gumbel_softmax
from automl_ext.training.data import Split

TAU = 5.0
Losses = tuple[float, float]
Clock = Callable[[], float]


class Batches(NamedTuple):
    """Of one step: for the weights and for α."""

    images: tuple[Tensor, Tensor]
    labels: tuple[Tensor, Tensor]
    seeds: tuple[int, int]

    def noise(self) -> tuple[Tensor, Tensor]:
        """What the library adds to α for these seeds."""
        zero = torch.zeros(6, 5)
        return perturbed(zero, torch.tensor(self.seeds[0]), -1), perturbed(zero, torch.tensor(self.seeds[1]), -1)


def draw_batches(steps: int, batch: int, size: int) -> list[Batches]:
    """Seeds as :func:`automl_ext.nas.gdas.sample` draws them from a generator with seed 0."""
    rng = torch.Generator().manual_seed(0)
    return [
        Batches(
            (torch.randn(batch, 3, size, size), torch.randn(batch, 3, size, size)),
            (torch.randint(10, (batch,)), torch.randint(10, (batch,))),
            (int(torch.randint(2**62, (), generator=rng)), int(torch.randint(2**62, (), generator=rng))),
        )
        for _ in range(steps)
    ]


def build(channels: int, cells: int) -> Supernet:
    torch.manual_seed(0)
    space = NASBench201()
    return space.build_supernet(in_channels=3, num_classes=10, channels=channels, cells=cells, form="nb201")


class OurStep:
    """One operation per edge: the search's own two steps."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self.optimizers = plain_gdas.optimizers(supernet.weights(), supernet.alphas.parameters())
        self.rng = torch.Generator().manual_seed(0)

    def __call__(self, batches: Batches) -> Losses:
        weights, alpha = (Split(x, y) for x, y in zip(batches.images, batches.labels, strict=True))
        loss = weight_step(self.supernet, self.optimizers[0], weights, TAU, 5.0, self.rng)
        return loss.item(), alpha_step(self.supernet, self.optimizers[1], alpha, TAU, self.rng).item()


class OurMixedStep(OurStep):
    """All operations: the same with soft weights."""

    def __call__(self, batches: Batches) -> Losses:
        sgd, adam = self.optimizers
        with torch.no_grad():
            choice = self.choice(batches.seeds[0])
        loss = F.cross_entropy(self.supernet(batches.images[0], choice), batches.labels[0])
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.weights(), 5.0)
        sgd.step()
        with frozen(self.supernet.weights()):
            logits = self.supernet(batches.images[1], self.choice(batches.seeds[1]))
            alpha_loss = F.cross_entropy(logits, batches.labels[1])
            adam.zero_grad()
            alpha_loss.backward()
            adam.step()
        return loss.item(), alpha_loss.item()

    def choice(self, seed: int) -> Choice:
        logits = torch.log_softmax(self.supernet.alphas[0], -1)
        return Choice.support(gumbel_softmax(logits, TAU, seed=seed))


def plain_step(supernet: Supernet, channels: int, cells: int, mixed: bool) -> Callable[[Batches], Losses]:
    """From the supernet's present weights and α."""
    network = plain_gdas.Network(channels, cells, mixed)
    network.load_state_dict(supernet.network.state_dict())
    alpha = nn.Parameter(supernet.alphas[0].detach().clone())
    weigh = plain_gdas.soft_weights if mixed else plain_gdas.hard_weights
    step = plain_gdas.PlainStep(network, alpha, weigh, TAU)
    return lambda batches: step(batches.images, batches.labels, batches.noise())


def compare(name: str, mixed: bool, channels: int, cells: int, todo: Sequence[Batches], clock: Clock) -> dict[str, Any]:
    """Median seconds of both; AssertionError when their losses part.

    The first two steps are not timed.
    """
    supernet = build(channels, cells)
    plain = plain_step(supernet, channels, cells, mixed)
    ours = OurMixedStep(supernet) if mixed else OurStep(supernet)
    times: tuple[list[float], list[float]] = ([], [])
    for batches in todo:
        losses = []
        for contender, seconds in zip((ours, plain), times, strict=True):
            start = clock()
            losses.append(contender(batches))
            seconds.append(clock() - start)
        torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=2e-3, atol=0)
    our_times, plain_times = times[0][2:], times[1][2:]
    ratios = [p / o for p, o in zip(plain_times, our_times, strict=True)]
    return {
        "step": name,
        "ours_s": statistics.median(our_times),
        "plain_s": statistics.median(plain_times),
        "ratio": statistics.median(ratios),  # step by step, for what is drawn decides how long a step takes
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--steps", type=int, default=25, help="timed steps of each row, at least 2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="of the images")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args(arguments)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    torch.manual_seed(1)
    todo = draw_batches(args.steps + 2, args.batch, args.size)
    shown = Table("step", "ours", "plain", "plain / ours", "quartiles", title=f"milliseconds ({args.clock}), medians")
    rows = []
    for name, mixed in (("one operation drawn", False), ("all operations mixed", True)):
        row = compare(name, mixed, args.channels, args.cells, todo, clock)
        low, high = row["ratio_quartiles"]
        times = (f"{1e3 * row['ours_s']:.0f}", f"{1e3 * row['plain_s']:.0f}")
        shown.add_row(name, *times, f"{row['ratio']:.2f}", f"{low:.2f} – {high:.2f}")
        rows.append(row)
    Console(width=120).print(shown)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
