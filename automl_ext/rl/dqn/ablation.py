"""Rainbow less one part at a time (Hessel et al. 2018, figure 3), beside Rainbow and DQN."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl_ext.rl.dqn import agent as dqn
from automl_ext.rl.dqn.config import DQNConfig
from automl_ext.training.curves import read_metrics
from automl_ext.training.files.atomic import write_json, write_picture
from automl_ext.training.files.reading import read_object

PARTS: dict[str, Any] = {  # each switch, and its value when the part is left out
    "double": False,
    "duelling": False,
    "prioritized": False,
    "n_step": 1,
    "distributional": False,
    "noisy": False,
}


def variants(config: DQNConfig, n_step: int = 3) -> dict[str, DQNConfig]:
    """Name to configuration: all else as in ``config``, the switches as the name says.

    ``n_step`` is Rainbow's, unless the configuration has one above 1.
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
    """Train every variant with every seed, one after the other, and draw their curves into ``out/ablation.png``.

    Args:
        config: all but the switches.
        out: each run is in ``out/VARIANT/seed-N``; one that has a result is not done again.
        seeds: None: the configuration's.
        resume: "auto" goes on with runs that were interrupted.

    Returns:
        variant → the results of its seeds, as in ``out/ablation.json``.

    Raises:
        ModuleNotFoundError: matplotlib is missing; names the extra.
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
            results[name].append(dqn.train(dataclasses.replace(settings, seed=seed), run, resume=resume))
    write_json(out / "ablation.json", results)
    draw(out, list(results))
    return results


def draw(out: Path, names: Sequence[str]) -> Path:
    """Mean evaluation returns over seeds against steps, a curve per variant."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise ModuleNotFoundError('drawing needs matplotlib: pip install "automl_ext[plot]"') from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for name in names:
        returns: dict[int, list[float]] = {}
        for path in sorted((out / name).glob("seed-*/metrics.jsonl")):
            for line in read_metrics(path.parent):
                if line.get("eval_return") is not None:
                    returns.setdefault(line["step"], []).append(line["eval_return"])
        steps = sorted(returns)
        style = {"linewidth": 2.5} if name in ("rainbow", "dqn") else {"linestyle": "--"}
        axes.plot(steps, [sum(returns[s]) / len(returns[s]) for s in steps], label=name, **style)
    axes.set_xlabel("steps")
    axes.set_ylabel("return in evaluation")
    axes.legend()
    figure.tight_layout()
    path = out / "ablation.png"
    write_picture(figure, path, dpi=150)
    plt.close(figure)
    return path
