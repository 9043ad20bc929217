"""Dreamer's world model: encoder, recurrent state-space model, and predictors of observation, reward and continuation.

The recurrent state-space model (RSSM; Hafner et al. 2019, "Learning latent dynamics for planning from pixels") has a
state of two parts, a deterministic one, h, and a stochastic one, s:

    h_t = GRU(h_{t-1}, ELU(W [s_{t-1}, a_{t-1}]))
    prior      p(s_t | h_t)         before observing o_t
    posterior  q(s_t | h_t, o_t)    after observing o_t

Features of a state are h and a sample of s, the inputs of all predictors, of the policy and of the value network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.ops.networks import FusedMLP, gru_cell, mlp
from automl_ext.rl.envs.groups import check_nothing_hidden
from automl_ext.rl.networks.body import RunningNorm, orthogonal_
from automl_ext.rl.networks.encoders import ChannelsFirst
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from automl_ext.rl.replay.sequences import Sequences

MIN_STD = 0.1  # smallest standard deviation of prior and posterior
SIDE = 64  # height and width of images


class Normal(NamedTuple):
    """Independent normal distributions."""

    mean: Tensor
    std: Tensor


class Observed(NamedTuple):
    """States along observed sequences.

    Attributes:
        features: h and a sample of the posterior, [T, B, deter + stoch].
        posterior, prior: distributions of s, [T, B, stoch].
    """

    features: Tensor
    posterior: Normal
    prior: Normal


class RSSM(nn.Module):
    """The recurrent state-space model; ``deter`` and ``stoch`` are the sizes of h and s."""

    def __init__(self, actions: int, embedding: int, deter: int, stoch: int, hidden: int) -> None:
        super().__init__()
        self.deter, self.stoch = deter, stoch
        self.input = nn.Linear(stoch + actions, hidden)
        self.cell = nn.GRUCell(hidden, deter)
        self.prior_mlp = FusedMLP(deter, [hidden], 2 * stoch, "elu")
        self.posterior_mlp = FusedMLP(deter + embedding, [hidden], 2 * stoch, "elu")

    def initial(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return h and s at the start of an episode, zeros [B, ·]."""
        zeros = self.input.weight.new_zeros
        return zeros(batch, self.deter), zeros(batch, self.stoch)

    def step(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """Return the next h, [N, deter], from h, s and the action [N, ·]."""
        cell, inputs = self.cell, torch.cat([stoch, action], -1)
        x = mlp(inputs, [self.input.weight], [self.input.bias], "elu", activate_last=True)
        return gru_cell(x, deter, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)

    def prior(self, deter: Tensor) -> Normal:
        """Return p(s | h) for h [..., deter]."""
        return normal(self.prior_mlp(deter))

    def posterior(self, deter: Tensor, embedding: Tensor) -> Normal:
        """Return q(s | h, o) for h [..., deter] and the encoded observation [..., embedding]."""
        return normal(self.posterior_mlp(torch.cat([deter, embedding], -1)))

    def observe(self, embeddings: Tensor, actions: Tensor, noise: Tensor) -> Observed:
        """Infer the states along observed sequences, starting from the initial state.

        Args:
            embeddings: encoded observations, [T, B, embedding].
            actions: [T, B, A]; row t is the action before observation t.
            noise: standard normal, [T, B, stoch].
        """
        deter, stoch = self.initial(embeddings.shape[1])
        steps = []
        for embedding, action, eps in zip(embeddings.unbind(), actions.unbind(), noise.unbind(), strict=True):
            deter = self.step(deter, stoch, action)
            posterior = self.posterior(deter, embedding)
            stoch = sample(posterior, eps)
            steps.append((deter, stoch, *posterior))
        deters, stochs, means, stds = (torch.stack(each) for each in zip(*steps, strict=True))
        return Observed(torch.cat([deters, stochs], -1), Normal(means, stds), self.prior(deters))

    def imagine(self, features: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """Sample the next state from the prior; return its features.

        Args:
            features: h and s, [N, deter + stoch].
            action: [N, A].
            noise: standard normal, [N, stoch].
        """
        deter, stoch = features.split([self.deter, self.stoch], -1)
        deter = self.step(deter, stoch, action)
        return torch.cat([deter, sample(self.prior(deter), noise)], -1)


def normal(outputs: Tensor) -> Normal:
    """Split a layer's outputs [..., 2 n] into means and standard deviations, which are at least 0.1."""
    mean, raw = outputs.chunk(2, -1)
    return Normal(mean, F.softplus(raw.contiguous()) + MIN_STD)  # softplus is slow on memory that is not contiguous


def sample(distribution: Normal, noise: Tensor) -> Tensor:
    """Sample normal distributions, reparameterized, with standard normal noise."""
    return torch.addcmul(distribution.mean, distribution.std, noise)


class ImageNorm(RunningNorm):
    """Normalize images by the running mean of each pixel, and by one standard deviation for all pixels together.

    Pixels that never change become 0. In images scaled to [−½, ½] instead, a small object on a large background changes
    embeddings and losses by little, so the model is slow to learn to encode it.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, clip=math.inf, eps=1.0)  # images that differ by less than a gray level stay small

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        super().update(observations)
        self.scale.fill_((self.variance.mean() + self.eps).rsqrt())

    def forward(self, observations: Tensor) -> Tensor:
        return (observations - self.shift).mul_(self.scale)

    def restore(self, normalized: Tensor) -> Tensor:
        """Return images in [0, 255] from normalized ones."""
        return normalized / self.scale + self.shift


class WorldModel(nn.Module):
    """The world model of vectors of floats, normalized by their running statistics, or of uint8 images [64, 64, C].

    Attributes:
        features: number of features of a state, deter + stoch.
        images: whether observations are images.
        continues: predictor of the logit that an episode continues; None if ``continue_scale`` is 0.
        norm: normalization of observations; None for images without ``normalize_images``.
        observation_std: standard deviation of the decoder.

    Raises:
        UserError: another observation space.
    """

    def __init__(self, space: gymnasium.Space, actions: int, config: Any) -> None:
        super().__init__()
        c, elu = config, "elu"
        self.features = c.deter + c.stoch
        check_nothing_hidden(space)
        shape = space.shape or ()
        self.images = len(shape) == 3 and shape[:2] == (SIDE, SIDE) and space.dtype == np.uint8
        if self.images:
            channels, embedding = shape[2], 32 * c.depth
            self.encoder = image_encoder(channels, c.depth)
            self.decoder: nn.Module = image_decoder(self.features, channels, c.depth)
            self.norm: RunningNorm | None = ImageNorm(shape) if c.normalize_images else None
        elif len(shape) == 1 and shape[0] and space.dtype is not None and space.dtype.kind == "f":
            embedding = c.units
            hidden = [c.units] * c.encoder_layers
            self.encoder = nn.Sequential(FusedMLP(shape[0], hidden[1:], embedding, elu), nn.ELU())
            self.decoder = FusedMLP(self.features, hidden, shape[0], elu)
            self.norm = RunningNorm(shape)
        else:
            raise UserError(
                f"observations: expected vectors of floats or uint8 images [64, 64, channels] for dreamer, "
                f"got {short(space)}"
            )
        self.observation_std = 1.0 if self.norm is None else c.observation_std
        self.rssm = RSSM(actions, embedding, c.deter, c.stoch, c.hidden)
        self.reward = FusedMLP(self.features, [c.units] * c.reward_layers, 1, elu)
        self.continues = FusedMLP(self.features, [c.units] * c.continue_layers, 1, elu) if c.continue_scale else None

    def prepare(self, observations: Tensor) -> Tensor:
        """Scale observations for encoder and decoder: to zero mean and unit variance, or images to [−½, ½]."""
        if self.norm is None:
            return (observations - 127.5).div_(255)  # float32, with one new tensor
        return self.norm(observations if self.images else observations.float())

    def shown(self, prepared: Tensor) -> Tensor:
        """Return prepared observations as they are drawn: normalized vectors, or images in [−½, ½]."""
        return self.norm.restore(prepared) / 255 - 0.5 if isinstance(self.norm, ImageNorm) else prepared

    def encode(self, prepared: Tensor) -> Tensor:
        """Encode prepared observations, [..., *shape] → [..., embedding]."""
        batch_dims = prepared.dim() - (3 if self.images else 1)
        return self.encoder(prepared.flatten(0, batch_dims - 1)).unflatten(0, prepared.shape[:batch_dims])

    def decode(self, features: Tensor) -> Tensor:
        """Predict the means of prepared observations, [..., features] → [..., *shape]."""
        flat = self.decoder(features.flatten(0, -2))
        if self.images:
            flat = flat.permute(0, 2, 3, 1)
        return flat.unflatten(0, features.shape[:-1])


def model_loss(
    model: WorldModel, states: Observed, observations: Tensor, sequences: Sequences, config: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of the world model (Hafner et al. 2020, equation 10, with a loss of the continuation).

    Each term is a mean over the steps that are not padding. A mean KL divergence below ``config.free_nats`` is replaced
    by this number, so it has no gradient.

    Args:
        model: the predictors.
        states: the inferred states, [T, B, ·].
        observations: prepared observations, [T, B, ...].
        sequences: rewards and terminations, [T, B].
        config: weights of the terms.

    Returns:
        The loss, and its terms as metrics.
    """
    error = F.mse_loss(model.decode(states.features), observations, reduction="none")
    # −log N(o; prediction, std) and −log N(r; prediction, 1), without their constants
    of_observation = error.flatten(2).sum(-1) * (0.5 / model.observation_std**2)
    of_reward = 0.5 * (model.reward(states.features).squeeze(-1) - sequences.rewards * config.reward_scale).square()
    terms = {
        "observation_loss": masked_mean(of_observation, sequences.valid),
        # The first observation of an episode has a placeholder reward.
        "reward_loss": masked_mean(of_reward, sequences.has_reward),
        "kl": masked_mean(kl_divergence(states.posterior, states.prior), sequences.valid),
    }
    kl = terms["kl"].clamp_min(config.free_nats)
    loss = terms["observation_loss"] + terms["reward_loss"] + config.kl_scale * kl
    if model.continues is not None:
        logits, goes_on = model.continues(states.features).squeeze(-1), (~sequences.terminated).float()
        of_continuation = F.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
        terms["continue_loss"] = masked_mean(of_continuation, sequences.valid)
        loss = loss + config.continue_scale * terms["continue_loss"]
    return loss, {name: x.detach() for name, x in terms.items()}


def kl_divergence(p: Normal, q: Normal) -> Tensor:
    """Compute KL(p ‖ q), summed over the last dimension, [..., n] → [...]."""
    ratio = p.std / q.std
    distance = (p.mean - q.mean) / q.std
    return 0.5 * (ratio.square() + distance.square() - 1 - 2 * ratio.log()).sum(-1)


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean of the elements of x where ``valid``."""
    weights = valid.to(x.dtype)
    return (x * weights).sum() / weights.sum()


def image_encoder(channels: int, depth: int) -> nn.Sequential:
    """Build the encoder of Ha and Schmidhuber 2018: images [N, 64, 64, channels] → [N, 32 · depth]."""
    modules: list[nn.Module] = [ChannelsFirst()]
    for i in range(4):
        modules += [nn.Conv2d(channels, depth << i, 4, stride=2), nn.ReLU(inplace=True)]
        channels = depth << i
    return nn.Sequential(*modules, nn.Flatten())


def image_decoder(features: int, channels: int, depth: int) -> nn.Sequential:
    """Build the decoder: features [N, features] → images [N, channels, 64, 64]."""
    return nn.Sequential(
        nn.Linear(features, 32 * depth),
        nn.Unflatten(1, (32 * depth, 1, 1)),
        FromPoint(32 * depth, 4 * depth, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4 * depth, 2 * depth, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(2 * depth, depth, 6, stride=2),
        nn.ReLU(inplace=True),
        Doubling(depth, channels, 6, stride=2),
    )


class FromPoint(nn.ConvTranspose2d):
    """A transposed convolution of inputs [N, C, 1, 1], as one matrix product. The result is in channels-last format."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        weight = self.weight.permute(0, 2, 3, 1)  # [C, k, k, outputs]
        y = (x.flatten(1) @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        assert self.bias is not None
        return y.add_(self.bias).permute(0, 3, 1, 2)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution with stride 2 and an even kernel, computed as a convolution with four times the outputs.

    An output at an even or odd row and column depends on the inputs through every second row and column of the kernel.
    A convolution computes these four cases, which are then interleaved (Shi et al. 2016, "Real-time single image and
    video super-resolution using an efficient sub-pixel convolutional neural network", section 3.2). On a CPU, PyTorch's
    transposed convolution is slow if there are few outputs. The result is in channels-last format.
    """

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        assert self.bias is not None
        (inputs, outputs), half = self.weight.shape[:2], self.weight.shape[2] // 2
        # weight[c, o, 2i + p, 2j + q] becomes the weight [half − 1 − i, half − 1 − j] from c to (p, q, o)
        cases = self.weight.view(inputs, outputs, half, 2, half, 2).permute(3, 5, 1, 0, 2, 4).flip(4, 5)
        y = F.conv2d(x, cases.flatten(0, 2), self.bias.repeat(4), padding=half - 1)
        y = y.permute(0, 2, 3, 1).unflatten(-1, (2, 2, outputs))  # [N, row, column, p, q, o]
        return y.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def keras_(network: nn.Module) -> None:
    """Initialize the weights of a network in place as Keras does, which the authors' code of Dreamer uses.

    Weights are Glorot uniform, ±√(6 / (inputs + outputs)) (Glorot and Bengio 2010), the recurrent weights of a GRU
    orthogonal, and biases zero.
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GRUCell):  # in Keras, the weights of its three gates are one matrix
            nn.init.xavier_uniform_(module.weight_ih)
            orthogonal_(module.weight_hh, 1.0)
            nn.init.zeros_(module.bias_ih)
            nn.init.zeros_(module.bias_hh)


def he_(network: nn.Module) -> None:
    """Initialize convolutions in place so that their outputs keep the scale of their inputs (He et al. 2015).

    In a transposed convolution of stride 2, an output depends on every second row and column of the kernel only; in one
    whose inputs are points, on one position of the kernel. The initializations of PyTorch and Keras ignore this. With
    them, the decoder's first images are about a hundred times too small, and learning takes long.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            positions: float = module.weight[0, 0].numel()
            if isinstance(module, nn.ConvTranspose2d):
                positions = 1 if isinstance(module, FromPoint) else positions / math.prod(module.stride)
            nn.init.normal_(module.weight, std=math.sqrt(2 / (module.in_channels * positions)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
