"""Compare a GDAS search step with plain PyTorch: ``python benchmarks/steps/gdas_step.py [--json FILE] [--steps N]``.

A step updates the weights, then α, of NAS-Bench-201's supernet (C = 16, N = 1) on 64 images of 32 × 32 each. One row
samples one operation per edge; the plain version is written like GDAS's own code. The other row mixes all operations on
every edge.

All contenders start every step from the same weights, with the same images and the same sampled operations, and their
losses are compared. The plain step is also measured on channels-last images. Contenders alternate; the times are
medians. For steady numbers use ``OMP_NUM_THREADS=1 taskset -c 0 python …``, and on a busy machine ``--clock cpu``,
which measures the CPU time of the process.
"""

from __future__ import annotations

import argparse
import copy
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

from automl_ext.data.images import Split
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import Choice, Supernet
from automl_ext.nas.supernets.gdas import GDAS, GDASConfig
from automl_ext.nas.supernets.loop import frozen
from automl_ext.ops._gumbel_reference import perturbed
from automl_ext.ops.gumbel import gumbel_softmax
from automl_ext.training.machine.memory import keep_freed_memory

TAU = 5.0
Losses = tuple[float, float]
Clock = Callable[[], float]


class Batches(NamedTuple):
    """Batches of one step: the first for the weights, the second for α."""

    images: tuple[Tensor, Tensor]
    labels: tuple[Tensor, Tensor]
    seeds: tuple[int, int]

    def noise(self) -> tuple[Tensor, Tensor]:
        """Return the Gumbel noise that the library adds to α for these seeds."""
        zero = torch.zeros(6, 5)
        return perturbed(zero, torch.tensor(self.seeds[0]), -1), perturbed(zero, torch.tensor(self.seeds[1]), -1)


def draw_batches(steps: int, batch: int, size: int) -> list[Batches]:
    """Sample the batches of all steps.

    The seeds are those that :func:`automl_ext.nas.supernets.gdas.sample` draws from a generator with seed 0.
    """
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
    """The two steps of the library's search, with one sampled operation per edge."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self.gdas = GDAS(GDASConfig(grad_clip=5.0), supernet, None, None, torch.Generator().manual_seed(0))
        self.optimizers = plain_gdas.optimizers(supernet.weights(), supernet.alphas.parameters())
        self.gdas.weight_optimizer, self.gdas.alpha_optimizer = self.optimizers

    def __call__(self, batches: Batches) -> Losses:
        weights, alpha = (Split(x, y) for x, y in zip(batches.images, batches.labels, strict=True))
        loss, _ = self.gdas.weight_step(weights, TAU)
        alpha_loss, _ = self.gdas.alpha_step(alpha, TAU)
        return loss.item(), alpha_loss.item()


class OurMixedStep(OurStep):
    """The same two steps with soft weights, so that all operations are computed."""

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


def plain_step(channels: int, cells: int, mixed: bool) -> plain_gdas.PlainStep:
    weigh = plain_gdas.soft_weights if mixed else plain_gdas.hard_weights
    return plain_gdas.PlainStep(plain_gdas.Network(channels, cells, mixed), nn.Parameter(torch.zeros(6, 5)), weigh, TAU)


@torch.no_grad()
def copy_state(ours: OurStep, plain: plain_gdas.PlainStep) -> None:
    """Copy the state, because rounding errors grow over steps: every step is compared separately."""
    plain.network.load_state_dict(ours.supernet.network.state_dict())
    plain.alpha.copy_(ours.supernet.alphas[0])
    for optimizer, source in zip(plain.optimizers, ours.optimizers, strict=True):
        optimizer.load_state_dict(copy.deepcopy(source.state_dict()))


def compare(name: str, mixed: bool, channels: int, cells: int, todo: Sequence[Batches], clock: Clock) -> dict[str, Any]:
    """Return the median seconds of each contender, and the ratios. The first two steps are not timed.

    Raises:
        AssertionError: if their losses differ.
    """
    ours = OurMixedStep(build(channels, cells)) if mixed else OurStep(build(channels, cells))
    plain = {"plain": torch.contiguous_format, "plain_channels_last": torch.channels_last}
    steps = {contender: plain_step(channels, cells, mixed) for contender in plain}
    times: dict[str, list[float]] = {contender: [] for contender in ("ours", *plain)}
    for batches in todo:
        noise = batches.noise()
        for step in steps.values():
            copy_state(ours, step)
        start = clock()
        losses = ours(batches)
        times["ours"].append(clock() - start)
        for contender, layout in plain.items():
            images = tuple(x.contiguous(memory_format=layout) for x in batches.images)
            start = clock()
            plain_losses = steps[contender](images, batches.labels, noise)
            times[contender].append(clock() - start)
            torch.testing.assert_close(torch.tensor(losses), torch.tensor(plain_losses), rtol=1e-4, atol=0)
    timed = {contender: seconds[2:] for contender, seconds in times.items()}
    row: dict[str, Any] = {"step": name, "ours_s": statistics.median(timed["ours"])}
    for contender in plain:
        # Ratios are per step because the sampled operation determines the time.
        ratios = [p / o for p, o in zip(timed[contender], timed["ours"], strict=True)]
        row[f"{contender}_s"] = statistics.median(timed[contender])
        row[f"{contender}_ratio"] = statistics.median(ratios)
        row[f"{contender}_ratio_quartiles"] = statistics.quantiles(ratios, n=4)[::2]
    return row


def cells_of(row: dict[str, Any]) -> list[str]:
    shown = [row["step"], f"{1e3 * row['ours_s']:.0f}"]
    for contender in ("plain", "plain_channels_last"):
        low, high = row[f"{contender}_ratio_quartiles"]
        shown += [f"{1e3 * row[f'{contender}_s']:.0f}", f"{row[f'{contender}_ratio']:.2f} ({low:.2f} – {high:.2f})"]
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--steps", type=int, default=25, help="number of timed steps of each row, at least 2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args(arguments)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    keep_freed_memory()  # as a search does; it applies to all contenders
    torch.manual_seed(1)
    todo = draw_batches(args.steps + 2, args.batch, args.size)
    columns = ("step", "ours", "plain", "/ ours (quartiles)", "plain, channels-last", "/ ours (quartiles)")
    shown = Table(*columns, title=f"milliseconds ({args.clock}), medians")
    rows = []
    for name, mixed in (("one operation drawn", False), ("all operations mixed", True)):
        rows.append(compare(name, mixed, args.channels, args.cells, todo, clock))
        shown.add_row(*cells_of(rows[-1]))
    Console(width=120).print(shown)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
