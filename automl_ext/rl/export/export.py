"""Export of a trained policy to files that do not need automl_ext."""

from __future__ import annotations

import inspect
import pprint
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from automl_ext._version import __version__
from automl_ext.rl.export.layout import policy_network
from automl_ext.rl.export.network import PolicyNetwork
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.networks.encoders import Residual
from automl_ext.rl.reports.evaluate_run import agent_of, load_best, load_last
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.files.exporting import READ_WEIGHTS, check_out, load_module, write_program
from automl_ext.training.files.weights import write_tensors

CHECKED = 16  # observations on which the files are compared with the agent


def export_policy(
    source: str | Path | LearningAgent,
    out: str | Path,
    policy: Literal["best", "last"] = "best",
    trust: Iterable[str] = (),
) -> list[Path]:
    """Export the deterministic policy of a run directory, or of an agent.

    Both formats take raw observations, [N, ...] in the dtype of the environment, for any N. They return a tuple: the
    actions; the network's outputs (logits, the mean of the Gaussian, or Q-values); and V(s) or None. The normalization
    of observations is included. With options such as ``frame_stack``, pass the observations of the wrapped environment.

    A run directory is not trusted. Weights are loaded with ``weights_only=True``. The generated module contains only
    numbers and the ``repr`` of strings.

    Args:
        source: a run directory of dqn, rainbow, a2c, a3c, ppo, reinforce, bc, cql or iql; or an agent, whose current
            policy is exported.
        out: ``NAME.pt2``, or ``NAME.py`` (which also writes the weights ``NAME.pt``), or ``NAME`` for both.
        policy: "best" or "last", the policy of a run directory to export.
        trust: Python modules that the run directory may name (``env_id``, ``wrapper``, ``potential``); they are
            imported.

    Returns:
        The files. Each has been loaded, and compared with the agent on some observations.

    Raises:
        UserError: not a run of one of these algorithms, a missing or damaged file, or an invalid name ``out``.
    """
    out = Path(out)
    suffixes = check_out(out)
    if isinstance(source, LearningAgent):
        return _export(source, out, suffixes)
    _, agent = agent_of(Path(source), trust)
    try:
        (load_best if policy == "best" else load_last)(Path(source), agent)
        return _export(agent, out, suffixes)
    finally:
        agent.envs.close()


def _export(agent: LearningAgent, out: Path, suffixes: tuple[str, ...]) -> list[Path]:
    network = policy_network(agent)
    observations = example_observations(agent)
    with torch.no_grad():
        expected = network(observations)
    check_actions(agent, observations, expected)
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix in suffixes:
        path = out.with_suffix(suffix)
        if suffix == ".pt2":
            write_program(network, observations, {"observations": {0: torch.export.Dim("batch", min=1)}}, path)
            check_outputs(torch.export.load(path).module(), observations, expected, path)
            written.append(path)
        else:
            write_atomic(path, module_text(network, agent.config.env_id, path.stem).encode())
            write_tensors(path.with_suffix(".pt"), network.state_dict())
            check_outputs(load_module(path), observations, expected, path)
            written += [path, path.with_suffix(".pt")]
    return written


def example_observations(agent: LearningAgent) -> Tensor:
    """Return random observations [CHECKED, ...] in the dtype of the environment."""
    space = agent.spaces[0]
    envs: Any = getattr(agent, "learner", agent).envs if agent.algorithm == "a3c" else agent.envs
    raw = envs.vector.single_observation_space if hasattr(envs, "vector") else space
    rng, dtype, shape = np.random.default_rng(0), np.dtype(raw.dtype), (CHECKED, *(space.shape or ()))
    if dtype.kind == "f":
        return torch.from_numpy(rng.standard_normal(shape).astype(dtype))
    return torch.from_numpy(rng.integers(2 if dtype.kind == "b" else 100, size=shape).astype(dtype))


def check_actions(agent: LearningAgent, observations: Tensor, outputs: tuple[Tensor, Tensor, Tensor | None]) -> None:
    """Check that a network chooses the agent's actions. If two actions are equally good, either may be chosen.

    Raises:
        RuntimeError: an action differs.
    """
    x = observations.numpy()
    found, (actions, scores, _) = agent.act(x.astype(np.float32) if x.dtype.kind == "f" else x), outputs
    if actions.is_floating_point():
        same = np.allclose(actions.numpy(), found, rtol=1e-3, atol=1e-3)
    else:
        chosen = torch.from_numpy(np.asarray(found, np.int64)) + (scores.argmax(-1) - actions)  # from 0
        best, other = scores.max(-1).values, scores.gather(1, chosen.unsqueeze(1)).squeeze(1)
        same = torch.allclose(best, other, rtol=1e-3, atol=1e-3)
    if not same:
        raise RuntimeError("export: the exported network chooses other actions than the agent")


def check_outputs(network: Any, observations: Tensor, expected: tuple[Tensor | None, ...], path: Path) -> None:
    """Check that a loaded network gives these outputs, for all observations and for the first one.

    Raises:
        RuntimeError: they differ.
    """
    with torch.no_grad():
        for n in (len(observations), 1):
            for found, wanted in zip(network(observations[:n])[1:], expected[1:], strict=True):
                if wanted is not None and not torch.allclose(found, wanted[:n], rtol=1e-4, atol=1e-4):
                    raise RuntimeError(f"export: {path}: the outputs differ from those of the agent")


def module_text(network: PolicyNetwork, env_id: str, name: str) -> str:
    """Return the source code of the exported module.

    Args:
        network: the policy.
        env_id: the environment, for the reader.
        name: the module's file name without its suffix; must not contain quotes or backslashes.
    """
    return MODULE.format(
        version=__version__,
        name=name,
        env_id=ascii(env_id),
        layout=pprint.pformat(network.layout, width=110, sort_dicts=False),
        residual=inspect.getsource(Residual).rstrip(),
        definition=inspect.getsource(PolicyNetwork).rstrip(),
        read_weights=READ_WEIGHTS,
    )


MODULE = '''"""A trained policy, exported by automl_ext {version}. Using it does not need automl_ext.

    policy = load()                           # reads {name}.pt next to this file
    action = policy.act(observation)          # NumPy: one observation, or a batch
    actions, scores, values = policy(batch)   # tensors: raw observations [N, ...]
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ENVIRONMENT = {env_id}
LAYOUT = {layout}


{residual}


{definition}


{read_weights}


def load(weights: str | Path | None = None) -> PolicyNetwork:
    """Load the policy, by default with the weights {name}.pt next to this file."""
    network = PolicyNetwork(LAYOUT)
    network.load_state_dict(read_weights(Path(__file__).with_suffix(".pt") if weights is None else weights))
    return network.eval()
'''
