"""The study of a tuning run: Optuna's, in memory for decisions, and in a storage for other programs and machines.

Proposals and pruning depend on the study in memory. A resumed run first tells it the outcomes of all trials again, in
their order, so its further proposals equal those of an uninterrupted run. The storage gets each trial when it has
ended; from a shared storage, the trials of other tuning runs are read.
"""

from __future__ import annotations

import math
import socket
import uuid
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from automl_ext.training.config import differences, to_dict, with_defaults, without_effect
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import write_json
from automl_ext.training.files.reading import read_object, short
from automl_ext.training.search_space import Space
from automl_ext.training.seeding import derived_seed
from automl_ext.tune.config import TuneConfig
from automl_ext.tune.pruning import Rule, hyperband, pruned
from automl_ext.tune.samplers import in_memory, make_sampler
from automl_ext.tune.space import Distributions, distributions, nearest, rounded
from automl_ext.tune.trials import Outcome

LOG, TUNER, JOURNAL = "study.log", "tuner.json", "journal:"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class Study:
    """Proposes points and is told outcomes, in the order of the trials' numbers.

    Raises:
        UserError: the storage cannot be used.
    """

    def __init__(self, name: str, config: TuneConfig, space: Space, first: Sequence[dict[str, Any]], out: Path) -> None:
        self.config = config
        self.ranges, self.space = space, distributions(space)
        self.first = [nearest(space, point) for point in first]
        self.storage = Storage(name, config, self.space, out)
        self.seed = derived_seed(config.seed, self.storage.seed) if self.storage.seed else config.seed
        self.memory = in_memory(name, config.minimize)
        self.running: dict[int, Trial] = {}
        self.steps: tuple[int, int] | None = None  # first and last step that the first finished trial reported

    def propose(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parameters of a new trial as the sampler chose them, and as the point to try.

        Each trial has a sampler of its own, so the proposal depends on the trials before it and on ``index``, but not
        on the number of proposals that this object made.
        """
        if self.config.storage is not None and self.config.sampler != "cmaes":  # CMA-ES learns from its own points only
            self.memory.add_trials(self.storage.others())
        if index < len(self.first):
            self.memory.enqueue_trial(self.first[index])
        self.memory.sampler = make_sampler(self.config.sampler, derived_seed(self.seed, index))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental samplers, and infinite values of failed trials
            trial = self.memory.ask(self.space)
        self.running[index] = trial
        return trial.params, rounded(self.ranges, trial.params)

    def restore(self, index: int, params: dict[str, Any]) -> None:
        """Start a trial again whose parameters are known.

        Raises:
            UserError: the parameters are not in the space, or CMA-ES would choose others.
        """
        try:
            create_trial(params=params, distributions=self.space, value=0.0)
        except ValueError as error:
            raise UserError(f"trial {index}: the parameters are not of this search space: {short(error)}") from None
        if self.config.sampler == "cmaes":  # its state is that of the trials that it proposed
            if self.propose(index)[0] != params:
                raise UserError(f"trial {index}: CMA-ES now proposes another point; was Optuna's version another one?")
            return
        self.memory.enqueue_trial(params)
        self.running[index] = self.memory.ask(self.space)

    def rule(self) -> Rule | None:
        """Return the pruning rule of the trial that was proposed last; None: it is not pruned."""
        if self.steps is None:
            return None
        trials = self.memory.get_trials(deepcopy=False)[:-1]
        return Rule(self.memory.study_name, self.config.minimize, *self.steps, trials)

    def tell(self, index: int, outcome: Outcome) -> None:
        """Tell the outcome of a trial."""
        trial = self.running.pop(index)
        reports = [(step, value) for step, value in outcome.reports if value is not None]
        hyperbanded = self.config.pruner == "hyperband"
        if hyperbanded and self.steps is None and outcome.state == "finished" and reports:
            self.steps = reports[0][0], reports[-1][0]
        before = self.memory.pruner
        if self.steps is not None:
            # Only here: with this pruner, a sampler would use the trials of one bracket only.
            self.memory.pruner = hyperband(*self.steps)
        for step, value in reports:
            pruned(trial, step, value)  # notes the value at each rung
        self.memory.pruner = before
        if outcome.state == "pruned":
            self.memory.tell(trial, state=TrialState.PRUNED)
        else:
            worst = math.inf if self.config.minimize else -math.inf
            self.memory.tell(trial, worst if outcome.value is None else outcome.value)
        self.storage.add(index, self.memory.get_trials(deepcopy=False)[trial.number], outcome.error)


class Storage:
    """The storage of a study, which holds the trials that have ended."""

    def __init__(self, name: str, config: TuneConfig, space: Distributions, out: Path) -> None:
        self.space, self.tuner, self.seed = space, "this", 0
        self.known: set[int] = set()  # numbers of the trials of others that were returned
        if config.storage is None:
            # It is written again from the trials' files: a killed process may have left half a line and a lock.
            for path in (out / LOG, out / f"{LOG}.lock"):
                path.unlink(missing_ok=True)
        else:
            self.tuner, self.seed = tuner_of(out)
        url = config.storage or f"{JOURNAL}{out / LOG}"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            storage: Any = url
            if url.startswith(JOURNAL):
                storage = optuna.storages.JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
            self.study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="minimize" if config.minimize else "maximize",
                load_if_exists=True,
            )
            mine = [t for t in self.study.get_trials(deepcopy=False) if t.user_attrs.get("tuner") == self.tuner]
        except Exception as error:  # of SQLAlchemy, of a driver, of the file
            raise UserError(f"storage: cannot use {url}: {short(error)}") from None
        if config.minimize != (self.study.direction.name == "MINIMIZE"):
            raise UserError(f"minimize: expected that of the study {name} in {url}, {self.study.direction.name}")
        self.added = {trial.user_attrs.get("trial") for trial in mine}

    def add(self, index: int, trial: FrozenTrial, error: str | None) -> None:
        """Add a trial that has ended, unless it was added before the tuning run was resumed."""
        if index in self.added:
            return
        self.added.add(index)
        self.study.add_trial(
            create_trial(
                state=trial.state,
                value=trial.value,
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=trial.intermediate_values,
                user_attrs={"tuner": self.tuner, "trial": index} | ({"error": error} if error else {}),
            )
        )

    def compare_settings(self, about: dict[str, Any]) -> None:
        """Warn if the study was begun with other settings than ``about``: the values may not be comparable.

        The seed may differ, and options without an effect.
        """
        begun = self.study.user_attrs.get("about")
        if not begun:
            self.study.set_user_attr("about", to_dict(about))
            return
        found = differences(with_defaults(begun, about), to_dict(about))
        ignored = {"settings.seed", *without_effect(about)}
        other = [f"{key} {a} there, {b} here" for key, a, b in found if key not in ignored]
        if other:
            name = self.study.study_name
            warnings.warn(f"study {name}: begun with {'; '.join(other[:3])}; --study separates studies", stacklevel=2)

    def others(self) -> list[FrozenTrial]:
        """Return the ended trials of other tuning runs that were not returned before, without Optuna's own notes."""
        found = []
        for trial in self.study.get_trials(deepcopy=False, states=ENDED):
            ours = trial.user_attrs.get("tuner") == self.tuner
            if ours or trial.number in self.known or trial.distributions != self.space:
                continue
            self.known.add(trial.number)
            found.append(
                create_trial(
                    state=trial.state, value=trial.value, params=trial.params, distributions=trial.distributions
                )
            )
        return found


def tuner_of(out: Path) -> tuple[str, int]:
    """Return the name by which shared storages know the tuning run in ``out``, and a number for its seed.

    Both are chosen when the run is started. The number depends on the machine and the folder: otherwise runs with equal
    options on several machines would draw the same points.
    """
    path = out / TUNER
    if not path.exists():
        place = f"{socket.gethostname()}:{out.resolve()}"
        write_json(path, {"tuner": uuid.uuid4().hex, "seed": zlib.crc32(place.encode())})
    stored = read_object(path)
    seed = stored.get("seed")
    if not isinstance(seed, int):
        raise UserError(f"{path}: seed: expected an integer, got {short(seed)}")
    return str(stored.get("tuner")), seed
