"""The ablation of Rainbow (Hessel et al. 2018, figure 3): Rainbow without one part at a time, Rainbow and DQN."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from automl_ext.rl.algorithms.dqn import DQN, DQNConfig
from automl_ext.rl.loop import loop
from automl_ext.training.files.atomic import write_json, write_picture
from automl_ext.training.files.reading import read_object
from automl_ext.training.pictures.colors import distinct_colors
from automl_ext.training.pictures.curves import add_title, figure, plain, read_metrics, set_axes
from automl_ext.training.pictures.titles import algorithm_name

PARTS: dict[str, Any] = {  # option of each part: its value without the part
    "double": False,
    "dueling": False,
    "prioritized": False,
    "n_step": 1,
    "distributional": False,
    "noisy": False,
}


def variants(config: DQNConfig, n_step: int = 3) -> dict[str, DQNConfig]:
    """Return the configuration of each variant: "rainbow", "no-PART" and "dqn".

    Args:
        config: all settings except the parts.
        n_step: number of steps of multi-step targets, if ``config.n_step`` is 1.
    """
    rainbow: dict[str, Any] = {part: True for part in PARTS} | {
        "n_step": config.n_step if config.n_step > 1 else n_step
    }
    runs: dict[str, dict[str, Any]] = {"rainbow": rainbow}
    runs |= {f"no-{part.replace('_', '-')}": rainbow | {part: off} for part, off in PARTS.items()}
    runs |= {"dqn": dict(PARTS)}
    return {name: dataclasses.replace(config, **switches) for name, switches in runs.items()}


def ablate(
    config: DQNConfig, out: str | Path, seeds: Sequence[int] | None = None, resume: str | None = None
) -> dict[str, Any]:
    """Train every variant with every seed, one after the other, and plot the learning curves to ``out/ablation.png``.

    Args:
        config: all settings except the parts.
        out: parent of the run directories ``out/VARIANT/seed-N``. A run that has a result is skipped.
        seeds: None: the configuration's seed.
        resume: "auto": resume interrupted runs.

    Returns:
        The results of each variant's seeds by name of the variant, as in ``out/ablation.json``.

    Raises:
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    out = Path(out)
    results: dict[str, Any] = {}
    for name, settings in variants(config).items():
        results[name] = []
        for seed in seeds or [config.seed]:
            run = out / name / f"seed-{seed}"
            if (run / "result.json").is_file():
                results[name].append(read_object(run / "result.json"))
                continue
            results[name].append(loop.train(DQN, dataclasses.replace(settings, seed=seed), run, resume))
    write_json(out / "ablation.json", results)
    draw(out, list(results), config.env_id)
    return results


def draw(out: Path, names: Sequence[str], env_id: str = "") -> Path:
    """Plot the median evaluation return over seeds against steps, one curve per variant; return the file."""
    picture = figure(7.5, 4.4)
    axes = picture.add_subplot()
    seeds = 0
    for name, color in zip(names, distinct_colors(names), strict=True):
        returns: dict[int, list[float]] = {}
        folders = sorted(path.parent for path in (out / name).glob("seed-*/metrics.jsonl"))
        seeds = max(seeds, len(folders))
        for folder in folders:
            for line in read_metrics(folder):
                if line.get("eval_return") is not None:
                    returns.setdefault(line["step"], []).append(line["eval_return"])
        steps = sorted(returns)
        medians = [median(returns[step]) for step in steps]
        whole = name in ("rainbow", "dqn")
        label = f"{algorithm_name(name) if whole else name.replace('no-', 'without ')}: {max(medians):.4g}"
        style = {"linewidth": 2.5, "zorder": 3} if whole else {"linewidth": 1.4, "linestyle": "--"}
        axes.plot(steps, medians, color=color, label=plain(label), **style)
    set_axes(axes, "environment steps", "return of evaluation episodes")
    axes.legend(fontsize=8, title="highest value", title_fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    shown = f"median of {seeds} seeds" if seeds > 1 else "one seed"
    add_title(picture, f"Rainbow without one part at a time, {env_id or 'one environment'}: {shown}")
    write_picture(picture, out / "ablation.png", dpi=130)
    return out / "ablation.png"
