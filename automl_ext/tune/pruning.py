"""Hyperband (Li et al. 2018), by Optuna: it ends trials whose intermediate values are worse than those of others.

A trial is compared with the trials whose results were known when it was proposed. So the decision depends on the number
of trials in flight, but not on which process was faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, Trial

from automl_ext.tune.samplers import in_memory

REDUCTION = 3  # one in three trials goes on at each rung
PAID = 0.9  # fraction of the steps after which a trial is not ended any more


@dataclass(frozen=True)
class Rule:
    """Data for the pruning decision on one trial; it is sent to the trial's process.

    Args:
        study: name of the study, from which Optuna derives the trial's bracket.
        minimize: whether small values are better.
        first, last: first and last step that the first finished trial reported.
        trials: the trials before this one, with the values at the rungs that they reached.
    """

    study: str
    minimize: bool
    first: int
    last: int
    trials: list[FrozenTrial]


class HyperbandJudge:
    """Decides in the process of a trial whether the trial ends; a :data:`~automl_ext.tune.reporting.Judge`."""

    def __init__(self, rule: Rule) -> None:
        study = in_memory(rule.study, rule.minimize)
        study.add_trials(rule.trials)
        study.pruner = hyperband(rule.first, rule.last)
        self.last, self.trial = rule.last, study.ask()

    def __call__(self, step: int, value: float) -> bool:
        return pruned(self.trial, step, value) and step < PAID * self.last


def hyperband(first: int, last: int) -> optuna.pruners.HyperbandPruner:
    """Create Optuna's pruner, with the first rung at the first reported step."""
    return optuna.pruners.HyperbandPruner(
        min_resource=max(first, 1), max_resource=max(first, last, 1), reduction_factor=REDUCTION
    )


def pruned(trial: Trial, step: int, value: float) -> bool:
    """Report a value, and return whether the study's pruner would end the trial."""
    if math.isnan(value):
        return True
    trial.report(value, step)
    return trial.should_prune()
