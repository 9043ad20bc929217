"""The world model: an encoder, the RSSM, and heads that say what a state looks like, pays, and whether it goes on."""

from __future__ import annotations

import gymnasium
import numpy as np
from torch import Tensor, nn

from automl_ext.rl.dreamer.config import DreamerConfig
from automl_ext.rl.dreamer.fused.mlp import MLP
from automl_ext.rl.dreamer.images import SIDE, image_decoder, image_encoder
from automl_ext.rl.dreamer.rssm import RSSM
from automl_ext.rl.networks.body import ChannelsFirst, RunningNorm
from automl_ext.training.errors import UserError


class WorldModel(nn.Module):
    """Observations are vectors of floats, normalised by their running mean and deviation, or uint8 images
    [64, 64, channels].

    Attributes:
        features: numbers per state that the heads and the policy see, deter + stoch.
        images: whether observations are images.
        continues: the head of the logit that an episode goes on; None where it always does (``continue_scale`` 0).

    Raises:
        UserError: observations of another kind.
    """

    def __init__(self, space: gymnasium.Space, actions: int, config: DreamerConfig) -> None:
        super().__init__()
        c = config
        self.features = c.deter + c.stoch
        shape = space.shape or ()
        self.images = len(shape) == 3 and shape[:2] == (SIDE, SIDE) and space.dtype == np.uint8
        if self.images:
            channels, embedding = shape[2], 32 * c.depth
            self.encoder = nn.Sequential(ChannelsFirst(), *image_encoder(channels, c.depth))
            self.decoder: nn.Module = image_decoder(self.features, channels, c.depth)
            self.norm: RunningNorm | None = None
        elif len(shape) == 1 and space.dtype is not None and space.dtype.kind == "f":
            embedding = c.units
            self.encoder = nn.Sequential(MLP(shape[0], c.units, c.encoder_layers - 1, embedding), nn.ELU())
            self.decoder = MLP(self.features, c.units, c.encoder_layers, shape[0])
            self.norm = RunningNorm(shape)
        else:
            raise UserError(f"observations: dreamer takes vectors of floats and uint8 images [64, 64, n], got {space}")
        self.rssm = RSSM(actions, embedding, c.deter, c.stoch, c.hidden)
        self.reward = MLP(self.features, c.units, c.reward_layers, 1)
        self.continues = MLP(self.features, c.units, c.continue_layers, 1) if c.continue_scale else None

    def prepare(self, observations: Tensor) -> Tensor:
        """As the encoder reads and the decoder writes them, but for the order of dims: images in −½ … ½."""
        if self.norm is None:
            return observations.float() / 255 - 0.5
        return self.norm(observations.float())

    def encode(self, prepared: Tensor) -> Tensor:
        """[..., *shape] → [..., embedding]."""
        lead = prepared.dim() - (3 if self.images else 1)
        return self.encoder(prepared.flatten(0, lead - 1)).unflatten(0, prepared.shape[:lead])

    def decode(self, features: Tensor) -> Tensor:
        """Means of prepared observations, [..., features] → [..., *shape]."""
        flat = self.decoder(features.flatten(0, -2))
        if self.images:
            flat = flat.permute(0, 2, 3, 1)
        return flat.unflatten(0, features.shape[:-1])
