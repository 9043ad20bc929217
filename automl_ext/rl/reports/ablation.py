"""The ablation of Rainbow (Hessel et al. 2018, figure 3): Rainbow, Rainbow without each of its six parts, and DQN."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl_ext.parallel.seeds import check_finished
from automl_ext.rl.algorithms.dqn import DQN, DQNConfig
from automl_ext.rl.loop import loop
from automl_ext.rl.reports.plot import curve_of, draw_groups
from automl_ext.training.files.atomic import write_json
from automl_ext.training.files.reading import read_object
from automl_ext.training.pictures.curves import read_metrics
from automl_ext.training.pictures.titles import algorithm_name

PARTS: dict[str, Any] = {  # option of each part: its value without the part
    "double": False,
    "dueling": False,
    "prioritized": False,
    "n_step": 1,
    "distributional": False,
    "noisy": False,
}


def variants(config: DQNConfig) -> dict[str, DQNConfig]:
    """Return the configuration of each variant: "rainbow", "no-PART" and "dqn".

    ``config`` has all settings except the parts. If its ``n_step`` is 1, multi-step targets have 3 steps.
    """
    rainbow: dict[str, Any] = {part: True for part in PARTS}
    rainbow["n_step"] = config.n_step if config.n_step > 1 else 3
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
        UserError: a finished run has another configuration.
        ModuleNotFoundError: matplotlib (extra ``plot``) is missing.
    """
    out = Path(out)
    results: dict[str, Any] = {}
    for name, settings in variants(config).items():
        results[name] = []
        for seed in seeds or [config.seed]:
            run, seeded = out / name / f"seed-{seed}", dataclasses.replace(settings, seed=seed)
            if (run / "result.json").is_file():
                check_finished(run, seeded, DQN.algorithm)
                results[name].append(read_object(run / "result.json"))
                continue
            results[name].append(loop.train(DQN, seeded, run, resume))
    write_json(out / "ablation.json", results)
    draw(out, list(results), config.env_id)
    return results


def draw(out: Path, names: Sequence[str], env_id: str) -> None:
    """Draw the evaluation returns of the variants over steps to ``out/ablation.png``."""
    groups = {}
    for name in names:
        runs = sorted(path.parent for path in (out / name).glob("seed-*/metrics.jsonl"))
        label = algorithm_name(name) if name in ("rainbow", "dqn") else name.replace("no-", "without ")
        groups[label] = [curve_of(run, read_metrics(run))[1]._replace(algorithm=name) for run in runs]
    draw_groups(env_id, groups, out / "ablation.png", "Rainbow without one part at a time")
