"""One learner, cross-validated on a table: the trials of ``tune fit --learner``; ``fit`` combines several learners."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from automl_ext.tabular.candidates import CONSTANT, ModelCandidate
from automl_ext.tabular.ensemble import bagged, leaderboard, refitted
from automl_ext.tabular.fitted import Fitted
from automl_ext.tabular.learners.forest import ForestSettings
from automl_ext.tabular.learners.lightgbm import LightGBMSettings
from automl_ext.tabular.learners.registry import LEARNERS
from automl_ext.tabular.learners.xgboost import XGBoostSettings
from automl_ext.tabular.search import TableSearch
from automl_ext.tabular.table.metrics import shown
from automl_ext.tabular.table.problem import Problem, find_problem
from automl_ext.tabular.table.table_files import read_table
from automl_ext.training.checks import check_range, check_seed
from automl_ext.training.errors import UserError
from automl_ext.training.machine.clock import Clock
from automl_ext.training.run import Run

NEVER = float("inf")


@dataclass
class TableOptions:
    """Options of the table, the prediction task, and the validation."""

    table: Annotated[str, tyro.conf.Positional] = ""
    """Table to learn from: NAME.csv, NAME.csv.gz or NAME.parquet."""
    target: str = ""
    """Column to predict."""
    time: str | None = None
    """Column of dates or numbers: models are validated on later rows than they are trained on."""
    group: str | None = None
    """Column whose groups are never on both sides of a split."""
    weight: str | None = None
    """Column of numbers, at least 0: the weight of each row in training and in the loss. It is not a feature."""
    metric: str | None = None
    """log_loss (default), auc or accuracy for classes; rmse (default) or mae for numbers."""
    folds: int = 5
    """Number of folds of the cross-validation."""
    threads: int = 1
    """Number of threads."""
    seed: int = 0
    """Seed of all randomness."""

    def __post_init__(self) -> None:
        check_range(self, "folds", low=2, high=100)
        check_range(self, "threads", low=1, high=1024)
        check_seed(self.seed)


@dataclass
class LightGBMOptions(LightGBMSettings, TableOptions):
    """Options of ``tune fit --learner lightgbm``."""

    def __post_init__(self) -> None:
        LightGBMSettings.__post_init__(self)
        TableOptions.__post_init__(self)


@dataclass
class XGBoostOptions(XGBoostSettings, TableOptions):
    """Options of ``tune fit --learner xgboost``."""

    def __post_init__(self) -> None:
        XGBoostSettings.__post_init__(self)
        TableOptions.__post_init__(self)


@dataclass
class ForestOptions(ForestSettings, TableOptions):
    """Options of ``tune fit --learner forest``."""

    def __post_init__(self) -> None:
        ForestSettings.__post_init__(self)
        TableOptions.__post_init__(self)


def cross_validate(
    learner: str, config: Any, out: Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any]:
    """Train one learner on every fold, and save the average of the folds' models.

    Args:
        config: its settings and the :class:`TableOptions`.
        out: the run directory.
        resume: None, or "auto": a run that did not finish starts again, since it has no checkpoints.
        stop_after: None.

    Returns:
        The content of ``result.json``. ``negative_loss`` is minus the loss, so higher is better for any metric; it is
        also logged after each fold.

    Raises:
        UserError: an option, the table or the run directory is invalid.
    """
    if stop_after is not None:
        raise UserError("stop_after: a training on a table has no checkpoints at which to stop")
    problem = read_problem(config)
    settings = LEARNERS[learner].settings(
        **{f.name: getattr(config, f.name) for f in fields(LEARNERS[learner].settings)}
    )
    with Run.open(out, config, algorithm=learner, resume=resume) as run:
        clock = Clock()
        search = TableSearch(problem, NEVER, config.seed, config.threads)
        with clock:
            folds = itertools.count(1)

            def after_fold(loss: float) -> None:
                run.log(next(folds), negative_loss=-loss)

            trial = search.run(ModelCandidate(learner, learner, settings), NEVER, after_fold=after_fold)
        if trial is None:
            raise UserError(f"{learner} failed on {config.table}: {search.failed.get(learner, 'it gave no result')}")
        search.run(CONSTANT, NEVER)
        votes = [1, 0]
        parts = (refitted if problem.kind == "time" else bagged)(search, votes)
        metric = problem.task.metric
        facts = {"rows": len(problem.y), "folds": len(search.folds), "leaderboard": leaderboard(search, votes)}
        Fitted(problem.task, problem.columns, parts.preparations, parts.members, facts).save(run.path)
        result = {
            "negative_loss": -trial.loss,
            f"valid_{metric}": shown(metric, trial.loss),
            "rounds": trial.rounds if trial.models[0].rounds else None,
            "task": problem.task.kind,
            "rows": len(problem.y),
            "seconds": clock.wall,
            "cpu_seconds": clock.cpu,
        }
        run.finish(result)
    return result


def read_problem(config: TableOptions) -> Problem:
    """Read the table, and return the prediction problem inferred from it.

    Raises:
        UserError: an option or the table is invalid.
    """
    if not config.table:
        raise UserError("table: expected a file, got none: tune fit TABLE --target NAME")
    if not config.target:
        raise UserError("target: expected a column, got none: --target NAME")
    frame = read_table(Path(config.table), target=config.target)
    return find_problem(
        frame,
        config.target,
        time=config.time,
        group=config.group,
        weight=config.weight,
        metric=config.metric,
        folds=config.folds,
        seed=config.seed,
        source=config.table,
    )
