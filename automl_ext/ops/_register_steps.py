"""Fake tensors of the whole training steps. They have no vmap: they change their arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import register_fake


def register() -> None:
    """Register everything; called once, after the library is loaded."""

    @register_fake("automl_ext::policy_gradient_step")
    def _(parameters: Tensor, *rest: Any) -> Tensor:
        return parameters.new_empty(6)

    @register_fake("automl_ext::td_step")
    def _(parameters: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        observations = rest[4]
        return parameters.new_empty(3), parameters.new_empty(observations.shape[0])
