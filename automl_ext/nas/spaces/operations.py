"""Building blocks of convolutional search spaces: candidate operations, and blocks that halve the image.

At stride 2, all of them map H × W to ⌈H/2⌉ × ⌈W/2⌉, so their outputs have equal sizes for odd H and W too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channels_last(x: Tensor) -> Tensor:
    """Return images in the memory layout in which the layers are faster.

    That is channels-last on a CPU, unless there are few channels, and under autocast on a GPU, whose matrix units
    compute in it. For one-channel images, ``.contiguous()`` would not change the strides, which decide the layout of
    the layers.
    """
    if x.device.type != "cpu" and (x.is_meta or not torch.is_autocast_enabled(x.device.type)):
        return x
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


class Conv1x1(nn.Conv2d):
    """1×1 convolution without a bias that subsamples its input first, then convolves with stride 1.

    It computes the same as ``nn.Conv2d(c_in, c_out, 1, stride, bias=False)``, with the same parameters. A strided
    1×1 convolution must not reach oneDNN: with AVX2, channels-last input and fewer input channels than a block (8), its
    backward pass writes out of bounds (oneDNN issue 6035).
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, 1, bias=False)
        self.subsampling = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.subsampling > 1:
            # A 1×1 average pool selects every other pixel. Unlike slicing, its gradient keeps the memory layout of x.
            x = F.avg_pool2d(x, 1, self.subsampling)
        return super().forward(x)


class ReluConvBN(nn.Sequential):
    """ReLU → convolution → batch norm, keeping the spatial size at stride 1."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(),  # not in place: several operations read the same node
            Conv1x1(c_in, c_out, stride)
            if kernel == 1
            else nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )


class SeparableConv(nn.Sequential):
    """(ReLU → depthwise convolution → 1×1 convolution → batch norm), applied twice.

    ``stride`` applies to the first depthwise convolution.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            DepthwiseConv(channels, kernel, stride, affine=affine), DepthwiseConv(channels, kernel, affine=affine)
        )


class DepthwiseConv(nn.Sequential):
    """ReLU → depthwise convolution, optionally dilated → 1×1 convolution → batch norm."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1, affine: bool = True) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedConv(nn.Sequential):
    """ReLU → 1×7 → 7×1 convolution → batch norm."""

    def __init__(self, channels: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedReduction(nn.Module):
    """ReLU → two 1×1 convolutions of stride 2, the second on the image shifted by one pixel → batch norm."""

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__()
        # A single output channel leaves none for the first convolution, and PyTorch has no empty convolutions.
        self.even = Conv1x1(c_in, c_out // 2, stride=2) if c_out > 1 else None
        self.odd = Conv1x1(c_in, c_out - c_out // 2, stride=2)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]  # the padding completes an odd size
        halves = [self.odd(shifted)] if self.even is None else [self.even(x), self.odd(shifted)]
        return self.norm(torch.cat(halves, dim=1))


class ResidualBlock(nn.Module):
    """A block that halves the image: the sum of a branch and a shortcut.

    The branch is ReLU → 3×3 convolution → batch norm, twice, first with stride 2. The shortcut is an average pool and a
    1×1 convolution.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(ReluConvBN(c_in, c_out, 3, stride=2), ReluConvBN(c_out, c_out, 3))
        # A stride-2 convolution rounds odd sizes up; so must the pool.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def make_operation(name: str, channels: int, affine: bool = True, stride: int = 1) -> nn.Module | None:
    """Make the module of a candidate operation, None for "none".

    The module maps [N, channels, H, W] to [N, channels, ⌈H/stride⌉, ⌈W/stride⌉].

    Args:
        affine: whether batch norms learn a scale and a shift; they do not during a search.
        stride: 1 or 2.

    Raises:
        ValueError: no operation has this name.
    """
    kernel = int(name[-1]) if name[-1:].isdigit() else 0
    if name == "none":
        return None
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, affine)
    if name in ("nor_conv_1x1", "nor_conv_3x3"):
        return ReluConvBN(channels, channels, kernel, stride, affine)
    if name in ("sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7"):
        return SeparableConv(channels, kernel, stride, affine)
    if name in ("dil_conv_3x3", "dil_conv_5x5"):
        return DepthwiseConv(channels, kernel, stride, dilation=2, affine=affine)
    if name == "conv_1x7_7x1":
        return FactorizedConv(channels, stride, affine)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    raise ValueError(f"make_operation: name: unknown operation {name!r}")
