"""A policy from which a policy-gradient agent starts, such as one of ``train bc``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import arg

from automl_ext.rl.loop.loop import BEST
from automl_ext.rl.loop.policy_agent import REWARD_MOMENTS
from automl_ext.rl.loop.seams import Seam
from automl_ext.training.errors import UserError
from automl_ext.training.files.weights import check_fit, read_tensors


@dataclass
class InitialPolicy:
    """The weights of another run's policy, before training. Resumed runs and loaded agents do not read the file."""

    name: ClassVar[str] = "initial-policy"
    seams: ClassVar[frozenset[Seam]] = frozenset({"initial"})

    path: Annotated[str | None, arg(name="initial-policy.path")] = None
    """Start from this policy: a run directory, of which the best policy is taken; its best.pt; or a file of
    agent.save."""

    def attach(self, agent: Any) -> None:
        agent.seams.initial.append(lambda own: read_policy(str(self.path), own))


def read_policy(path: str, like: dict[str, Any]) -> dict[str, Any]:
    """Read a policy that fits a network.

    Args:
        path: as :attr:`InitialPolicy.path`.
        like: the network's own state.

    Raises:
        UserError: the file is missing or damaged, or the policy belongs to another network.
    """
    file = Path(path) / BEST if Path(path).is_dir() else Path(path)
    content = read_tensors(file)
    try:
        if not isinstance(content, dict) or "policy" not in content:
            raise ValueError("expected a saved policy")
        # The statistics of rewards belong to the training, not to the policy that it begins with.
        policy, own = (
            {name: x for name, x in state.items() if name != REWARD_MOMENTS} if isinstance(state, dict) else state
            for state in (content["policy"], like)
        )
        check_fit(policy, own, "policy")
    except ValueError as error:
        raise UserError(
            f"initial-policy {path}: {error}: the network must be that of the agent, with the same hidden, body "
            "and normalize_observations"
        ) from None
    return policy
