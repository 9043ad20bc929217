"""Building blocks of convolutional search spaces: candidate operations, a residual downsampling block."""

from __future__ import annotations

from torch import Tensor, nn


class ReluConvBN(nn.Sequential):
    """ReLU → convolution → batch norm, keeping the spatial size at stride 1."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(),  # not in place: several operations read the same node
            nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )


class ResidualBlock(nn.Module):
    """Two 3×3 ReLU-conv-BN of which the first halves the image, beside an average-pooled 1×1 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(ReluConvBN(c_in, c_out, 3, stride=2), ReluConvBN(c_out, c_out, 3))
        # ceil_mode matters for odd sizes only, where a stride-2 convolution rounds up.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def make_operation(name: str, channels: int, affine: bool = True) -> nn.Module | None:
    """The module of a candidate operation that keeps the shape [N, channels, H, W]; None for "none".

    Args:
        affine: whether batch norms learn a scale and a shift (not during a search).

    Raises:
        ValueError: no operation of that name.
    """
    if name == "none":
        return None
    if name == "skip_connect":
        return nn.Identity()
    if name == "nor_conv_1x1":
        return ReluConvBN(channels, channels, 1, affine=affine)
    if name == "nor_conv_3x3":
        return ReluConvBN(channels, channels, 3, affine=affine)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    raise ValueError(f"make_operation: name: no operation is called {name!r}")
