"""Where does GDAS's gradient of α point? Its mean by operation, in standard deviations of one step, at checkpoints.

    python benchmarks/alpha_signal.py --data folder:CIFAR --cells 1 --lr 0.1 --steps 100 300 800 \\
        --json benchmarks/results/alpha_signal.json

The weights of a supernet are trained as GDAS trains them while all α are equal: each step samples one operation per
edge uniformly. At a checkpoint, the weights are fixed, and the gradient of α is computed for ``--samples`` batches of
the held-out half of the images, each with a new sample. A row has, for every operation, the mean over the edges of
(mean / standard deviation) of that gradient, for both forms of the gradient (see
:class:`automl_ext.nas.spaces.supernet.SuperCell`) and several τ. A negative number means that a step down the gradient
makes the operation more probable. ``error`` is the standard error of each number if the edges were independent.
``loss_difference`` is the mean loss of the sampled networks that run the operation on an edge, relative to the others
(a ridge regression): it shows what the supernet itself says. Batch norm uses the statistics of the batch, as in the
authors' code.

One backward pass serves both forms and all τ: the noise decides which operation runs, whatever τ.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.data.images import Split, load_images, split_images
from automl_ext.nas.spaces.nasbench201 import OPERATIONS, NASBench201
from automl_ext.nas.spaces.supernet import Choice, Supernet
from automl_ext.nas.supernets.loop import frozen
from automl_ext.nas.training.batches import augment, epoch_batches, take

TAUS = (10.0, 1.0, 0.3)


def batches(images: Split, size: int, rng: torch.Generator) -> Iterator[Split]:
    """Yield augmented batches without end."""
    while True:
        for index in epoch_batches(len(images.labels), size, rng):
            batch = take(images, index)
            yield Split(augment(batch.images, 2, True, rng), batch.labels)


def backward(net: Supernet, batch: Split, index: Tensor, weights: Tensor, rest: Tensor | None = None) -> Tensor:
    """Run the operations ``index`` [edges] with ``weights`` [edges, operations]. Return the loss, 0-dim, detached."""
    one_hot = not weights.requires_grad
    loss = F.cross_entropy(
        net(batch.images, Choice(weights, [[k] for k in index.tolist()], rest, one_hot)), batch.labels
    )
    loss.backward()
    return loss.detach()


def signal(net: Supernet, images: Iterator[Split], samples: int, first: int, rng: torch.Generator) -> dict:
    """Measure the gradient of α at α = 0, among the operations from ``first`` on."""
    shape = tuple(net.alphas[0].shape)
    rows = []
    with frozen(net.weights()):
        for _ in range(samples):
            noise = -torch.log(-torch.log(torch.rand(shape, generator=rng)))
            noise[:, :first] = -torch.inf
            index = noise.argmax(-1)
            weights = F.one_hot(index, shape[1]).float().requires_grad_()
            rest = torch.zeros(shape[0], requires_grad=True)
            loss = backward(net, next(images), index, weights, rest)
            ran = weights.grad.gather(1, index[:, None])  # type: ignore[union-attr]
            rows.append((noise, F.one_hot(index, shape[1]).float(), ran, rest.grad[:, None], loss))  # type: ignore[index]
    noise, ran, of_ran, of_rest, loss = (torch.stack(column) for column in zip(*rows, strict=True))
    found: dict = {"loss": round(loss.mean().item(), 3), "error": round((samples * shape[0]) ** -0.5, 3)}
    for form in ("nb201", "darts"):
        gradient = ran * of_ran + ((1 - ran) * of_rest if form == "nb201" else 0)
        for tau in TAUS:
            p = torch.softmax(noise / tau, -1)
            alpha = p * (gradient - (p * gradient).sum(-1, keepdim=True)) / tau
            ratio = (alpha.mean(0) / alpha.std(0).clamp(min=1e-12)).mean(0)[first:]
            found[f"{form}, tau {tau:g}"] = named(ratio, first)
    x = ran[:, :, first:].flatten(1)
    x = x - x.mean(0)
    effect = torch.linalg.solve(x.T @ x + 5 * torch.eye(x.shape[1]), x.T @ (loss - loss.mean())).view(shape[0], -1)
    found["loss_difference"] = named((effect - effect.mean(1, keepdim=True)).mean(0), first)
    return found


def named(values: Tensor, first: int) -> dict[str, float]:
    return {name: round(v, 3) for name, v in zip(OPERATIONS[first:], values.tolist(), strict=True)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--json", type=Path, required=True, help="file to which the rows are added")
    parser.add_argument("--name", default="", help="name of the data in the rows")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--cosine", action="store_true", help="let the learning rate fall to 0.001")
    parser.add_argument("--none", action="store_true", help='"none" is a candidate')
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300, 800])
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--subset", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    splits = split_images(load_images(args.data, subset=args.subset))
    halves = torch.randperm(len(splits.train.labels), generator=rng).tensor_split(2)
    train, held_out = (batches(take(splits.train, half), 64, rng) for half in halves)
    shape = {"in_channels": splits.train.images.shape[1], "num_classes": splits.num_classes}
    net = NASBench201().build_supernet(**shape, channels=args.channels, cells=args.cells, form="nb201")
    optimizer = torch.optim.SGD(net.weights(), lr=args.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    first, start = 0 if args.none else 1, time.process_time()
    for step in range(1, max(args.steps) + 1):
        if args.cosine:
            cosine = 0.5 * (1 + math.cos(math.pi * step / max(args.steps)))
            optimizer.param_groups[0]["lr"] = 0.001 + (args.lr - 0.001) * cosine
        index = torch.randint(first, len(OPERATIONS), (net.alphas[0].shape[0],), generator=rng)
        optimizer.zero_grad()
        backward(net, next(train), index, F.one_hot(index, len(OPERATIONS)).float())
        torch.nn.utils.clip_grad_norm_(net.weights(), 5.0)
        optimizer.step()
        if step in args.steps:
            kept = ("channels", "cells", "lr", "cosine", "none", "samples", "subset", "seed")
            row = {"data": args.name or args.data.partition(":")[0], "step": step}
            row |= {name: getattr(args, name) for name in kept}
            row |= signal(net, held_out, args.samples, first, rng)
            rows = json.loads(args.json.read_text()) if args.json.exists() else []
            args.json.write_text("[\n" + ",\n".join(json.dumps(r) for r in [*rows, row]) + "\n]\n")
            print(f"{time.process_time() - start:.0f} CPU-s", json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
