"""A trained policy, played again: ``automl-ext eval RUN``."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from automl_ext.rl.loop.evaluate import play
from automl_ext.rl.loop.loop import BEST, envs_of
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.rl.reports.video import LONGEST, Film, check_writer, record, write_video
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.files.atomic import check_writable
from automl_ext.training.files.reading import short
from automl_ext.training.files.weights import check_fit, read_tensors
from automl_ext.training.run import CHECKPOINTS, CONFIG, algorithm_of, read_config
from automl_ext.training.seeding import derived_seed


def evaluate_run(
    run: Path,
    episodes: int = 30,
    seed: int = 0,
    policy: str = "best",
    videos: tuple[Path, ...] = (),
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Play whole episodes with the deterministic policy of a run.

    Args:
        run: a run directory of one of :data:`automl_ext.rl.registry.ALGORITHMS`.
        episodes: how many.
        seed: which; other ones than in training.
        policy: "best", by the evaluations in training, or "last", of the newest intact checkpoint.
        videos: files ``….gif`` or ``….mp4`` of one more episode.
        max_steps: longer episodes are cut, and counted as ``episodes_cut``; None: the run's ``eval_max_steps``.

    Raises:
        UserError: no such run or policy, damaged files, or an environment that cannot be shown.
        ModuleNotFoundError: what writes the video is missing; names the extra.
    """
    if episodes < 1:
        raise UserError(f"--episodes: expected at least 1, got {episodes}")
    if max_steps is not None and max_steps < 1:
        raise UserError(f"--eval-max-steps: expected at least 1, got {max_steps}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed: expected an int in [0, 2**32), got {seed}")
    for path in videos:
        check_writer(path)
    config, agent = agent_of(run)
    try:
        for path in videos:
            check_writable(path)
        step = load_best(run, agent) if policy == "best" else _load_last(run, agent)
        begin = getattr(agent, "begin", None)
        limit = config.eval_max_steps if max_steps is None else max_steps
        film = _film(config, agent, seed, min(limit, LONGEST)) if videos else None  # first: it may be impossible
        returns, cut = play(agent.act, envs_of(config, episodes, derived_seed(seed, 1)), begin, limit)
        result = {
            "eval_return_mean": float(returns.mean()),
            "eval_return_std": float(returns.std()),
            "eval_return_min": float(returns.min()),
            "eval_return_max": float(returns.max()),
            "episodes": episodes,
            "episodes_cut": cut,
            "policy": policy,
            "policy_step": step,
        }
        if film is not None:
            for path in videos:
                write_video(path, film.frames, film.fps)
            result |= {"video_return": film.episode_return, "video_steps": len(film.frames), "video_cut": film.cut}
        return result
    finally:
        agent.envs.close()


def _film(config: Any, agent: Any, seed: int, max_steps: int) -> Film:
    if not config.env_id.startswith("ALE/"):  # which has no other vectorization
        config = dataclasses.replace(config, env=dataclasses.replace(config.env, vectorization="sync"))
    envs = envs_of(config, 1, derived_seed(seed, 2), render=True)
    return record(agent.act, envs, getattr(agent, "begin", None), max_steps)


def agent_of(run: Path) -> tuple[Any, Any]:
    """The configuration of a run, and an untrained agent made of it."""
    name = algorithm_of(run)
    if name not in ALGORITHMS:
        what = f"a run of {name!r}" if name else "no run directory"
        raise UserError(f"{run}: expected a run of {', '.join(ALGORITHMS)}; this is {what}")
    found = algorithm(name)
    config = read_config(run, found.config())
    if config.device != "cpu":
        config = dataclasses.replace(config, device="auto")  # the GPU may be elsewhere
    try:
        return config, found.agent(config)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise UserError(f"{run / CONFIG}: no agent can be made of it: {short(error)}") from None


def load_best(run: Path, agent: Any) -> int:
    """Load the best policy of a run into its agent; returns the step at which it was evaluated.

    Raises:
        UserError: ``best.pt`` is missing, damaged, or of another agent.
    """
    path = run / BEST
    if not path.exists():
        raise UserError(f"{path} is missing: nothing has been evaluated yet; see --policy last")
    best = read_tensors(path)
    try:
        if not isinstance(best, dict) or type(best.get("step")) is not int:
            raise ValueError("expected a dict with step and policy")
        check_fit(best.get("policy"), agent.policy_state(), "policy")
        agent.load_policy_state(best["policy"])
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not fit the agent of {run}: {short(error)}") from None
    return best["step"]


def _load_last(run: Path, agent: Any) -> int:
    for path in reversed(checkpoint.list_steps(run / CHECKPOINTS)):
        try:
            manifest = checkpoint.read_manifest(path)
            state = checkpoint.read_state(path, manifest)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that training's environments begin new episodes
                checkpoint.load_into(lambda state: agent.load_state_dict(state["agent"]), state)
            return manifest["step"]
        except checkpoint.DamagedCheckpoint as error:
            warnings.warn(f"skipping the damaged checkpoint {path}: {error}", stacklevel=2)
    raise UserError(f"{run / CHECKPOINTS}: there is no intact checkpoint")
