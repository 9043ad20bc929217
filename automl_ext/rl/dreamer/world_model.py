"""The world model: an encoder, the RSSM, and heads that predict observations, rewards and whether episodes continue."""

from __future__ import annotations

import gymnasium
import numpy as np
from torch import Tensor, nn

from automl_ext.rl.dreamer.config import DreamerConfig
from automl_ext.rl.dreamer.fused.mlp import MLP
from automl_ext.rl.dreamer.images import SIDE, image_decoder, image_encoder
from automl_ext.rl.dreamer.rssm import RSSM
from automl_ext.rl.networks.body import RunningNorm
from automl_ext.rl.networks.encoders import ChannelsFirst
from automl_ext.rl.networks.groups import check_nothing_hidden
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short


class WorldModel(nn.Module):
    """The world model of vectors of floats, normalized by their running statistics, or of uint8 images [64, 64, C].

    Args:
        space: observation space.
        actions: numbers per action.
        config: sizes of the networks.

    Attributes:
        features: number of features of a state, deter + stoch.
        images: whether observations are images.
        continues: head whose output is the logit that an episode continues; None if ``continue_scale`` is 0.
        norm: normalization of vector observations; None for images.

    Raises:
        UserError: another observation space.
    """

    def __init__(self, space: gymnasium.Space, actions: int, config: DreamerConfig) -> None:
        super().__init__()
        c = config
        self.features = c.deter + c.stoch
        check_nothing_hidden(space)
        shape = space.shape or ()
        self.images = len(shape) == 3 and shape[:2] == (SIDE, SIDE) and space.dtype == np.uint8
        if self.images:
            channels, embedding = shape[2], 32 * c.depth
            self.encoder = nn.Sequential(ChannelsFirst(), *image_encoder(channels, c.depth))
            self.decoder: nn.Module = image_decoder(self.features, channels, c.depth)
            self.norm: RunningNorm | None = None
        elif len(shape) == 1 and shape[0] and space.dtype is not None and space.dtype.kind == "f":
            embedding = c.units
            self.encoder = nn.Sequential(MLP(shape[0], c.units, c.encoder_layers - 1, embedding), nn.ELU())
            self.decoder = MLP(self.features, c.units, c.encoder_layers, shape[0])
            self.norm = RunningNorm(shape)
        else:
            raise UserError(
                f"observations: expected vectors of floats or uint8 images [64, 64, channels] for dreamer, "
                f"got {short(space)}"
            )
        self.rssm = RSSM(actions, embedding, c.deter, c.stoch, c.hidden)
        self.reward = MLP(self.features, c.units, c.reward_layers, 1)
        self.continues = MLP(self.features, c.units, c.continue_layers, 1) if c.continue_scale else None

    def prepare(self, observations: Tensor) -> Tensor:
        """Scale observations for encoder and decoder: images to [−½, ½], vectors to zero mean and unit variance."""
        if self.norm is None:
            return observations.float() / 255 - 0.5
        return self.norm(observations.float())

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
