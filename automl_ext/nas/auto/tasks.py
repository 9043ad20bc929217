"""The work of the tasks of ``search auto``: what a worker needs to do one, on this machine or on another."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.auto.derive import DeriveJob
from automl_ext.nas.auto.plan import CHUNK, DERIVE, AutoConfig, Done, Task
from automl_ext.nas.costs import count_parameters
from automl_ext.nas.ensembles.ensemble import log_probabilities
from automl_ext.nas.estimators.lower_fidelity import all_finite, finite_logits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import ScoreJob
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.batches import accuracy, to_device, without_validation
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.training.files.weights import check_fit
from automl_ext.training.machine.device import choose_device
from automl_ext.training.seeding import derived_seed

Job = ScoreJob | DeriveJob | NetworkTraining
Weights = dict[str, Tensor]


class Finished(NamedTuple):
    """A task that a worker has done: its outcome, the weights of its network, and the measurements of its epochs."""

    done: Done
    weights: Weights | None
    epochs: list[dict[str, float]]


class Tasks(NamedTuple):
    """Does tasks.

    Attributes:
        candidates: the architectures to screen.
    """

    config: AutoConfig
    space: Space[Any]
    splits: Splits
    candidates: list[Any]

    def whole(self, task: Task, weights: Weights | None, state: dict[str, Any] | None) -> Finished:
        """Do one task from start to end, or from the state of its interrupted job; called by the workers."""
        job = self.start(task, weights)
        if state is not None:
            job.load_state_dict(state)
        epochs = []
        while job.epoch < job.epochs:
            epochs.append(job.run_epoch())
        return Finished(*self.finish(task, job), epochs)

    def start(self, task: Task, weights: Weights | None = None) -> Job:
        """Create the job of ``task``.

        Args:
            weights: those that a training starts from; None: random ones.
        """
        device = choose_device(self.config.device)
        if task.stage == "screen":
            chunk = self.candidates[task.chunk : task.chunk + CHUNK]
            return ScoreJob(self.space, chunk, self.splits, device, RANK, seed=self.config.seed)
        if task.stage == "derive":
            return DeriveJob(self.config, self.space, self.splits, device, 60 * DERIVE * self.config.minutes)
        seeded = dataclasses.replace(
            self.config, epochs=task.epochs, seed=derived_seed(self.config.seed, 1000 + task.number)
        )
        training = NetworkTraining(seeded, self.space, task.genotype, without_validation(self.splits), device)
        if weights is not None:
            check_fit(weights, training.network.state_dict(), f"the weights of task {task.start}")
            training.network.load_state_dict(weights)
        return training

    def finish(self, task: Task, job: Job) -> tuple[Done, Weights | None]:
        """Measure the finished job of ``task``. Return its outcome, and the weights of its network if it has one."""
        if isinstance(job, ScoreJob):
            table = job.table()
            columns = {name: torch.from_numpy(values) for name, values in table.scores.items()}
            columns["seconds"] = torch.from_numpy(table.seconds)
            return Done(task, job.seconds, measured={"table": columns}), None
        if isinstance(job, DeriveJob):
            genotypes = [list(self.space.encode(genotype)) for genotype in job.genotypes()]
            return Done(task, job.seconds, measured={"genotypes": genotypes}), None
        return self.trained(task, job), {key: value.cpu() for key, value in job.network.state_dict().items()}

    def trained(self, task: Task, training: NetworkTraining) -> Done:
        """Measure the validation accuracy of a training; after a full training, also its predictions."""
        with training.clock:
            valid = to_device(self.splits.valid, choose_device(self.config.device))
            network = training.network
            failed = not all_finite(network) or not finite_logits(network, valid.images[:1])
            score = -1.0 if failed else accuracy(network, valid)
        measured: dict[str, Any] = {"parameters": count_parameters(network)}
        if task.stage in ("full", "random") and not failed:
            measured["valid"] = log_probabilities(network, self.splits.valid)
            measured["test"] = log_probabilities(network, self.splits.test)
        return Done(task, self.seconds(training), score, measured)

    def seconds(self, job: Job) -> float:
        """Return the cost of a job: CPU-seconds on a CPU, seconds on a GPU."""
        if isinstance(job, ScoreJob | DeriveJob):
            return job.seconds
        return job.clock.cpu if job.split.labels.device.type == "cpu" else job.clock.wall
