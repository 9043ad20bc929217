"""The policy from which a policy-gradient agent starts (``--init-policy``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.rl.loop.loop import BEST
from automl_ext.training.errors import UserError
from automl_ext.training.files.weights import check_fit, read_tensors


def initial_policy(path: str, like: dict[str, Any]) -> dict[str, Any]:
    """Read a policy that fits a network.

    Args:
        path: a run directory, of which the best policy is taken; its ``best.pt``; or a file of ``agent.save``.
        like: the network's own state.

    Raises:
        UserError: the file is missing or damaged, or the policy belongs to another network.
    """
    file = Path(path) / BEST if Path(path).is_dir() else Path(path)
    content = read_tensors(file)
    try:
        if not isinstance(content, dict) or "policy" not in content:
            raise ValueError("expected a saved policy")
        check_fit(content["policy"], like, "policy")
    except ValueError as error:
        raise UserError(
            f"--init-policy {path}: {error}: the network must be that of the agent, with the same hidden, normalize "
            "and body"
        ) from None
    return content["policy"]
