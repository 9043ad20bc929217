"""``automl-ext tune``: tunes a command that makes a run directory."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.search_space import Space, search_space, with_point
from automl_ext.tune.commands.flags import as_flags, as_toml
from automl_ext.tune.commands.objective import CommandObjective, TunedBy
from automl_ext.tune.commands.ranges import space_of
from automl_ext.tune.config import TuneConfig, check_installed
from automl_ext.tune.portfolio import portfolio
from automl_ext.tune.tuning import MOST_REPEATS, tune

BEST = "best.toml"
MOST_SEEDS = 100  # runs of a trial
LOSSES = {"loss", "error", "rmse", "mae"}  # words in the names of numbers whose small values are better
WITH_EXPERIENCE = ("default", "experience")  # samplers


@dataclass
class CommandTuneConfig(TuneConfig):
    """Options of the tuning of a command."""

    objective: str | None = None
    """Number to tune by: an entry of result.json, or else of metrics.jsonl. Default: the return of the last policy, the
    accuracy on validation data, or the score of the search."""
    trial_seeds: int = 1
    """Number of runs per trial, with the seeds --seed, --seed + 1, …: the objective is their mean. Trials are pruned by
    the first of them."""
    confirm: int = 2
    """Number of other seeds with which the three best trials and trial 0, the given settings, are run again; the best
    mean wins. 0: one seed decides. The runs are added to --trials and are part of --minutes."""
    ranges: Path | None = None
    """TOML file with other ranges: tables [OPTION] with low, high and log, or values; lists exclude or only."""
    portfolio: Path | None = None
    """Portfolio file for the samplers default and experience, made by automl-ext portfolio. Default: the package's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "trial_seeds", low=1, high=MOST_SEEDS)
        check_range(self, "confirm", low=0, high=MOST_REPEATS - 1)
        if self.portfolio is not None and self.sampler not in WITH_EXPERIENCE:
            raise ValueError(f"portfolio: expected the sampler default or experience with it, got {self.sampler}")


def tune_command(
    name: str,
    load: Callable[[], tuple[type, Callable[..., Any]]],
    metric: TunedBy,
    settings: Any,
    config: CommandTuneConfig,
    out: Path,
    resume: str | None = None,
    stop_after: int | None = None,
    again: str | None = None,
) -> dict[str, Any] | None:
    """Tune a command.

    Args:
        name: the command, for example "train ppo".
        load: imports and returns the configuration's class and the function; it is pickled.
        metric: the command's own metric.
        settings: the configuration of trial 0; options that are not searched keep these values.
        config: the options of the tuning.
        out, resume, stop_after: see :func:`automl_ext.tune.tuning.tune`.
        again: the command with which the best settings can be used; by default ``name``.

    Returns:
        The result of :func:`~automl_ext.tune.tuning.tune`, and ``metric`` and ``command_line`` of the best settings.
        None if it was interrupted.

    Raises:
        UserError: the metric, the ranges or the settings are wrong.
    """
    check_installed(config.sampler)
    if config.objective is not None:
        metric = TunedBy(config.objective, config.objective, metric.needs)
        if "test" in metric.name or metric.name.startswith(("class_accuracy", "confusion")):
            raise UserError(f"objective: expected a number from validation data, got {metric.name}: of the test data")
        if LOSSES & {*metric.name.split("_")} and "negative" not in metric.name and not config.minimize:
            raise UserError(f"--objective {metric.name} is a loss and needs --minimize")
    elif config.minimize:
        raise UserError(f"--minimize needs --objective with a loss: of {metric.name}, large values are better")
    space = space_of(settings, config.ranges)
    settings = with_point(settings, dict(metric.needs))
    # One seed for both, so that all trials differ in their points only.
    config = dataclasses.replace(config, seed=settings.seed)
    objective = CommandObjective(load, settings, metric, config.trial_seeds)
    about = {"command": name, "settings": settings, "metric": metric.name}
    if config.trial_seeds > 1:
        about["trial_seeds"] = config.trial_seeds

    def conclude(result: dict[str, Any]) -> dict[str, Any]:
        best = with_point(settings, result["best"]["point"])
        line = f"automl-ext {again or name} {as_flags(best)}".strip()
        write_atomic(out / BEST, as_toml(best, f"{line}\n{metric.name}: {result['best']['value']}").encode())
        return {"metric": metric.name, "command_line": line, "best_toml": shlex.quote(str(out / BEST))}

    first = [{name: attrgetter(name)(settings) for name in space}]
    if config.sampler in WITH_EXPERIENCE:
        first += known_points(name, space, first[0], search_space(settings), config.portfolio)
        if config.sampler == "experience" and len(first) == 1:
            raise UserError(f"sampler: there is no experience with {name}; expected default, random, tpe, gp or cmaes")
    return tune(
        objective,
        space,
        config,
        out,
        first=first,
        resume=resume,
        stop_after=stop_after,
        name=name,
        about=about,
        confirm=[{"seed": settings.seed + config.trial_seeds * i} for i in range(1, config.confirm + 1)],
        conclude=conclude,
    )


def known_points(
    command: str, space: Space, usual: dict[str, Any], declared: Space, file: Path | None = None
) -> list[dict[str, Any]]:
    """Return the points of the portfolio, best first, moved into the space; names without a value keep ``usual``.

    A point equal to ``usual``, which trial 0 evaluates, is left out.

    Raises:
        UserError: ``file`` is damaged, is a portfolio of another command, or has a value that is neither ``declared``
            by the command, nor in ``space``, nor the usual one.
    """
    from automl_ext.tune.space import nearest

    points = [nearest(space, usual)]
    for known in portfolio(command, file, [declared, space], usual):
        point = nearest(space, usual | {name: value for name, value in known.items() if name in space})
        if point not in points:
            points.append(point)
    return points[1:]
