"""Convolutional networks without cells: plain (Simonyan & Zisserman 2015), residual (He et al. 2016), or pooled.

Networks of three stages, which enter the race of ``search auto`` beside cells. Pooled networks are for short trainings
(Page 2018, "How to train your ResNet"; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU"): most of their
convolutions are on small images. A first stage that halves the image costs a quarter of the multiply-adds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from automl_ext.nas.spaces.draw import draw_graph
from automl_ext.nas.spaces.operations import channels_last
from automl_ext.nas.spaces.space import DecisionSpace, check_indices
from automl_ext.nas.spaces.supernet import Form, Supernet
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

KINDS, STRIDES, DEPTHS, STAGES = ("plain", "residual", "pooled"), (1, 2), (1, 2, 3), 3
HEADS = ("average", "max", "both")  # what the classifier reads of each channel; both: the average and the maximum
MAX_SCALE = 0.125  # of maxima, which are several times as large as averages: else the first steps are far too large
WIDTHS = {"plain": (1, 2, 4), "residual": (1, 2, 4), "pooled": (1, 4, 8)}  # channels of the stages, as multiples of C


@dataclass(frozen=True)
class ConvNetGenotype:
    """The structure of a network.

    Attributes:
        kind: plain: a stage is ``depth`` convolutions, after a max pool from the second stage on. residual: a stage is
            a convolution that changes the size, and ``depth`` residual blocks of two convolutions. pooled: after a
            convolution at full size, a stage is a convolution with a max pool, and ``depth`` convolutions with skips.
        stride: 2: the first stage halves the image; in pooled networks, the convolution before it.
        depths: depth of each stage, for ``cells`` = 1.
        head: one of HEADS.
    """

    kind: str
    stride: int
    depths: tuple[int, ...]
    head: str = "average"

    def __post_init__(self) -> None:
        fits = self.kind in KINDS and self.stride in STRIDES and len(self.depths) == STAGES and self.head in HEADS
        if not fits or not set(self.depths) <= set(DEPTHS):
            raise ValueError(f"genotype: expected a network such as residual-s2-1-1-1, got {short(str(self))}")

    def __str__(self) -> str:
        head = [] if self.head == "average" else [self.head]
        return "-".join([self.kind, f"s{self.stride}", *map(str, self.depths), *head])


class ConvNetSpace(DecisionSpace):
    """The space ``convnet``, an :class:`automl_ext.nas.spaces.space.Space`."""

    num_choices = (len(KINDS), len(STRIDES), *STAGES * (len(DEPTHS),), len(HEADS))
    kinds = (3 + STAGES) * ("operation",)

    def parse(self, text: str) -> ConvNetGenotype:
        found = re.fullmatch(r"(\w+)-s(\d)-(\d)-(\d)-(\d)(?:-(max|both))?", text.strip())
        if found is None:
            raise ValueError(f"genotype: expected a network such as residual-s2-1-1-1, got {short(text)}")
        kind, stride, *depths, head = found.groups()
        return ConvNetGenotype(kind, int(stride), tuple(map(int, depths)), head or "average")

    def encode(self, genotype: ConvNetGenotype) -> tuple[int, ...]:
        depths = (DEPTHS.index(depth) for depth in genotype.depths)
        return KINDS.index(genotype.kind), STRIDES.index(genotype.stride), *depths, HEADS.index(genotype.head)

    def decode(self, indices: Sequence[int]) -> ConvNetGenotype:
        check_indices(indices, self.num_choices)
        kind, stride, *depths, head = indices
        return ConvNetGenotype(KINDS[kind], STRIDES[stride], tuple(DEPTHS[k] for k in depths), HEADS[head])

    def build(
        self, genotype: ConvNetGenotype, *, in_channels: int, num_classes: int, channels: int, cells: int
    ) -> ConvNet:
        return ConvNet(genotype, in_channels, num_classes, channels, cells)

    def build_supernet(self, *, in_channels: int, num_classes: int, channels: int, cells: int, form: Form) -> Supernet:
        raise UserError("space convnet: has no supernet; search it with rea, random or search auto")

    def draw(self, genotype: ConvNetGenotype, path: str | Path, title: str = "") -> None:
        block = {"plain": "convolution", "residual": "residual block", "pooled": "skip convolution"}[genotype.kind]
        names = [f"{depth} × {block}" for depth in genotype.depths]
        widths = WIDTHS[genotype.kind]
        nodes = {"image": (1.5, 1.5)} | {f"{k}C": (1.5 + 5.0 * (i + 1), 1.5) for i, k in enumerate(widths)}
        edges = [(a, b, name) for a, b, name in zip(nodes, list(nodes)[1:], names, strict=False)]
        draw_graph(nodes, edges, sorted(set(names)), path, title)


class ConvNet(nn.Module):
    """A network of the space ``convnet``: images [N, in_channels, H, W] → logits [N, num_classes].

    Raises:
        ValueError: ``channels`` or ``cells`` is below 1.
    """

    def __init__(
        self, genotype: ConvNetGenotype, in_channels: int, num_classes: int, channels: int, cells: int
    ) -> None:
        super().__init__()
        for name, value in [("channels", channels), ("cells", cells)]:
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.layers, width = nn.ModuleList(), in_channels
        if genotype.kind == "pooled":
            self.layers.append(convolution(width, width := channels, genotype.stride))
        elif genotype.kind == "residual" and genotype.stride == 2:  # a few channels at full size, before it is halved
            self.layers.append(convolution(width, width := max(channels // 2, 1), 1))
        for stage, depth in enumerate(genotype.depths):
            wider = channels * WIDTHS[genotype.kind][stage]
            stride = genotype.stride if stage == 0 else 2
            if genotype.kind == "plain":
                if stride == 2:
                    self.layers.append(nn.MaxPool2d(2, ceil_mode=True))
                self.layers.append(convolution(width, wider, 1))
                self.layers.extend(convolution(wider, wider, 1) for _ in range(depth * cells - 1))
            elif genotype.kind == "residual":
                self.layers.append(convolution(width, wider, stride))
                self.layers.extend(SkipBlock(wider) for _ in range(depth * cells))
            else:
                self.layers.append(convolution(width, wider, 1, nn.MaxPool2d(2, ceil_mode=True)))
                self.layers.extend(SkipConvolution(wider) for _ in range(depth * cells))
            width = wider
        self.head = genotype.head
        self.classifier = nn.Linear(2 * width if self.head == "both" else width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        for layer in self.layers:
            x = layer(x)
        read = [x.mean((2, 3))] * (self.head != "max") + [MAX_SCALE * x.amax((2, 3))] * (self.head != "average")
        logits: Tensor = self.classifier(torch.cat(read, 1) if len(read) > 1 else read[0])
        return logits

    def paths(self) -> Iterator[nn.Module]:
        """Iterate over the branches of the residual blocks, which drop-path may drop."""
        yield from (layer.branch for layer in self.layers if isinstance(layer, (SkipBlock, SkipConvolution)))


class SkipBlock(nn.Module):
    """A residual block of two 3×3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            convolution(channels, channels, 1),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.branch(x))


class SkipConvolution(nn.Module):
    """A 3×3 convolution whose input is added to its output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def convolution(c_in: int, c_out: int, stride: int, *pool: nn.Module) -> nn.Sequential:
    """Make a 3×3 convolution with batch norm and ReLU, and perhaps a pool before these."""
    first = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(first, *pool, nn.BatchNorm2d(c_out), nn.ReLU())
