"""Fake tensors of the whole training steps and of acting. The steps have no vmap: they change their arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake


def register() -> None:
    """Register everything; called once, after the library is loaded."""

    @register_fake("automl_ext::policy_gradient_step")
    def _(parameters: Tensor, *rest: Any) -> Tensor:
        return parameters.new_empty(6)

    @register_fake("automl_ext::policy_act")
    def _(parameters: Tensor, observations: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        n, outputs, gaussian = observations.shape[0], rest[2][-1], rest[-1]
        actions = parameters.new_empty((n, outputs)) if gaussian else parameters.new_empty(n, dtype=torch.int64)
        return actions, parameters.new_empty(n), parameters.new_empty(n)

    @register_fake("automl_ext::td_step")
    def _(parameters: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        observations = rest[4]
        return parameters.new_empty(3), parameters.new_empty(observations.shape[0])
