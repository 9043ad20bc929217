"""QMIX (Rashid et al. 2018, https://arxiv.org/abs/1803.11485): VDN with a monotonic mixing network.

The state that the mixing network reads is the concatenation of all agents' observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from automl_ext.rl.loop import loop
from automl_ext.rl.multi_agent.mixers import Monotonic
from automl_ext.rl.multi_agent.vdn import VDN, VDNConfig
from automl_ext.rl.networks.groups import GroupedBox
from automl_ext.training.checks import check_range


@dataclass
class QMIXConfig(VDNConfig):
    """Configuration of QMIX. The defaults are for the two-step game."""

    mixing_units: int = 32  # Hidden units of the mixing network.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "mixing_units", low=1)


class QMIX(VDN):
    """The QMIX agent: :class:`VDN` with the mixing network :class:`Monotonic`."""

    config: QMIXConfig
    algorithm = "qmix"

    def mixer(self, space: GroupedBox) -> nn.Module:
        return Monotonic(len(space.names), len(space.names) * space.own, self.config.mixing_units)


def train(
    config: QMIXConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Train QMIX in a run directory; see :func:`automl_ext.rl.loop.loop.train`."""
    return loop.train("qmix", QMIX, config, out, resume, stop_after)
