"""The choice of constructed features: a family is kept only if it lowers the loss in an inner cross-validation.

The rule: LightGBM with its default settings is trained on every fold with the family and without it. The family is kept
if the mean over the folds of the paired differences of the loss is above its standard error. Parts of dates are kept
unless the mean is below minus its standard error. The folds' training rows overlap, so the error is the corrected one
of Nadeau and Bengio (2003): variance · (1/k + valid/train).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from automl_ext.tabular.features.families import FAMILIES
from automl_ext.tabular.learners.registry import LEARNERS, failures

if TYPE_CHECKING:
    from automl_ext.tabular.candidates import Trial
    from automl_ext.tabular.search import TableSearch

FEWEST_FOLDS = 3
EARLY = 2  # folds after which a family that lost in all of them is dropped, and a default one that won is kept


@dataclass(frozen=True)
class Verdict:
    """Decision on a family of constructed features.

    Attributes:
        kept: whether the models use it.
        gain: mean decrease of the loss; None: not judged.
        error: the corrected standard error of ``gain``.
        why: the reason, for the user.
    """

    family: str
    kept: bool
    gain: float | None
    error: float | None
    why: str


def judge_families(search: TableSearch, without: Trial | None, deadline: float) -> list[Verdict]:
    """Judge each family of features.

    Args:
        search: has the folds.
        without: LightGBM's default settings without constructed features, trained on every fold. None: it failed, and
            no family is judged.
        deadline: families whose turn has not come by then are not judged.
    """
    kinds = {column.kind for column in search.columns}
    verdicts = []
    for name, family in FAMILIES.items():
        if family.needs not in kinds:
            verdicts.append(Verdict(name, False, None, None, f"there is no {family.needs} column"))
        elif len(search.folds) < FEWEST_FOLDS:
            verdicts.append(_not_judged(name, f"there are fewer than {FEWEST_FOLDS} folds"))
        elif without is None:
            verdicts.append(_not_judged(name, "LightGBM's defaults were not trained"))
        elif time.monotonic() + without.seconds > deadline:
            verdicts.append(_not_judged(name, "too little time"))
        else:
            try:
                verdicts.append(_judge(search, without, name))
            except failures() as error:
                verdicts.append(_not_judged(name, str(error)))
    return verdicts


def _not_judged(family: str, why: str) -> Verdict:
    return Verdict(family, FAMILIES[family].by_default, None, None, f"not judged: {why}")


def _judge(search: TableSearch, without: Trial, family: str) -> Verdict:
    candidate, by_default = without.candidate, FAMILIES[family].by_default
    gains: list[float] = []
    for fold, loss_without in zip(search.folds, without.losses, strict=True):
        _, train, valid = search.prepared(fold, [family])
        if train.x.shape[1] == search.matrices(fold, basic=True)[1].x.shape[1]:
            return Verdict(family, False, None, None, "it has no features for these columns")
        model = LEARNERS[candidate.learner].train(candidate.settings, search.job(fold, train, None))
        if model.was_cut:
            return _not_judged(family, "too little time")
        gains.append(loss_without - search.loss(fold.valid, model.predict(valid.x, model.rounds)))
        if len(gains) == EARLY and all((gain > 0) == by_default for gain in gains):
            break
    share = float(np.mean([len(fold.valid) / len(fold.train) for fold in search.folds]))
    gain, error = float(np.mean(gains)), corrected_error(gains, share)
    if by_default:
        kept = gain >= -error
        return Verdict(
            family, kept, gain, error, "it does not harm" if kept else "it lost more than its standard error"
        )
    kept = gain > error and len(gains) > EARLY
    return Verdict(family, kept, gain, error, "it gained more than its standard error" if kept else "not worth it")


def corrected_error(differences: list[float], share: float) -> float:
    """Compute the standard error of the mean of paired differences over folds (Nadeau and Bengio 2003, equation 9).

    Args:
        differences: one per fold, at least 2.
        share: number of validation rows of a fold / number of its training rows.
    """
    return float(np.sqrt(np.var(differences, ddof=1) * (1 / len(differences) + share)))
