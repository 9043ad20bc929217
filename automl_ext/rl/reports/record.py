"""Recording of episodes of a trained policy: ``automl-ext record RUN``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from automl_ext.rl.envs.packed import check_not_packed
from automl_ext.rl.envs.vector import Envs, Step
from automl_ext.rl.loop.evaluate import Act, Begin
from automl_ext.rl.loop.train_config import envs_of
from automl_ext.rl.replay.episode_files import write_episodes
from automl_ext.rl.replay.episodes import RecordedEpisode
from automl_ext.rl.reports.evaluate_run import agent_of, load_policy
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import check_writable
from automl_ext.training.seeding import derived_seed

AT_ONCE = 32  # environments that are stepped together


@dataclass
class RecordCommand:
    """The options of ``automl-ext record``."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run directory of a training (command train)."""
    out: Path
    """File to write, NAME.npz."""
    episodes: int = 10  # Number of whole episodes, of each agent or task.
    epsilon: float = 0.0  # Probability of a random action in each step. 1: a random policy.
    seed: int = 0  # Seed of the episodes and of the random actions.
    policy: Literal["best", "last"] = "best"
    """"best": the policy with the best evaluation in training. "last": the policy of the newest checkpoint."""
    trust: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Python module that the run's configuration may name (env_id, wrapper, a potential); it is imported. May be
    repeated."""
    json: bool = False  # Print the result as JSON, and nothing else, on standard output.


def record_run(options: RecordCommand) -> dict[str, Any]:
    """Record episodes of a run's deterministic policy in its environment.

    Returns:
        The number of episodes and steps, and mean and standard deviation of the returns.

    Raises:
        UserError: an option out of range; the run or the policy does not exist, or a file is damaged.
    """
    out, seed = options.out, options.seed
    if options.episodes < 1:
        raise UserError(f"--episodes: expected at least 1, got {options.episodes}")
    if not 0 <= options.epsilon <= 1:
        raise UserError(f"--epsilon: expected a number in [0, 1], got {options.epsilon}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: expected an int in [0, 2**32), got {seed}")
    if out.suffix != ".npz":
        raise UserError(f"--out: expected a file NAME.npz, got {out}")
    if out.exists():
        raise UserError(f"--out: {out} exists: choose another file, or delete it")
    config, agent = agent_of(options.run, options.trust)
    try:
        if 0 < options.epsilon < 1 and agent.algorithm == "dreamer":  # its state holds its own last action
            raise UserError(f"--epsilon: expected 0 or 1 for dreamer, got {options.epsilon}")
        check_not_packed(agent.spaces[0], "record")
        if options.epsilon < 1:  # a random policy needs no trained one
            load_policy(options.run, agent, options.policy)
        check_writable(out)
        recorded: list[RecordedEpisode] = []
        for played in range(0, options.episodes, AT_ONCE):
            envs = envs_of(config, min(AT_ONCE, options.episodes - played), derived_seed(seed, 1 + played))
            rng = np.random.default_rng(derived_seed(seed, 2 + played))
            recorded += record(agent.act, envs, agent.begin, options.epsilon, rng, config.eval_max_steps)
    finally:
        agent.envs.close()
    write_episodes(out, recorded, config.env_id)
    returns = np.array([episode.rewards.sum(dtype=np.float64) for episode in recorded])
    return {
        "episodes": len(recorded),
        "steps": sum(len(episode.actions) for episode in recorded),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
    }


def record(
    act: Act, envs: Envs, begin: Begin, epsilon: float, rng: np.random.Generator, max_steps: int
) -> list[RecordedEpisode]:
    """Record the first episode of every environment: as in an evaluation, short episodes are not preferred.

    Args:
        act: maps observations [B, ...] to actions [B, ...].
        envs: new environments without clipping of rewards; they are closed afterwards.
        begin: called before ``act`` with bool [B], True where an episode starts.
        epsilon: probability of a uniformly random action.
        rng: random generator of the random actions.
        max_steps: longer episodes are truncated.
    """
    envs.reward_clip, envs.terminal_on_life_loss = None, False  # the data hold the environment's own episodes
    space = envs.action_space
    space.seed(int(rng.integers(2**31)))
    steps: list[Step] = []
    lengths = np.zeros(envs.n_envs, np.int64)
    running = np.ones(envs.n_envs, bool)
    try:
        while running.any() and len(steps) < max_steps:
            begin(envs.starting)
            actions = np.array(act(envs.observations))
            for i in np.flatnonzero(rng.random(envs.n_envs) < epsilon):
                actions[i] = space.sample()
            steps.append(envs.step(actions))
            lengths += running
            running &= ~(steps[-1].terminated | steps[-1].truncated)
    finally:
        envs.close()
    return [_episode(steps[: lengths[i]], i) for i in range(envs.n_envs)]


def _episode(steps: list[Step], env: int) -> RecordedEpisode:
    names = "observations", "actions", "rewards", "terminated", "truncated"
    observations, actions, rewards, terminated, truncated = (
        np.array([getattr(step, name)[env] for step in steps]) for name in names
    )
    truncated[-1] |= not terminated[-1]  # at the limit of steps
    observations = np.concatenate([observations, steps[-1].next_observations[env][None]])
    return RecordedEpisode(observations, actions, rewards, terminated, truncated)
