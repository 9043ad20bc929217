"""The network of an exported policy. Exported modules contain the source code of this class and of Residual."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_ext.rl.networks.encoders import Residual


class PolicyNetwork(nn.Module):
    """A policy, from raw observations [N, ...] in the dtype of the environment to deterministic actions.

    Args:
        layout: plain values that describe the network:

            - observation: shape of an observation; scale: factor of its values; normalize: whether to normalize it;
              channels_last: whether an image has its channels last;
            - shared, policy, value: layers, each a list of its name and its arguments;
            - kind: "logits", "mean" or "q", what ``policy`` computes; atoms: number of atoms of each value, or None;
            - actions: number of actions and the first one; or the shape of an action;
            - dtype: of actions that are arrays.
    """

    shift: Tensor
    factor: Tensor
    support: Tensor
    middle: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, layout: dict[str, Any]) -> None:
        super().__init__()
        self.layout = layout
        kinds = {"linear": nn.Linear, "conv": nn.Conv2d, "relu": nn.ReLU, "tanh": nn.Tanh, "flatten": nn.Flatten}
        kinds |= {"max_pool": nn.MaxPool2d, "residual": Residual, "layer_norm": nn.LayerNorm}
        self.shared, self.policy, self.value = (
            nn.Sequential(*(kinds[name](*arguments) for name, *arguments in layout[part]))
            for part in ("shared", "policy", "value")
        )
        if layout["normalize"]:
            self.register_buffer("shift", torch.zeros(layout["observation"]))
            self.register_buffer("factor", torch.ones(layout["observation"]))
        if layout["atoms"]:
            self.register_buffer("support", torch.zeros(layout["atoms"]))
        if layout["kind"] == "mean":
            for name in ("middle", "radius", "low", "high"):
                self.register_buffer(name, torch.zeros(layout["actions"], dtype=torch.float64))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return actions [N, ...]; the logits of the actions, their mean or their values Q; and V(s) [N], if any."""
        layout = self.layout
        x = observations.to(torch.float32)
        if layout["scale"] != 1:
            x = x * layout["scale"]
        if layout["normalize"]:
            x = ((x - self.shift) * self.factor).clamp(-layout["clip"], layout["clip"])
        if layout["channels_last"]:
            x = x.permute(0, 3, 1, 2) if x.dim() == 4 else x.permute(0, 1, 4, 2, 3).flatten(1, 2)
        features = self.shared(x)
        out, value = self.policy(features), self.value(features) if len(self.value) else None
        if layout["kind"] == "mean":
            actions = out.unflatten(1, layout["actions"]) * self.radius + self.middle
            actions = actions.clamp(self.low, self.high).to(getattr(torch, layout["dtype"]))
            return actions, out, None if value is None else value.squeeze(-1)
        number, first = layout["actions"]
        if layout["kind"] == "q":
            depth = layout["atoms"] or 1
            out = out.unflatten(1, (number, depth))
            if value is not None:  # dueling streams
                out = value.unsqueeze(1) + out - out.mean(1, keepdim=True)
            out = out.softmax(-1) @ self.support if layout["atoms"] else out.squeeze(-1)
            value = None
        return out.argmax(-1) + first, out, None if value is None else value.squeeze(-1)

    @torch.no_grad()
    def act(self, observation: Any) -> Any:
        """Return the action for one observation, or actions [N, ...] for a batch, as NumPy arrays."""
        x, shape = torch.as_tensor(np.asarray(observation)), tuple(self.layout["observation"])
        single = tuple(x.shape) == shape
        if not single and tuple(x.shape[1:]) != shape:
            raise ValueError(f"observation: expected {shape} or a batch [N, ...] of it, got {tuple(x.shape)}")
        if x.is_floating_point() and not x.isfinite().all():
            raise ValueError("observation: expected finite numbers")
        if self.layout["scale"] != 1 and x.is_floating_point():  # pixels
            raise ValueError(f"observation: expected integers from 0 to 255, got {x.dtype}")
        actions = self(x.reshape(-1, *shape))[0].numpy(force=True)
        return actions[0] if single else actions
