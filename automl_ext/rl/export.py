"""Export of a trained policy by ``torch.export``, for programs that do not have automl_ext."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from automl_ext._native import backend
from automl_ext._version import __version__
from automl_ext.rl.envs.packed import MASK, PackedBox, has_mask, masked_space, named_parts
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.networks.actor_critic import ActorCritic
from automl_ext.rl.networks.distributions import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical
from automl_ext.rl.networks.q_network import QNetwork
from automl_ext.rl.reports.evaluate_run import agent_of, load_policy
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_atomic

ALGORITHMS = ("dqn", "rainbow", "a2c", "a3c", "ppo", "reinforce", "bc", "cql", "iql")
CHECKED = 16  # observations on which the program is compared with the agent
README = """# A trained policy

Algorithm: {algorithm}. Exported by automl_ext {version}; using it needs PyTorch only.

```python
import torch

policy = torch.export.load("policy.pt2").module()
actions, scores, values = policy({call})
```

{inputs}Normalization is part of the program. `actions` [N, ...] are deterministic and in the form that the environment
takes. `scores` are {scores}. `values` are {values}.
"""
RAW = """`observations` [N, ...] are raw, in the dtype of the environment, for any N; `policy.json` has their shape and
dtype.
"""
NAMED = """The inputs have a first axis N, for any N. They are raw, in the form and the dtypes of the environment:

{rows}

"""
SCORES = {
    Categorical: "logits",
    MultiCategorical: "logits of each component of the action in turn",
    Bernoulli: "the log-odds of 1",
    DiagonalGaussian: "the means of normalized actions",
}


def export_policy(
    source: str | Path | Agent,
    out: str | Path,
    policy: Literal["best", "last"] = "best",
    trust: Iterable[str] = (),
) -> list[Path]:
    """Export the deterministic policy of a run directory, or of an agent, to a folder.

    A run directory is not trusted: nothing in it is executed, and weights are loaded with ``weights_only=True``.

    Args:
        source: a run directory of one of :data:`ALGORITHMS`; or an agent, whose current policy is exported.
        out: the folder. ``policy.pt2`` is a ``torch.export`` program from raw observations [N, ...] to actions, the
            network's outputs (logits, the mean of the Gaussian, or Q-values), and V(s) or None. Dict and Tuple
            observations are dicts and tuples of tensors, and an ``action_mask`` of the info dictionaries is an input
            of its own. ``policy.json`` describes the spaces and the normalization, ``README.md`` how to load the
            program.
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
    if isinstance(source, Agent):
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
    start: Tensor

    def __init__(self, network: ActorCritic | QNetwork, space: gymnasium.Space, first_action: int = 0) -> None:
        super().__init__()
        self.network, self.first, self.packed = network, first_action, space if isinstance(space, PackedBox) else None
        distribution = network.distribution if isinstance(network, ActorCritic) else None
        if isinstance(distribution, DiagonalGaussian):
            box = distribution.scaling
            self.shape, self.dtype = box.shape, getattr(torch, str(box.dtype))
            bounds = {"low": box.low, "high": box.high, "middle": box.middle, "radius": box.half}
            for name, bound in bounds.items():
                self.register_buffer(name, torch.tensor(bound, dtype=torch.float64))
        elif isinstance(distribution, (MultiCategorical, Bernoulli)):
            self.shape, self.dtype = distribution.shape, getattr(torch, str(distribution.dtype))
            start = getattr(distribution, "start", np.zeros(self.shape, np.int64))
            self.register_buffer("start", torch.from_numpy(np.array(start, np.int64)))

    def forward(self, observations: Any, action_mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute actions, scores and values.

        Args:
            observations: [N, ...], in the form of the environment's space: a tensor, or a dict or tuple of tensors.
            action_mask: [N, actions], if the environment has it in its info dictionaries.
        """
        network = self.network
        given: Any = observations if self.packed is None else self.packed.by_key(observations, action_mask)
        if isinstance(network, QNetwork):
            q = network.q(network(given), given)
            return q.argmax(-1) + self.first, q, None
        outputs, values = network(given)
        distribution = network.distribution
        if isinstance(distribution, Categorical):
            return outputs.argmax(-1) + distribution.start, outputs, values
        if isinstance(distribution, (MultiCategorical, Bernoulli)):
            modes = distribution.mode(outputs).long().reshape(-1, *self.shape)
            return (modes + self.start).to(self.dtype), outputs, values
        actions = outputs.unflatten(1, self.shape) if self.shape else outputs.squeeze(1)
        actions = (actions * self.radius + self.middle).clamp(self.low, self.high)
        return actions.to(self.dtype), outputs, values


def policy_program(agent: Agent) -> PolicyProgram:
    """Return the policy of an agent as a module with copies of its weights, on the CPU, in evaluation mode.

    Raises:
        UserError: the agent is not of one of :data:`ALGORITHMS`, or its network has parts for each of several agents or
            tasks.
    """
    if agent.algorithm not in ALGORITHMS:
        raise UserError(
            f"export: a policy of {agent.algorithm} cannot be exported; export takes {', '.join(ALGORITHMS)}"
        )
    owner: Any = agent
    network = owner.network if hasattr(owner, "network") else owner.online
    if type(network) not in (ActorCritic, QNetwork):
        raise UserError("export: networks with central_critic, separate or popart cannot be exported")
    first = getattr(agent, "_first", 0)
    program = PolicyProgram(copy.deepcopy(network), agent.spaces[0], first).cpu().eval().requires_grad_(False)
    for parameter in program.parameters():
        parameter.data = parameter.data.clone()  # not a view of the vector of all parameters
    return program


def _export(agent: Agent, out: Path) -> list[Path]:
    program = policy_program(agent)
    seen, inputs = examples(agent)
    content = io.BytesIO()
    batch = torch.export.Dim("batch", min=1)
    shapes = tree_map(lambda _: {0: batch}, inputs)
    with backend("reference"):  # PyTorch's operations only
        torch.export.save(torch.export.export(program, inputs, dynamic_shapes=shapes), content)
    content.seek(0)
    check_program(torch.export.load(content).module(), program, inputs)
    check_actions(agent, program, seen, program(*inputs))
    quality = isinstance(program.network, QNetwork)
    scores = "Q-values" if quality else SCORES[type(program.network.distribution)]
    if masked_space(agent.spaces[0]) is not None:
        scores += ", −∞ for actions that the mask excludes"
    named = isinstance(agent.spaces[0], PackedBox)
    text = README.format(
        algorithm=agent.algorithm,
        version=__version__,
        call=", ".join(("observations", MASK)[: len(inputs)]) if named else "torch.from_numpy(observations)",
        inputs=NAMED.format(rows="\n".join(_rows(inputs))) if named else RAW,
        scores=scores,
        values="None" if quality else "the estimated values V(s), [N]",
    )
    facts = json.dumps(description(agent, program), indent=1, allow_nan=False) + "\n"
    files = {"policy.pt2": content.getvalue(), "policy.json": facts.encode(), "README.md": text.encode()}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files]


def _rows(inputs: Any, name: str = "") -> Iterator[str]:
    """Yield a line for each tensor of the inputs: how to name it, its dtype and its shape."""
    if isinstance(inputs, Tensor):
        shape = ", ".join(["N", *map(str, inputs.shape[1:])])
        yield f"- `{name}`: {str(inputs.dtype).removeprefix('torch.')} [{shape}]"
    elif not name:
        for part, of in zip(inputs, ("observations", MASK), strict=False):
            yield from _rows(part, of)
    else:
        for key, part in inputs.items() if isinstance(inputs, dict) else enumerate(inputs):
            yield from _rows(part, f"{name}[{key!r}]")


def description(agent: Agent, program: PolicyProgram) -> dict[str, Any]:
    """Return the content of ``policy.json``: algorithm, environment, spaces and normalization, as plain values."""
    body: Any = program.network.body
    packed, norm = agent.spaces[0], body.norm
    if isinstance(packed, PackedBox):
        norm = norm.norm  # of all vectors side by side, with Discrete numbers as one-hot vectors
    normalization: dict[str, Any] | None = None
    if norm is not None:
        std = 1 / norm.scale
        normalization = {"mean": norm.shift.tolist(), "std": std.tolist(), "clip": norm.clip}
    elif body.scale != 1:
        normalization = {"factor": body.scale}
    several = isinstance(packed, PackedBox) and isinstance(
        packed.space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple)
    )
    observations = described(packed if several else raw_space(agent))
    mask = {MASK: list(packed.actions)} if isinstance(packed, PackedBox) and packed.actions else {}
    return {
        "automl_ext": __version__,
        "algorithm": agent.algorithm,
        "environment": agent.config.env_id,
        "observations": observations,
        **mask,
        "actions": described(agent.spaces[1]),
        "normalization": normalization,
    }


def described(space: gymnasium.Space) -> dict[str, Any]:
    """Describe a space; a bound is one number if it is the same everywhere, else a nested list.

    Packed observations are described by the names of their parts.
    """
    if isinstance(space, PackedBox):
        return {part.name: described(part.space) for part in space.parts}
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return {"nvec": space.nvec.tolist(), "start": space.start.tolist(), "dtype": str(space.dtype)}
    form = {"shape": list(space.shape or ()), "dtype": str(space.dtype)}
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return form
    bounds = {}
    for name in ("low", "high"):
        bound = np.asarray(getattr(space, name))
        bound = bound.flat[0] if (bound == bound.flat[0]).all() else bound
        bounds[name] = strict(np.asarray(bound).tolist())
    return form | bounds


def strict(value: Any) -> Any:
    """Write infinite numbers in a nested list as strings, which strict JSON can hold."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def raw_space(agent: Agent) -> gymnasium.Space:
    """Return the space of the environment's observations; for a loaded agent, the space of the agent's observations."""
    envs: Any = getattr(agent, "learner", agent).envs if agent.algorithm == "a3c" else agent.envs
    seen: Any = agent.spaces[0]
    return envs.vector.single_observation_space if hasattr(envs, "vector") else getattr(seen, "space", seen)


def examples(agent: Agent) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return random observations [CHECKED, ...] as the agent sees them, and the inputs of the program."""
    space, rng = agent.spaces[0], np.random.default_rng(0)
    if not isinstance(space, PackedBox):
        x = _drawn(raw_space(agent), rng)
        return x.astype(np.float32) if x.dtype.kind == "f" else x, (torch.from_numpy(x),)
    parts = dict(named_parts(space.space))
    arrays = {name: _drawn(part, rng) for name, part in parts.items()}
    mask = None
    if space.actions:
        mask = rng.random((CHECKED, sum(space.actions))) < 0.5
        mask[:, np.cumsum((0, *space.actions[:-1]))] = True  # the first value of each action
        if has_mask(space.space):
            arrays[MASK], mask = mask.astype(parts[MASK].dtype), None
    observations = _structured(space.space, iter(arrays.values()))
    inputs = (observations,) if mask is None else (observations, mask)
    return space.pack(observations, CHECKED, mask), tree_map(torch.from_numpy, inputs)


def _drawn(space: Any, rng: np.random.Generator) -> np.ndarray:
    """Return random observations [CHECKED, ...] of a space, in its dtype."""
    shape, dtype = (CHECKED, *space.shape), np.dtype(space.dtype)
    if isinstance(space, (gymnasium.spaces.Discrete, gymnasium.spaces.MultiDiscrete)):
        sizes = space.n if isinstance(space, gymnasium.spaces.Discrete) else space.nvec
        return (space.start + rng.integers(sizes, size=shape)).astype(dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    binary = dtype.kind == "b" or isinstance(space, gymnasium.spaces.MultiBinary)
    return rng.integers(2 if binary else 100, size=shape).astype(dtype)


def _structured(space: gymnasium.Space, arrays: Iterator[np.ndarray]) -> Any:
    """Return arrays, in the order of :func:`named_parts`, in the form of a space."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {key: _structured(part, arrays) for key, part in space.spaces.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(_structured(part, arrays) for part in space.spaces)
    return next(arrays)


def check_actions(
    agent: Agent, program: PolicyProgram, seen: np.ndarray, outputs: tuple[Tensor, Tensor, Tensor | None]
) -> None:
    """Check that a program chooses the agent's actions. If two actions are equally good, either may be chosen.

    Raises:
        RuntimeError: an action differs.
    """
    found, (actions, scores, _) = torch.from_numpy(np.asarray(agent.act(seen))), outputs
    distribution: Any = getattr(program.network, "distribution", None)
    if actions.is_floating_point():
        same = torch.allclose(actions, found, rtol=1e-3, atol=1e-3)
    elif isinstance(distribution, Bernoulli):
        same = bool(((actions == found).flatten(1) | (scores.abs() < 1e-3)).all())
    else:
        multiple = isinstance(distribution, MultiCategorical)
        rows = distribution.rows(scores) if multiple else scores.unsqueeze(1)
        first = program.start if multiple else (actions - scores.argmax(-1))[0]
        chosen = (found - first).long().reshape(len(rows), -1, 1)
        best, other = rows.max(-1).values, rows.gather(2, chosen).squeeze(2)
        same = torch.allclose(best, other, rtol=1e-3, atol=1e-3)
    if not same:
        raise RuntimeError("export: the exported program chooses other actions than the agent")


def check_program(loaded: Any, program: PolicyProgram, inputs: tuple[Any, ...]) -> None:
    """Check that a loaded program gives the outputs of the module, for all observations and for the first one.

    Raises:
        RuntimeError: they differ.
    """
    for some in (inputs, tree_map(lambda x: x[:1], inputs)):
        for found, wanted in zip(loaded(*some)[1:], program(*some)[1:], strict=True):
            if wanted is not None and not torch.allclose(found, wanted, rtol=1e-4, atol=1e-4):
                raise RuntimeError("export: the outputs of the loaded program differ from those of the policy")
