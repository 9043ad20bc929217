"""A comparison of a real episode with the episode that Dreamer's world model imagines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from automl_ext.rl.dreamer import Dreamer
from automl_ext.rl.dreamer.world_model import Normal
from automl_ext.rl.envs.vector import Envs
from automl_ext.rl.loop.train_config import envs_of
from automl_ext.rl.reports.evaluate_run import agent_of, load_best
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.pictures.colors import BLACK, GRAY, PURPLE
from automl_ext.training.pictures.curves import add_title, figure, plain
from automl_ext.training.seeding import derived_seed

SHOWN = 6  # plotted dimensions of an observation


def draw_run(run: Path, trust: Iterable[str] = ()) -> Path:
    """Draw an episode of a run's best policy into ``imagined.png`` in the run, and return the file.

    Args:
        run: the run directory.
        trust: see :func:`~automl_ext.rl.reports.evaluate_run.agent_of`.

    Raises:
        UserError: not an evaluated run of Dreamer, or a damaged file.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    config, agent = agent_of(run, trust)
    try:
        load_best(run, agent)
        found = dream(agent, envs_of(config, 1, derived_seed(config.seed, 3)))
        draw_dream(found, run / "imagined.png", config.env_id)
    finally:
        agent.envs.close()
    return run / "imagined.png"


class Dream(NamedTuple):
    """A real episode and its imagination.

    Attributes:
        context: number of observations that the model sees. From then on it sees only the actions.
        real, imagined: observations, [T, ...]: normalized vectors, or images in [−½, ½].
        real_rewards, imagined_rewards: scaled rewards, [T]. The first one is a placeholder.
    """

    context: int
    real: np.ndarray
    imagined: np.ndarray
    real_rewards: np.ndarray
    imagined_rewards: np.ndarray


def dream(agent: Dreamer, envs: Envs, context: int = 5, steps: int = 50) -> Dream:
    """Play an episode of at most ``steps`` and imagine its continuation, with the same actions.

    The model sees the first ``context`` observations, at least 1. All states are means of their distributions. ``envs``
    is one new environment; it is closed afterwards.
    """
    observations, actions, rewards = [envs.observations[0]], [np.zeros(agent.actions.size, np.float32)], [0.0]
    try:
        ended = False
        while not ended and len(observations) <= steps:
            agent.begin(envs.starting)
            step = envs.step(agent.act(envs.observations))
            observations.append(step.next_observations[0])
            actions.append(agent.eval_state.action[0].numpy(force=True))
            rewards.append(float(step.rewards[0]) * agent.config.reward_scale)
            ended = bool(step.terminated[0] or step.truncated[0])
    finally:
        envs.close()
    context = min(context, len(observations))
    model = agent.model
    rssm, device = model.rssm, agent.device
    with torch.inference_mode():
        real = model.prepare(torch.from_numpy(np.stack(observations)).to(device))
        embeddings = model.encode(real)
        taken = torch.from_numpy(np.stack(actions)).to(device)
        deter, stoch = rssm.initial(1)
        features = []
        for t in range(len(observations)):
            deter = rssm.step(deter, stoch, taken[t : t + 1])
            known: Normal = rssm.posterior(deter, embeddings[t : t + 1]) if t < context else rssm.prior(deter)
            stoch = known.mean
            features.append(torch.cat([deter, stoch], -1))
        seen = torch.cat(features)
        imagined, imagined_rewards = model.shown(model.decode(seen)), model.reward(seen).squeeze(-1)
        real = model.shown(real)
    return Dream(
        context,
        real.numpy(force=True),
        imagined.numpy(force=True),
        np.array(rewards),
        imagined_rewards.numpy(force=True),
    )


def draw_dream(found: Dream, path: Path, env_id: str = "") -> None:
    """Draw curves of the observation's first dimensions and of the reward, or a strip of images.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    images = found.real.ndim == 4
    picture = _strip(found) if images else _curves(found)
    place = f" on {env_id}" if env_id else ""
    seen = f"the model sees {found.context} observations, then only the actions"
    add_title(picture, f"Dreamer{place}, an episode and its imagination: {seen}", 10)
    write_picture(picture, path, dpi=120)


def _curves(found: Dream) -> Any:
    panels = {f"observation {i}": (found.real[:, i], found.imagined[:, i]) for i in range(found.real.shape[1])}
    panels = {name: pair for name, pair in panels.items() if np.ptp(pair[0]) > 0 or np.ptp(pair[1]) > 0}
    panels = dict(list(panels.items())[:SHOWN]) | {"reward": (found.real_rewards, found.imagined_rewards)}
    picture = figure(7.5, 1.4 * len(panels) + 0.7)
    for i, (name, (real, imagined)) in enumerate(panels.items()):
        axes = picture.add_subplot(len(panels), 1, i + 1)
        first = int(name == "reward")  # the first reward is a placeholder
        axes.plot(np.arange(first, len(real)), real[first:], color=BLACK, label="real")
        axes.plot(np.arange(first, len(real)), imagined[first:], color=PURPLE, label="model")
        axes.axvspan(-0.5, found.context - 0.5, color=GRAY, alpha=0.15, linewidth=0, label="observations seen")
        axes.set_xlim(-0.5, len(real) - 0.5)
        axes.set_ylabel(plain(name), fontsize=9)
        axes.tick_params(labelsize=8, labelbottom=i == len(panels) - 1)
        axes.grid(alpha=0.3)
        if i == 0:
            axes.legend(fontsize=8, loc="lower right", ncols=3, bbox_to_anchor=(1, 1), frameon=False)
    axes.set_xlabel("step of the episode", fontsize=9)
    return picture


def _shown(image: np.ndarray) -> np.ndarray:
    """Return the part of an image [H, W, channels] to draw: three channels in [0, 1], or the first one as gray."""
    channels = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, axis=-1)
    return np.clip(channels + 0.5, 0, 1)


def _strip(found: Dream) -> Any:
    shown = np.unique(np.linspace(0, len(found.real) - 1, 10).round().astype(int))
    picture = figure(max(1.1 * len(shown), 5.0), 2.9)
    for row, (name, images) in enumerate((("real", found.real), ("model", found.imagined))):
        for column, t in enumerate(shown):
            axes = picture.add_subplot(2, len(shown), row * len(shown) + column + 1)
            axes.imshow(_shown(images[t]))
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(name, fontsize=10)
            if row == 0:
                step = f"step {t}" if column == 0 else str(t)
                axes.set_title(f"{step}\nseen" if t < found.context else f"{t}\n", fontsize=9)
    return picture
