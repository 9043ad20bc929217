"""Networks from observations to features, for vectors and for images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import gymnasium
import torch
from torch import Tensor, nn

from automl_ext.rl.envs.groups import check_nothing_hidden
from automl_ext.rl.envs.packed import PackedBox, byte_scale
from automl_ext.rl.networks.encoders import ChannelsFirst, Kind, encoder_features, image_layers
from automl_ext.rl.networks.parameters import check_layers
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.device import send


class Body(nn.Sequential):
    """A network from observations [N, ...] to features [N, features].

    Vectors go through the hidden layers. Images first go through convolutions, see
    :mod:`~automl_ext.rl.networks.encoders`. Inputs have the environment's dtype: uint8 is divided by the
    space's largest value, 255 for images, unless ``normalize`` is on, and booleans become 0 and 1. Packed observations
    with images first go through :class:`PartEncoders`.

    Args:
        space: space of the observations.
        hidden: sizes of the hidden layers.
        activation: activation after every hidden layer.
        normalize: normalize vectors by their running statistics; in packed observations, the vectors among the parts.
        kind: the convolutions for images: "nature", "small", "impala", or "auto" to choose by the image's size.
        layer_norm: normalize the outputs of every hidden layer, before the activation (Ba et al. 2016).
        encoder: a network from observations, as float32 [N, ...] with uint8 divided as above or normalized, to features
            [N, F]. It replaces the convolutions, and precedes the hidden layers of vectors.

    Attributes:
        features: number of features.
        linear: the hidden layers, ``nn.Linear``.
        norm: the first layer: the :class:`RunningNorm` of the observations, or :class:`Unpack`; None without
            ``normalize``. Agents call ``body.norm.update(observations)``.
        images: whether there are convolutions, or an encoder in their place.
        dtype: dtype of the computation; :func:`use_bfloat16` changes it. Weights and features are float32.

    Raises:
        UserError: unsupported observations, images with ``normalize``, vectors with a ``kind``, an encoder that does
            not fit the observations, or layers that do not fit into memory.
    """

    def __init__(
        self,
        space: gymnasium.Space,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        normalize: bool = False,
        kind: Kind = "auto",
        layer_norm: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(space, gymnasium.spaces.Box):
            raise UserError(
                f"observations: expected arrays (a Box space), got {short(space)}; "
                "--wrapper gymnasium.wrappers:FlattenObservation makes arrays of them"
            )
        shape = space.shape
        check_nothing_hidden(space)
        packed = space if isinstance(space, PackedBox) else None
        if normalize and len(shape) != 1:
            raise UserError(f"normalize_observations: expected vectors of observations, got shape {list(shape)}")
        if kind != "auto" and (is_vector(space) or encoder is not None):
            got = "an encoder" if encoder is not None else f"vectors, {list(shape)}"
            raise UserError(f"body: {kind}: expected images, got {got}")
        if packed is not None and encoder is not None:
            raise UserError(f"encoder: expected observations of one array (a Box space), got {short(space)}")
        self.norm: Unpack | RunningNorm | None  # a submodule, so forward() applies it first
        if packed is not None:
            self.norm = Unpack(packed, normalize)
        else:
            self.norm = RunningNorm(shape) if normalize else None
        # With normalize there is no factor: the running statistics come from the raw observations.
        self.scale = 1.0 if normalize or packed is not None else byte_scale(space)
        self.linear: list[nn.Linear] = []
        self.channels_first = False  # whether observations are images [channels, H, W]
        self.images = encoder is not None or not is_vector(space)
        self.dtype = torch.float32
        layers: list[nn.Module]
        if encoder is not None:
            layers, features = [encoder], encoder_features(encoder, shape)
        elif packed is not None and packed.images:
            layers = [encoders := PartEncoders(packed, activation, kind)]
            features, self.linear = encoders.features, list(encoders.linear)
        elif len(shape) == 1:
            layers, features = [], shape[0] if packed is None else packed.features
        else:
            layers, features = image_layers(shape, kind)
            self.channels_first = not isinstance(layers[0], ChannelsFirst)
        sizes = [features, *hidden]
        check_layers(sizes)
        for inputs, outputs in pairwise(sizes):
            self.linear.append(nn.Linear(inputs, outputs))
            layers += [self.linear[-1], *[nn.LayerNorm(outputs)] * layer_norm, activation()]
        self.extend(layers)
        self.features = sizes[-1]

    def forward(self, observations: Tensor) -> Tensor:
        x = observations
        if self.channels_first and x.device.type == "cpu":
            # oneDNN computes the gradient of the first layer's weights three times as fast in this format.
            x = x.contiguous(memory_format=torch.channels_last)
        if self.scale != 1:
            x = x.to(self.dtype, copy=True).mul_(self.scale)
        elif not isinstance(self.norm, Unpack):
            x = x.to(self.dtype)
        if self.dtype == torch.float32:
            return super().forward(x)
        with torch.autocast(x.device.type, self.dtype):
            return super().forward(x).float()


class Unpack(nn.Module):
    """Packed observations as vectors, float32 [N, features]; with images, a list of the vectors and the images.

    Raises:
        UserError: ``normalize`` without vectors.
    """

    def __init__(self, space: PackedBox, normalize: bool) -> None:
        super().__init__()
        if normalize and not space.features:
            raise UserError(f"normalize_observations: expected vectors of observations, got {space}")
        self.space = space
        self.norm = RunningNorm((space.features,)) if normalize else None

    def update(self, observations: Tensor) -> None:
        """Update the running statistics, if there are any, with packed observations."""
        if self.norm is not None:
            self.norm.update(self.space.vectors(observations))

    def forward(self, observations: Tensor) -> Tensor | list[Tensor]:
        x = self.space.vectors(observations)
        x = x if self.norm is None else self.norm(x)
        return [x, *self.space.pictures(observations)] if self.space.images else x


class PartEncoders(nn.Module):
    """An encoder for each image and one for all vectors together: a list from :class:`Unpack` → [N, features].

    Attributes:
        features: number of features, side by side.
        linear: the layer for vectors, if there are vectors.
    """

    units = 64  # of the layer for vectors

    def __init__(self, space: PackedBox, activation: type[nn.Module], kind: Kind) -> None:
        super().__init__()
        self.linear: list[nn.Linear] = []
        self.features = 0
        encoders: list[nn.Module] = [nn.Identity()]  # of no vectors
        if space.features:
            self.linear, self.features = [nn.Linear(space.features, self.units)], self.units
            encoders = [nn.Sequential(*self.linear, activation())]
        for part in space.images:
            try:
                layers, features = image_layers(part.space.shape, kind)
            except UserError as error:
                raise UserError(f"observation {part.name}: {error}") from None
            encoders.append(nn.Sequential(*layers))
            self.features += features
        self.encoders = nn.ModuleList(encoders)

    def forward(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([encoder(x) for encoder, x in zip(self.encoders, parts, strict=True)], 1)


class RunningNorm(nn.Module):
    """Normalize observations [..., *shape] by their running mean and standard deviation, and clip them to ±10.

    Only :meth:`update` changes the statistics. They are buffers, so checkpoints contain them, and a replay stores
    observations without normalization. Before the first update the layer only clips.

    Args:
        shape: shape of one observation.
        clip: bound of the normalized values.
        eps: added to the variance.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, shape: Sequence[int], clip: float = 10.0, eps: float = 1e-8) -> None:
        super().__init__()
        self.clip, self.eps, self.shape = clip, eps, tuple(shape)
        self.register_buffer("mean", torch.zeros(self.shape, dtype=torch.float64))
        self.register_buffer("variance", torch.zeros(self.shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(self.shape))

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        """Update the statistics with a batch [..., *shape] (Chan, Golub and LeVeque 1979, merging of moments)."""
        (sent,) = send([observations], self.mean.device)
        x = sent.to(torch.float64).reshape(-1, *self.shape)
        if not len(x):
            return
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        total = self.count + len(x)
        delta = mean - self.mean
        moment = self.variance * self.count + variance * len(x) + delta**2 * self.count * len(x) / total
        self.mean += delta * len(x) / total
        self.variance.copy_(moment / total)
        self.count.copy_(total)
        self.shift.copy_(self.mean)
        self.scale.copy_((self.variance + self.eps).rsqrt())

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.shift) * self.scale).clamp(-self.clip, self.clip)


def use_bfloat16(network: nn.Module) -> None:
    """Compute the bodies with convolutions or an encoder in bfloat16 from now on. Weights and features stay float32.

    Raises:
        UserError: the network has no such body.
    """
    bodies = [module for module in network.modules() if isinstance(module, Body) and module.images]
    if not bodies:
        raise UserError("bfloat16: expected observations that are images, got vectors")
    for body in bodies:
        body.dtype = torch.bfloat16


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """Initialize a layer with orthogonal weights and zero bias, as on-policy methods do. Return the layer."""
    orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def orthogonal_layers(body: Body) -> None:
    """Initialize the hidden layers of a body for ReLU or tanh, by :func:`orthogonal`."""
    for layer in body.linear:
        orthogonal(layer, math.sqrt(2))


def orthogonal_(weight: Tensor, gain: float) -> None:
    """Apply ``nn.init.orthogonal_`` with the same result for every number of threads.

    LAPACK's QR decomposition splits its sums by threads, so one thread computes it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        nn.init.orthogonal_(weight, gain)
    finally:
        torch.set_num_threads(threads)


def is_vector(space: gymnasium.Space) -> bool:
    """Return whether a network gets a vector for each observation, and no image."""
    return not space.images if isinstance(space, PackedBox) else len(space.shape or ()) == 1
