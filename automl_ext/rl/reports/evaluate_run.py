"""Evaluation of a trained policy: ``automl-ext eval RUN``."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from automl_ext.rl.envs.callables import check_known
from automl_ext.rl.extras import Extras
from automl_ext.rl.loop.agent import Agent
from automl_ext.rl.loop.evaluate import by_group, play_policy
from automl_ext.rl.loop.loop import BEST
from automl_ext.rl.loop.train_config import Env, envs_of, with_env
from automl_ext.rl.registry import ALGORITHMS, algorithm, is_agent_run
from automl_ext.rl.reports.video import LONGEST, Film, check_writer, record, write_video
from automl_ext.training.config import to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.files.atomic import check_writable
from automl_ext.training.files.reading import short
from automl_ext.training.files.weights import check_fit, read_tensors
from automl_ext.training.run import CHECKPOINTS, CONFIG, algorithm_of, read_config
from automl_ext.training.seeding import derived_seed
from automl_ext.training.user_code import check_trusted, own_names


def evaluate_run(
    run: Path,
    episodes: int = 30,
    seed: int = 0,
    policy: str = "best",
    videos: tuple[Path, ...] = (),
    max_steps: int | None = None,
    trust: Iterable[str] = (),
) -> dict[str, Any]:
    """Evaluate the policy of a run on whole episodes, as its evaluations during training did.

    Args:
        run: a run directory of one of :data:`automl_ext.rl.registry.ALGORITHMS`.
        episodes: number of episodes.
        seed: seed of the environments; the episodes differ from the training episodes.
        policy: "best", the best policy of the run; or "last", the policy of the newest intact checkpoint.
        videos: files ``….gif`` or ``….mp4`` to which one more episode is written.
        max_steps: longer episodes are truncated and counted as ``episodes_cut``. None: the run's ``eval_max_steps``.
        trust: see :func:`agent_of`.

    Returns:
        Mean, standard deviation, minimum and maximum of the returns, and the settings of the evaluation.

    Raises:
        UserError: the run or the policy does not exist, a file is damaged, or the environment cannot be rendered.
        ModuleNotFoundError: a package for the video is missing; the message names the extra.
    """
    if episodes < 1:
        raise UserError(f"--episodes: expected at least 1, got {episodes}")
    if max_steps is not None and max_steps < 1:
        raise UserError(f"--eval-max-steps: expected at least 1, got {max_steps}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: expected an int in [0, 2**32), got {seed}")
    for path in videos:
        check_writer(path)
    config, agent = agent_of(run, trust)
    try:
        for path in videos:
            check_writable(path)
        step = load_policy(run, agent, policy)
        if max_steps is not None:
            config = dataclasses.replace(config, eval_max_steps=max_steps)
        limit = min(config.eval_max_steps, LONGEST)
        film = _film(config, agent, seed, limit) if videos else None  # first, since rendering may fail
        (returns, cut), names = play_policy(agent, config, episodes, derived_seed(seed, 1))
        result = {
            "eval_return_mean": float(returns.mean()),
            "eval_return_std": float(returns.std()),
            "eval_return_min": float(returns.min()),
            "eval_return_max": float(returns.max()),
            "episodes": episodes,
            "episodes_cut": cut,
            "policy": policy,
            "policy_step": step,
            **by_group(returns, names),
        }
        if film is not None:
            for path in videos:
                write_video(path, film.frames, film.fps)
            result |= {"video_return": film.episode_return, "video_steps": len(film.frames), "video_cut": film.cut}
        return result
    finally:
        agent.envs.close()


def _film(config: Any, agent: Agent, seed: int, max_steps: int) -> Film:
    """Record one episode."""
    if not config.env_id.startswith("ALE/"):  # Atari has no other vectorization
        config = dataclasses.replace(config, env=dataclasses.replace(config.env, vectorization="sync"))
    envs = envs_of(config, 1, derived_seed(seed, 2), render=True)
    return record(agent.evaluation_actions, envs, agent.begin, max_steps)


def agent_of(run: Path, trust: Iterable[str] = (), env: Env | None = None) -> tuple[Any, Any]:
    """Return the configuration of a run, and an untrained agent with this configuration.

    Args:
        run: a run directory, perhaps written by somebody else.
        trust: Python modules that its configuration may name (``env_id``, ``wrapper``, ``potential``). They are
            imported.
        env: replaces the environment of the configuration. None: do not replace it.

    Raises:
        UserError: the directory is not a run of an RL algorithm, the configuration is invalid or names a module that is
            not in ``trust``, or the environment was made by a callable of another process.
    """
    name = algorithm_of(run)
    if not run.exists():
        raise UserError(f"{run}: expected a run directory, it does not exist")
    if name is None or not is_agent_run(run):
        what = "a folder that is not a run directory"
        if name is not None:
            what = f"a run of search {name}" if name in ALGORITHMS else f"a run of {name!r}"
        if (run / "seeds.json").is_file():
            what = f"the folder of one run per seed, {run}/seed-*"
        raise UserError(f"{run}: expected a run of {', '.join(ALGORITHMS)}; this is {what}")
    found = algorithm(name)
    config = read_config(run, found.config(extras=Extras()))
    config, envs = with_env(config, env)
    if envs is None:
        check_known(config.env_id, str(run))
    check_trusted(own_names(to_dict(config)), trust, run / CONFIG)
    if config.device != "cpu":
        config = dataclasses.replace(config, device="auto")  # this machine may have no GPU
    try:
        return config, found.agent(config) if envs is None else found.agent(config, envs)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise UserError(f"{run / CONFIG}: cannot make an agent: {short(error)}") from None


def load_policy(run: Path, agent: Agent, policy: str) -> int:
    """Load the policy "best" or "last" of a run into its agent; return its step. See the functions below for errors."""
    return load_best(run, agent) if policy == "best" else load_last(run, agent)


def load_best(run: Path, agent: Agent) -> int:
    """Load the best policy of a run into its agent. Return the step at which it was evaluated.

    Raises:
        UserError: ``best.pt`` is missing, damaged or belongs to another agent.
    """
    path = run / BEST
    if not path.exists():
        raise UserError(f"{path} is missing: the run has not been evaluated yet; try --policy last")
    best = read_tensors(path)
    try:
        if not isinstance(best, dict) or type(best.get("step")) is not int:
            raise ValueError("expected a dict with step and policy")
        check_fit(best.get("policy"), agent.policy_state(), "policy")
        agent.load_policy_state(best["policy"])
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not fit the agent of {run}: {short(error)}") from None
    return best["step"]


def load_last(run: Path, agent: Agent) -> int:
    """Load the newest intact checkpoint into an agent. Return its step."""
    for path in reversed(checkpoint.list_steps(run / CHECKPOINTS)):
        try:
            manifest = checkpoint.read_manifest(path)
            state = checkpoint.read_state(path, manifest)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about training environments that start new episodes
                checkpoint.load_into(lambda state: agent.load_state_dict(state["agent"]), state)
            check_fit(agent.policy_state(), agent.policy_state(), "policy")  # finite
            return manifest["step"]
        except (checkpoint.DamagedCheckpoint, ValueError) as error:
            warnings.warn(f"skipping the damaged checkpoint {path}: {error}", stacklevel=2)
    raise UserError(f"{run / CHECKPOINTS}: no intact checkpoint found")
