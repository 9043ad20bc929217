"""Export of a trained policy by ``torch.export``, for programs that do not have automl_ext."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from automl_ext._native import backend
from automl_ext._version import __version__
from automl_ext.rl.loop.learning import LearningAgent
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.distributions import Categorical, DiagonalGaussian
from automl_ext.rl.networks.packed import check_not_packed
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.reports.evaluate_run import agent_of, load_policy
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.files.reading import short

ALGORITHMS = ("dqn", "rainbow", "a2c", "a3c", "ppo", "reinforce", "bc", "cql", "iql")
CHECKED = 16  # observations on which the program is compared with the agent
README = """# A trained policy

Algorithm: {algorithm}. Exported by automl_ext {version}; using it needs PyTorch only.

```python
import torch

policy = torch.export.load("policy.pt2").module()
actions, scores, values = policy(torch.from_numpy(observations))
```

`observations` [N, ...] are raw, in the dtype of the environment, for any N; `policy.json` has their shape and dtype.
Normalization is part of the program. `actions` [N, ...] are deterministic and in the form that the environment takes.
`scores` are {scores}. `values` are {values}.
"""


def export_policy(
    source: str | Path | LearningAgent,
    out: str | Path,
    policy: Literal["best", "last"] = "best",
    trust: Iterable[str] = (),
) -> list[Path]:
    """Export the deterministic policy of a run directory, or of an agent, to a folder.

    A run directory is not trusted: nothing in it is executed, and weights are loaded with ``weights_only=True``.

    Args:
        source: a run directory of one of :data:`ALGORITHMS`; or an agent, whose current policy is exported.
        out: the folder. ``policy.pt2`` is a ``torch.export`` program from raw observations [N, ...] to actions, the
            network's outputs (logits, the mean of the Gaussian, or Q-values), and V(s) or None. ``policy.json``
            describes the spaces and the normalization, ``README.md`` how to load the program.
        policy: "best" or "last", the policy of a run directory to export.
        trust: Python modules that the run directory may name; they are imported.

    Returns:
        The files. The program has been loaded, and compared with the agent on some observations.

    Raises:
        UserError: a run of another algorithm, a network with parts for each of several agents or tasks, a missing or
            damaged file, or ``out`` is not a folder.
    """
    out = Path(out)
    if out.suffix in (".py", ".pt", ".pt2") or (out.exists() and not out.is_dir()):
        raise UserError(f"--out {out}: expected a folder for policy.pt2, policy.json and README.md")
    if isinstance(source, LearningAgent):
        return _export(source, out)
    _, agent = agent_of(Path(source), trust)
    try:
        load_policy(Path(source), agent, policy)
        return _export(agent, out)
    finally:
        agent.envs.close()


class PolicyProgram(nn.Module):
    """Maps raw observations [N, ...] to actions [N, ...], scores [N, outputs], and values [N] or None."""

    low: Tensor
    high: Tensor
    middle: Tensor
    radius: Tensor

    def __init__(self, network: ActorCritic | QNetwork, first_action: int = 0) -> None:
        super().__init__()
        self.network, self.first = network, first_action
        if isinstance(network, ActorCritic) and isinstance(network.distribution, DiagonalGaussian):
            box = network.distribution.scaling
            self.shape, self.dtype = box.shape, getattr(torch, str(box.dtype))
            bounds = {"low": box.low, "high": box.high, "middle": box.middle, "radius": box.half}
            for name, bound in bounds.items():
                self.register_buffer(name, torch.tensor(bound, dtype=torch.float64))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if isinstance(self.network, QNetwork):
            q = self.network.q(self.network(observations), observations)
            return q.argmax(-1) + self.first, q, None
        outputs, values = self.network(observations)
        if isinstance(self.network.distribution, Categorical):
            return outputs.argmax(-1) + self.network.distribution.start, outputs, values
        actions = outputs.unflatten(1, self.shape) if self.shape else outputs.squeeze(1)
        actions = (actions * self.radius + self.middle).clamp(self.low, self.high)
        return actions.to(self.dtype), outputs, values


def policy_program(agent: LearningAgent) -> PolicyProgram:
    """Return the policy of an agent as a module with copies of its weights, on the CPU, in evaluation mode.

    Raises:
        UserError: the agent is not of one of :data:`ALGORITHMS`, or its network has parts for each of several agents or
            tasks.
    """
    if agent.algorithm not in ALGORITHMS:
        raise UserError(
            f"export: a policy of {agent.algorithm} cannot be exported; export takes {', '.join(ALGORITHMS)}"
        )
    check_not_packed(agent.spaces[0], "export")
    owner: Any = agent
    network = owner.network if hasattr(owner, "network") else owner.online
    if not isinstance(agent.spaces[1], (gymnasium.spaces.Discrete, gymnasium.spaces.Box)):
        raise UserError(f"export: expected Discrete or Box actions, got {short(agent.spaces[1])}")
    if type(network) not in (ActorCritic, QNetwork):
        raise UserError("export: networks with central_critic, separate or popart cannot be exported")
    program = PolicyProgram(copy.deepcopy(network), getattr(agent, "_first", 0)).cpu().eval().requires_grad_(False)
    for parameter in program.parameters():
        parameter.data = parameter.data.clone()  # not a view of the vector of all parameters
    return program


def _export(agent: LearningAgent, out: Path) -> list[Path]:
    program, observations = policy_program(agent), example_observations(agent)
    content = io.BytesIO()
    shapes = {"observations": {0: torch.export.Dim("batch", min=1)}}
    with backend("reference"):  # PyTorch's operations only
        torch.export.save(torch.export.export(program, (observations,), dynamic_shapes=shapes), content)
    content.seek(0)
    check_program(torch.export.load(content).module(), program, observations)
    check_actions(agent, observations, program(observations))
    scores = "Q-values" if isinstance(program.network, QNetwork) else "logits, or the means of normalized actions"
    values = "None" if isinstance(program.network, QNetwork) else "the estimated values V(s), [N]"
    text = README.format(algorithm=agent.algorithm, version=__version__, scores=scores, values=values)
    facts = json.dumps(description(agent, program), indent=1, allow_nan=False) + "\n"
    files = {"policy.pt2": content.getvalue(), "policy.json": facts.encode(), "README.md": text.encode()}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files]


def description(agent: LearningAgent, program: PolicyProgram) -> dict[str, Any]:
    """Return what ``policy.json`` says: algorithm, environment, spaces and normalization, as plain values."""
    body: Any = program.network.body
    normalization: dict[str, Any] | None = None
    if body.norm is not None:
        std = 1 / body.norm.scale
        normalization = {"mean": body.norm.shift.tolist(), "std": std.tolist(), "clip": body.norm.clip}
    elif body.scale != 1:
        normalization = {"factor": body.scale}
    return {
        "automl_ext": __version__,
        "algorithm": agent.algorithm,
        "environment": agent.config.env_id,
        "observations": described(raw_space(agent)),
        "actions": described(agent.spaces[1]),
        "normalization": normalization,
    }


def described(space: gymnasium.Space) -> dict[str, Any]:
    """Describe a Discrete or a Box; a bound is one number if it is the same everywhere, else a nested list."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"n": int(space.n), "start": int(space.start)}
    bounds = {}
    for name in ("low", "high"):
        bound = np.asarray(getattr(space, name))
        bound = bound.flat[0] if (bound == bound.flat[0]).all() else bound
        bounds[name] = strict(np.asarray(bound).tolist())
    return {"shape": list(space.shape or ()), "dtype": str(space.dtype), **bounds}


def strict(value: Any) -> Any:
    """Write infinite numbers in a nested list as strings, which strict JSON can hold."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def raw_space(agent: LearningAgent) -> gymnasium.Space:
    """Return the space of the observations as the environment has it; of a loaded agent, as the agent has it."""
    envs: Any = getattr(agent, "learner", agent).envs if agent.algorithm == "a3c" else agent.envs
    return envs.vector.single_observation_space if hasattr(envs, "vector") else agent.spaces[0]


def example_observations(agent: LearningAgent) -> Tensor:
    """Return random observations [CHECKED, ...] in the dtype of the environment."""
    space = raw_space(agent)
    rng, dtype, shape = np.random.default_rng(0), np.dtype(space.dtype), (CHECKED, *(space.shape or ()))
    if dtype.kind == "f":
        return torch.from_numpy(rng.standard_normal(shape).astype(dtype))
    return torch.from_numpy(rng.integers(2 if dtype.kind == "b" else 100, size=shape).astype(dtype))


def check_actions(agent: LearningAgent, observations: Tensor, outputs: tuple[Tensor, Tensor, Tensor | None]) -> None:
    """Check that a program chooses the agent's actions. If two actions are equally good, either may be chosen.

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
        raise RuntimeError("export: the exported program chooses other actions than the agent")


def check_program(loaded: Any, program: PolicyProgram, observations: Tensor) -> None:
    """Check that a loaded program gives the outputs of the module, for all observations and for the first one.

    Raises:
        RuntimeError: they differ.
    """
    for n in (len(observations), 1):
        for found, wanted in zip(loaded(observations[:n])[1:], program(observations[:n])[1:], strict=True):
            if wanted is not None and not torch.allclose(found, wanted, rtol=1e-4, atol=1e-4):
                raise RuntimeError("export: the outputs of the loaded program differ from those of the policy")
