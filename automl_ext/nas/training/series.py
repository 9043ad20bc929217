"""A run that trains several networks, one after the other or side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.parallel.cluster import current_cluster
from automl_ext.parallel.jobs import Jobs
from automl_ext.training.epochs import Epochs, Steps, check_finite
from automl_ext.training.machine.device import choose_device
from automl_ext.training.run import Run

Result = dict[str, Any]
Weights = dict[str, Tensor]


class Trained(NamedTuple):
    """A network that a worker has trained: its result, the measurements of its epochs, and its weights."""

    result: Result
    epochs: list[dict[str, float]]
    weights: Weights


@dataclass
class Trainings:
    """The trainings of a series, a base class. Workers get a copy of it.

    Attributes:
        config: the options of the trainings, and the number of ``workers``.
        genotypes: the architectures of the networks, genotypes of ``space``.
        prefix: the metrics of network i are named ``{prefix}{i}_…``.
    """

    config: Any
    space: Space[Any]
    genotypes: list[Any]
    splits: Splits
    prefix: ClassVar[str]

    def start(self, number: int) -> NetworkTraining:
        """Create the training of a network."""
        device = choose_device(self.config.device)
        return NetworkTraining(self.config, self.space, self.genotypes[number], self.splits, device)

    def measure(self, number: int, training: NetworkTraining) -> Result:
        """Return the result of a finished training."""
        raise NotImplementedError

    def keep(self, number: int, weights: Weights, run: Path) -> None:
        """Write the weights of a network to the run directory, if it needs them; by default they are not written."""

    def train(self, number: int, state: dict[str, Any] | None) -> Trained:
        """Train a network from start to end, or from the state of an interrupted training. Executed by the workers."""
        training = self.start(number)
        if state is not None:
            training.load_state_dict(state)
        epochs = []
        while training.epoch < training.epochs:
            epochs.append(training.run_epoch())
            check_finite(f"{self.prefix}{number}", training, epochs[-1])
        weights = {key: value.cpu() for key, value in training.network.state_dict().items()}
        return Trained(self.measure(number, training), epochs, weights)


def train_series(
    out: str | Path,
    algorithm: str,
    trainings: Trainings,
    summarize: Callable[[list[Result]], Result],
    resume: str | None,
    stop_after: int | None,
) -> Result | None:
    """Train networks in the run directory ``out``.

    With one worker on this machine, there is a checkpoint after each epoch. Otherwise there is one after each network,
    and an interrupted network starts again. The result is the same for an equal number of threads per process.

    Args:
        algorithm: the name under which the run is stored.
        trainings: creates and measures the trainings. Network 0 is created before the run directory exists, so that
            errors come first.
        summarize: the results of all networks → the result of the run.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of epochs, of all networks together, after which to interrupt the run; side by side, it
            is rounded up to whole networks.

    Returns:
        The result of the run, which ``result.json`` also holds. None if the run was interrupted.
    """
    config, count = trainings.config, len(trainings.genotypes)
    training: NetworkTraining | None = trainings.start(0)
    state: dict[str, Any] | None = None  # of the interrupted training
    results: list[Result] = []

    def load(stored: dict[str, Any]) -> None:
        nonlocal results, training, state
        results = stored["results"]
        state = stored["job"]
        if len(results) > count:
            raise ValueError(f"results: expected at most {count}, got {len(results)}")
        if len(results) < count:
            training = trainings.start(len(results))
            if state is not None:
                training.load_state_dict(state)

    threads = current_cluster().threads(config.workers)
    with Run.open(out, config, algorithm=algorithm, resume=resume, load=load, worker_threads=threads) as run:
        if config.workers == 1 and current_cluster().address is None:
            assert training is not None
            done = one_by_one(run, algorithm, trainings, training, results, stop_after)
        else:
            training = None  # it was created to find errors, and may hold the memory of a GPU
            done = side_by_side(run, algorithm, trainings, state, results, stop_after)
        if not done:
            return None
        result = summarize(results)
        run.finish(result)
        return result


def one_by_one(
    run: Run,
    algorithm: str,
    trainings: Trainings,
    training: NetworkTraining,
    results: list[Result],
    stop_after: int | None,
) -> bool:
    """Train the networks that have no result yet, and append their results. Return False if interrupted."""
    first, count = len(results), len(trainings.genotypes)
    with Epochs(run, count * training.epochs, algorithm, stop_after) as epochs:
        for i in range(first, count):
            if i > first:
                training = trainings.start(i)
            if not epochs.run(training, f"{trainings.prefix}{i}", {"results": list(results)}):
                return False
            trainings.keep(i, dict(training.network.state_dict()), run.path)
            results.append(trainings.measure(i, training))
    return True


def side_by_side(
    run: Run,
    algorithm: str,
    trainings: Trainings,
    state: dict[str, Any] | None,
    results: list[Result],
    stop_after: int | None,
) -> bool:
    """Train the networks that have no result yet, in workers, and append their results. Return False if interrupted."""
    config, count = trainings.config, len(trainings.genotypes)
    left = deque((i, state if i == len(results) else None) for i in range(len(results), count))
    total = count * config.epochs
    with (
        Jobs(trainings.train, config.workers, left) as jobs,
        Steps(run, total, algorithm, stop_after, lambda: {"results": list(results), "job": None}) as steps,
    ):
        for (i, _), trained in jobs.each():
            trainings.keep(i, trained.weights, run.path)
            results.append(trained.result)
            prefix = f"{trainings.prefix}{i}_"
            steps.add(*({prefix + key: value for key, value in scalars.items()} for scalars in trained.epochs))
            if steps.stopped and left:
                return False
    return True
