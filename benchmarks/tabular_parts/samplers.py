"""Suggestion of points: random search, TPE, GP and CMA-ES of Optuna, and TPE of HyperOpt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from learners import SPACES, Point

from automl_ext.training.search_space import Range, Values

Tell = Callable[[float], None]
Ask = Callable[[], tuple[tuple[str, Point], Tell]]  # -> ((learner, point), function that takes the loss)


def optuna_sampler(
    kind: str, learners: tuple[str, ...] = ("lightgbm", "xgboost"), first: Sequence[Point] = (), **options: Any
) -> Callable[[int], Ask]:
    """Return the start of a study with Optuna's sampler ``kind``: "random", "tpe", "gp" or "cma".

    Args:
        kind: the sampler, with its default settings.
        learners: learners to choose from; the choice is a category if there are several.
        first: points of the only learner that are evaluated first.
        options: of the sampler.
    """

    def start(seed: int) -> Ask:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=_sampler(kind, seed, options))
        for point in first:
            study.enqueue_trial({f"{learners[0]}.{name}": value for name, value in point.items()})

        def ask() -> tuple[tuple[str, Point], Tell]:
            trial = study.ask()
            learner = trial.suggest_categorical("learner", learners) if len(learners) > 1 else learners[0]
            point = {name: _suggest(trial, f"{learner}.{name}", values) for name, values in SPACES[learner].items()}
            return (learner, point), lambda loss: study.tell(trial, loss) and None

        return ask

    return start


def _sampler(kind: str, seed: int, options: dict[str, Any]) -> Any:
    import warnings

    from optuna import samplers

    warnings.filterwarnings("ignore", module="optuna")
    if kind == "random":
        return samplers.RandomSampler(seed=seed, **options)
    if kind == "tpe":
        return samplers.TPESampler(seed=seed, **options)
    if kind == "gp":
        return samplers.GPSampler(seed=seed, **options)
    return samplers.CmaEsSampler(seed=seed, **options)


def _suggest(trial: Any, name: str, values: Values) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(name, values.values)
    if values.whole:
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def hyperopt_tpe(seed: int) -> Ask:
    """Start a study with HyperOpt's TPE, asked for one point at a time."""
    from hyperopt import STATUS_OK, Domain, Trials, hp, space_eval, tpe

    spaces = [
        {"learner": learner, **{n: _hyperopt(hp, f"{learner}.{n}", values) for n, values in space.items()}}
        for learner, space in SPACES.items()
    ]
    space = hp.choice("learner", spaces)
    domain, trials, rng = Domain(lambda point: 0.0, space), Trials(), np.random.default_rng(seed)

    def ask() -> tuple[tuple[str, Point], Tell]:
        new = tpe.suggest(trials.new_trial_ids(1), domain, trials, int(rng.integers(2**31)))
        trials.insert_trial_docs(new)
        trials.refresh()
        document = trials._dynamic_trials[-1]
        chosen = {name: values[0] for name, values in document["misc"]["vals"].items() if values}
        point = dict(space_eval(space, chosen))
        learner = str(point.pop("learner"))
        whole = {
            n: int(v) if isinstance(SPACES[learner][n], Range) and SPACES[learner][n].whole else v
            for n, v in point.items()
        }

        def tell(loss: float) -> None:
            document["state"], document["result"] = 2, {"loss": loss, "status": STATUS_OK}
            trials.refresh()

        return (learner, whole), tell

    return ask


def _hyperopt(hp: Any, name: str, values: Values) -> Any:
    if not isinstance(values, Range):
        return hp.choice(name, list(values.values))
    low, high = (np.log(values.low), np.log(values.high)) if values.log else (values.low, values.high)
    if values.whole:
        return hp.qloguniform(name, low, high, 1) if values.log else hp.uniformint(name, low, high)
    return hp.loguniform(name, low, high) if values.log else hp.uniform(name, low, high)
