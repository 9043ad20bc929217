"""Tuning: find the point of a search space at which a function has its best value.

    trial 0 has the given settings; then, with up to ``workers`` trials in flight:
        propose a point and write it into the trial's file; evaluate it in a worker, which writes the outcome
        wait for the oldest trial, tell the study its outcome, log it
    with ``confirm``: evaluate the best few trials and trial 0 again, with other seeds; the best mean wins

A resumed run goes through the same loop. It takes points and outcomes from the trials' files as far as they exist.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from automl_ext.parallel.jobs import Jobs, WorkerDied
from automl_ext.training.epochs import Steps
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.run import Run
from automl_ext.training.search_space import Categories, Range, Space
from automl_ext.tune.config import TuneConfig, check_installed
from automl_ext.tune.evaluation import Evaluate, Objective, name_of
from automl_ext.tune.trials import STATES, Outcome, Proposal, file_of, folder_of, read_trial, write_trial

if TYPE_CHECKING:
    from automl_ext.tune.pruning import Rule
    from automl_ext.tune.study import Study

TRIALS, CONFIRM = "trials", "confirm"
CONFIRMED = 3  # trials that are evaluated again before the best is named, and trial 0
MOST_REPEATS = 100
MOST_FAILURES = 3  # tuning ends when this number of trials have failed and none has succeeded
Conclude = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class TuningFacts:
    """Everything on which the points of a tuning run depend; a resumed run must have the same."""

    about: dict[str, Any]
    space: dict[str, Any]
    first: list[dict[str, Any]]
    sampler: str
    pruner: str
    minimize: bool
    seed: int
    workers: int


@dataclass
class Trials:
    """The trials of a tuning run that have ended, in the order of their numbers."""

    minimize: bool
    ended: list[tuple[Proposal, Outcome]] = field(default_factory=list)

    @property
    def ranked(self) -> list[tuple[Proposal, Outcome]]:
        """The finished trials, best first; equally good trials by their numbers."""
        finished = [trial for trial in self.ended if trial[1].value is not None]
        sign = 1 if self.minimize else -1
        return sorted(finished, key=lambda trial: sign * (trial[1].value or 0.0))

    @property
    def best(self) -> tuple[Proposal, Outcome] | None:
        """The finished trial with the best value; the first of equally good ones."""
        return next(iter(self.ranked), None)

    def count(self, state: str) -> int:
        return sum(outcome.state == state for _, outcome in self.ended)

    def scalars(self) -> dict[str, float]:
        """Return the values of the last trial, and the best one so far, for ``metrics.jsonl``."""
        best, last = self.best, self.ended[-1][1].value
        return {
            "value": math.nan if last is None else last,
            "best": math.nan if best is None or best[1].value is None else best[1].value,
            "failed": self.count("failed"),
            "pruned": self.count("pruned"),
        }


def tune(
    objective: Objective,
    space: Space,
    config: TuneConfig,
    out: str | Path,
    *,
    first: Sequence[dict[str, Any]] = (),
    resume: str | None = None,
    stop_after: int | None = None,
    name: str = "tune",
    about: dict[str, Any] | None = None,
    confirm: Sequence[dict[str, Any]] = (),
    conclude: Conclude | None = None,
) -> dict[str, Any] | None:
    """Find the point at which ``objective`` has its best value.

    Args:
        objective: called with a point (a value by name) and the folder of the trial, which it may write into; returns
            the value. An exception, or a value that is not finite, makes the trial a failed one, which
            counts as infinitely bad. It may call :func:`~automl_ext.tune.reporting.report`, so that it can be pruned.
            If it is interrupted, it is called again with the same folder. With several workers it is pickled: a
            function at the top level of a module.
        space: the values of each name (:mod:`automl_ext.training.search_space`).
        config: budget, sampler and workers.
        out: run directory of the tuning run, with the trials in ``trials``.
        first: points to evaluate first; those outside of the space are allowed.
        resume: None, or "auto" to continue; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: stop after this number of trials of this call.
        name: name of the study.
        about: facts about the objective, plain values or dataclasses of them; a resumed run must have the same.
        confirm: further entries of a point, such as ``[{"seed": 1}, {"seed": 2}]``. With each of them, the objective is
            called again for the three best trials and for trial 0, and the trial with the best mean is the best. With a
            budget in minutes, trials end early enough for that.
        conclude: adds entries to the result.

    Returns:
        The content of ``result.json``: ``best`` (trial, value, point), ``first_value`` (of trial 0), ``trials`` (of
        each: trial, point, value, state, seconds, error), the numbers ``finished``, ``failed`` and ``pruned``, and
        ``seconds``. With ``confirm`` also ``confirmed`` (of each: trial, values), and the value of the best is its mean
        over all evaluations. None if it was interrupted.

    Raises:
        UserError: there is no budget, the space is empty, a point of ``first`` has other names, the run directory or
            the storage cannot be used, the objective cannot be pickled, all of the first trials failed, or no trial
            finished.
        ModuleNotFoundError: Optuna is not installed.
    """
    check_installed(config.sampler)
    from automl_ext.tune.pictures import draw
    from automl_ext.tune.space import described
    from automl_ext.tune.study import Study

    if config.trials is None and config.minutes is None and config.sampler != "experience":
        raise UserError("trials, minutes: expected a budget, at least one of the two")
    if resume not in (None, "auto"):
        raise UserError(f"resume: expected auto, got {resume}")
    if not space:
        raise UserError("space: expected at least one name, got none")
    for key, values in space.items():
        if not isinstance(values, (Range, Categories)):
            raise UserError(f"space: {short(key)}: expected Range or Categories, got {short(values)}")
    if config.workers > 1:
        try:
            pickle.dumps(objective)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(f"objective: expected a function that can be pickled, {short(error)}") from None
    if len(confirm) >= MOST_REPEATS:
        raise UserError(f"confirm: expected fewer than {MOST_REPEATS} repetitions, got {len(confirm)}")
    points = [dict(point) for point in first]
    for point in points:
        if point.keys() != space.keys():
            raise UserError(f"first: expected points with the names {', '.join(space)}, got {short(point)}")
    if config.sampler == "experience" and not points:
        raise UserError("first: expected at least one point with the sampler experience, got none")
    facts = TuningFacts(
        about or {},
        described(space),
        points,
        config.sampler,
        config.pruner,
        config.minimize,
        config.seed,
        config.workers,
    )
    with Run.open(out, facts, algorithm="tune", resume=resume) as run:
        (run.path / TRIALS).mkdir(exist_ok=True)
        study = Study(config.study or name, config, space, points, run.path)
        if config.storage is not None:
            study.storage.compare_settings(about or {"objective": name_of(objective), "space": described(space)})
        tuning = Tuning(run, study, config, points, objective, confirm)
        if not tuning.run_trials(stop_after, name):
            return None
        confirmed = tuning.confirm()
        result = {"command": name, "maximize": not config.minimize, **tuning.result(), **confirmed}
        if conclude is not None:
            result |= conclude(result)
        run.finish(result)
        draw(study.memory, run.path, str((about or {}).get("metric", "value")))
        return result


class Tuning:
    """The loop of a tuning run."""

    def __init__(
        self,
        run: Run,
        study: Study,
        config: TuneConfig,
        first: Sequence[dict[str, Any]],
        objective: Objective,
        repeats: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.run, self.study, self.config, self.first, self.repeats = run, study, config, first, repeats
        self.folder = run.path / TRIALS
        self.evaluate = Evaluate(objective, self.folder)
        self.pending: deque[tuple[Proposal, Rule | None]] = deque()  # in flight
        self.trials = Trials(config.minimize)
        self.began = time.monotonic()  # shifted by the time of earlier starts
        self.proposed = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def run_trials(self, stop_after: int | None, name: str) -> bool:
        """Run the trials. Return False if ``stop_after`` ended them.

        Raises:
            UserError: no trial finished, or the first ``MOST_FAILURES`` failed.
        """
        percent = self.percent if self.config.trials is None else None
        total = self.config.trials or 100
        with (
            Jobs(self.evaluate, self.config.workers, self.pending) as jobs,
            Steps(self.run, total, name, stop_after, dict, start=0, percent=percent) as steps,
        ):
            while not steps.stopped:
                jobs.fill(self.propose)
                if not self.pending:
                    if self.trials.best is None:
                        raise self.without_result()
                    return True
                self.end(*self.outcome(jobs, self.folder), steps)
        return False

    def percent(self) -> int:
        """Return how much of the budget in time is spent, in percent."""
        return min(int(100 * self.seconds / (60 * (self.config.minutes or 1))), 100)

    def propose(self) -> tuple[Proposal, Rule | None] | None:
        """Return the next trial and its pruning rule; None: the budget or the points are used up.

        The outcome of a trial that ended before a resumption is in its file, from which the worker takes it.
        """
        index = self.proposed
        found = read_trial(self.folder, index)
        if found is not None:
            proposal, known = found
            if index < len(self.first):  # the file cannot hold infinities
                proposal = dataclasses.replace(proposal, point=dict(self.first[index]))
            self.study.restore(index, proposal.params)
            spent = proposal.elapsed + (0.0 if known is None else known.seconds)
            self.began = min(self.began, time.monotonic() - spent)
        elif self.has_budget():
            params, point = self.study.propose(index)
            proposal = Proposal(
                index, dict(self.first[index]) if index < len(self.first) else point, params, self.seconds
            )
            write_trial(self.folder, proposal)
        else:
            return None
        self.proposed += 1
        return proposal, self.study.rule()

    def has_budget(self) -> bool:
        """Return whether another trial may start."""
        if self.config.trials is not None and self.proposed >= self.config.trials:
            return False
        if self.config.sampler == "experience" and self.proposed >= len(self.first):
            return False
        # The first trial always starts, so that there is a result.
        if self.config.minutes is None or self.proposed == 0:
            return True
        return self.seconds + self.reserve() < 60 * self.config.minutes

    def reserve(self) -> float:
        """Return the seconds that :meth:`confirm` will take after one more trial, from the mean time of the trials."""
        lengths = [outcome.seconds for _, outcome in self.trials.ranked]
        runs = min(len(lengths) + 1, CONFIRMED + 1) * len(self.repeats)
        return math.ceil(runs / self.config.workers) * fmean(lengths) if lengths else 0.0

    def outcome(self, jobs: Jobs[tuple[Proposal, Rule | None], Outcome], folder: Path) -> tuple[Proposal, Outcome]:
        """Wait for the oldest trial. Return it and its outcome: it has failed if its processes were killed."""
        try:
            (proposal, _), outcome = jobs.next()
        except WorkerDied as error:
            (proposal, _), found = jobs.repeat_alone()
            outcome = found or Outcome("failed", None, [], 0.0, short(error))
            if found is None:
                write_trial(folder, proposal, outcome)
        return proposal, outcome

    def end(self, proposal: Proposal, outcome: Outcome, steps: Steps) -> None:
        """Tell the outcome of a trial and log it.

        Raises:
            UserError: ``MOST_FAILURES`` trials have failed, and no other has ended.
        """
        self.study.tell(proposal.index, outcome)
        self.trials.ended.append((proposal, outcome))
        done, scalars = len(self.trials.ended), self.trials.scalars()
        steps.add(scalars, description=f"{steps.bar.description}, best {scalars['best']:.6g}")
        if done > self.run.step and outcome.state == "failed":
            warnings.warn(f"trial {proposal.index} failed: {outcome.error}", stacklevel=2)
        if self.trials.count("failed") == done >= MOST_FAILURES:
            raise self.without_result()

    def without_result(self) -> UserError:
        """Return the error of a tuning run without a finished trial."""
        failed, pruned = self.trials.count("failed"), self.trials.count("pruned")
        error = next((outcome.error for _, outcome in reversed(self.trials.ended) if outcome.error), None)
        if pruned:
            why = f": {error}" if error else ""
            return UserError(f"no trial finished, {pruned} were pruned and {failed} failed{why}; choose another --out")
        which = f"the first {failed} trials" if failed > 1 else "the first trial"
        return UserError(f"{which} failed, so the settings are probably wrong: {error}; choose another --out")

    def confirm(self) -> dict[str, Any]:
        """Evaluate the best trials and trial 0 again with each of ``repeats``. Return changed entries of the result.

        Trial 0 has the given settings, with which the others are compared at the same seeds.
        ``OUT/confirm/0702.json`` is the second repetition of trial 7; a resumed run does not repeat those that have
        ended. A trial with a failed repetition is not the best, unless all have one.
        """
        ranked = self.trials.ranked
        best = [trial for place, trial in enumerate(ranked) if place < CONFIRMED or trial[0].index == 0]
        if not self.repeats or len(best) < 2:
            minutes = self.config.minutes
            others = self.config.trials != 1 and self.config.sampler != "experience"  # could have followed trial 0
            if self.repeats and minutes is not None and self.proposed == 1 and others:
                warnings.warn(
                    f"minutes: {minutes:g} have no room for a second trial and {len(self.repeats)} repetitions of "
                    "both: nothing was tuned; take more minutes, or fewer repetitions (--confirm)",
                    stacklevel=3,
                )
            return {}
        folder = self.run.path / CONFIRM
        folder.mkdir(exist_ok=True)
        pending: deque[tuple[Proposal, Rule | None]] = deque()
        with Jobs(Evaluate(self.evaluate.objective, folder), self.config.workers, pending) as jobs:
            for proposal, _ in best:
                for i, change in enumerate(self.repeats, 1):
                    again = Proposal(proposal.index * MOST_REPEATS + i, proposal.point | change, {}, self.seconds)
                    found = read_trial(folder, again.index)
                    if found is not None and found[0].point | change != found[0].point:  # of another call
                        file_of(folder, again.index).unlink()
                        shutil.rmtree(folder_of(folder, again.index), ignore_errors=True)
                    jobs.add((again, None))
            outcomes = [self.outcome(jobs, folder)[1] for _ in range(len(jobs.pending))]
        rows, means = [], []
        for k, (proposal, first) in enumerate(best):
            values = [x.value for x in (first, *outcomes[k * len(self.repeats) : (k + 1) * len(self.repeats)])]
            rows.append({"trial": proposal.index, "values": values})
            if None not in values:
                means.append((fmean(v for v in values if v is not None), proposal))
        if not means:
            warnings.warn(f"{len(outcomes)} repetitions of the best trials failed: {outcomes[0].error}", stacklevel=3)
            return {"confirmed": rows}
        value, winner = (min if self.config.minimize else max)(means, key=lambda pair: pair[0])
        return {"best": {"trial": winner.index, "value": value, "point": winner.point}, "confirmed": rows}

    def result(self) -> dict[str, Any]:
        """Return the entries of ``result.json``."""
        assert self.trials.best is not None, "run_trials raises if no trial finishes"
        proposal, outcome = self.trials.best
        return {
            "best": {"trial": proposal.index, "value": outcome.value, "point": proposal.point},
            "first_value": self.trials.ended[0][1].value,
            **{state: self.trials.count(state) for state in STATES},
            "trials": [row(*trial) for trial in self.trials.ended],
            "seconds": self.seconds,
        }


def row(proposal: Proposal, outcome: Outcome) -> dict[str, Any]:
    """Return the entry of a trial in ``result.json``."""
    return {
        "trial": proposal.index,
        "state": outcome.state,
        "value": outcome.value,
        "point": proposal.point,
        "seconds": outcome.seconds,
        **({"error": outcome.error} if outcome.error else {}),
    }
