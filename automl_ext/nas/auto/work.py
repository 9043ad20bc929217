"""The work of ``search auto`` that a worker does: a part of a training with its measurements, or scores of cells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from automl_ext.data.images import Split, Splits, draw_stratified
from automl_ext.nas.auto.plan import AutoConfig, Networks, NetworkSpec, probed
from automl_ext.nas.auto.trainee import Recipe, Trainee
from automl_ext.nas.costs import count_parameters
from automl_ext.nas.ensembles.ensemble import log_probabilities
from automl_ext.nas.estimators.lower_fidelity import all_finite, finite_logits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import ScoreJob
from automl_ext.nas.training.batches import take, to_device, train_and_valid
from automl_ext.nas.training.training_options import class_weights
from automl_ext.training.machine.device import choose_device, has_bfloat16
from automl_ext.training.seeding import derived_seed, generator, seed_everything

HELD_SHARE, HELD_LEAST, HELD_MOST_SHARE = 0.1, 500, 1 / 3  # of the validation images, see `divide`
# Images from which the statistics of batch norms are computed before a measurement: running averages lag behind the
# weights, most in a short training.
STATISTICS, STATISTICS_BATCH = 512, 128
PROBE_STEPS = 4
PROBE_SHARE = 0.05  # of the budget: if the probe takes more, it is not repeated in bfloat16
CHUNK = 20  # number of cells that are scored in one task


def divide(splits: Splits, seed: int) -> Splits:
    """Divide the images other than the test images anew, stratified by class.

    A tenth of them is for validation, but at least HELD_LEAST images, and at most the fraction HELD_MOST_SHARE. The
    validation images are used for all choices, the others for the trainings.
    """
    both = train_and_valid(splits)
    size = len(both.labels)
    least = min(HELD_LEAST, round(HELD_MOST_SHARE * size))
    held = draw_stratified(both.labels, max(round(HELD_SHARE * size), least, 1), generator(seed))
    rest = torch.ones(size, dtype=torch.bool)
    rest[held] = False
    return replace(splits, train=take(both, rest.nonzero().flatten()), valid=take(both, held))


def last_images(images: Splits) -> Split:
    """Return the images for training after all choices: with the validation images if these are below HELD_LEAST."""
    return train_and_valid(images) if len(images.valid.labels) < HELD_LEAST else images.train


class Task(NamedTuple):
    """A part of the training of an entry, or the scores of cells.

    Attributes:
        stage: the stage of the search that it belongs to.
        entry: the number of the entry; -1: no training.
        until: the step to train to.
        end: the last step of the training, if it is known.
        last: whether all choices are made, so that the images of :func:`last_images` are used.
        measure: whether to measure the network afterwards.
        chunk: the first cell to score.
    """

    stage: str
    entry: int = -1
    until: int = 0
    end: int | None = None
    last: bool = False
    measure: bool = False
    chunk: int = 0


class Finished(NamedTuple):
    """The result of a task, which a worker returns.

    Attributes:
        seconds: the cost in CPU-seconds, on a GPU in seconds.
        loss: mean training loss; not finite if the network diverged.
        state: state of the trainee.
        valid, test: log-probabilities [N, classes], if the network was measured.
        mirrored: number of mirrored validation images of each class that are recognized, if the network was measured.
        table: scores of cells by name.
    """

    seconds: float
    loss: float = 0.0
    state: dict[str, Any] | None = None
    valid: Tensor | None = None
    test: Tensor | None = None
    mirrored: Tensor | None = None
    parameters: int = 0
    table: dict[str, Tensor] | None = None


class Worker(NamedTuple):
    """Runs tasks of a search; sent to the worker processes."""

    config: AutoConfig
    networks: Networks
    images: Splits
    candidates: list[Any]

    def work(self, task: Task, entry: NetworkSpec | None, recipe: Recipe, state: dict[str, Any] | None) -> Finished:
        """Do a task.

        Args:
            entry: the network to train; None: score cells.
            state: state of its trainee; None: the training begins.
        """
        device = choose_device(self.config.device)
        if task.stage == "probe":
            return self.probe(recipe, device)
        return self.score(task, device) if entry is None else self.train(task, entry, recipe, state, device)

    def probe(self, recipe: Recipe, device: torch.device) -> Finished:
        """Measure the time of a training step of a narrow and of a wide network.

        The table of the result has ``seconds`` and, if bfloat16 is not set by an option and there is time,
        ``bfloat16``: the same measured in bfloat16.
        """
        images = to_device(self.images.train, device)
        recipes = {"seconds": recipe}
        if self.config.bfloat16 is None and has_bfloat16(device):
            recipes["bfloat16"] = replace(recipe, bfloat16=True)
        table, total = {}, 0.0
        for name, each in recipes.items():
            if total > PROBE_SHARE * self.config.budget:
                break
            times: list[float] = []
            for entry in probed(self.networks):
                trainee = Trainee(self.networks.build(entry).to(device), 0)
                trainee.train(images, each, 2)  # the first steps prepare the convolutions
                before = self.seconds(trainee, device)
                trainee.train(images, each, 2 + PROBE_STEPS)
                total += self.seconds(trainee, device)
                times.append((self.seconds(trainee, device) - before) / PROBE_STEPS)
            table[name] = torch.tensor(times, dtype=torch.float64)
        return Finished(total, table=table)

    def score(self, task: Task, device: torch.device) -> Finished:
        """Compute the training-free scores of a chunk of candidates."""
        chunk = self.candidates[task.chunk : task.chunk + CHUNK]
        space = self.networks.spaces[self.config.space]
        job = ScoreJob(space, chunk, self.networks.splits, device, RANK, seed=self.config.seed)
        while job.epoch < job.epochs:
            job.run_epoch()
        table = job.table()
        columns = {name: torch.from_numpy(values) for name, values in table.scores.items()}
        return Finished(job.seconds, table={**columns, "seconds": torch.from_numpy(table.seconds)})

    def train(
        self, task: Task, entry: NetworkSpec, recipe: Recipe, state: dict[str, Any] | None, device: torch.device
    ) -> Finished:
        """Train a network until a step, and measure the average of its weights."""
        seed = derived_seed(self.config.seed, 100 + task.entry)
        seed_everything(seed)
        weights = class_weights(
            self.config.class_weights, self.images.train.labels.to(device), self.networks.splits.num_classes
        )
        trainee = Trainee(self.networks.build(entry).to(device), seed, weights)
        if state is not None:
            trainee.load_state_dict(state)
        images = to_device(last_images(self.images) if task.last else self.images.train, device)
        before = self.seconds(trainee, device)
        loss = trainee.train(images, recipe, task.until, task.end)
        network = trainee.average.module.eval()
        valid = test = mirrored = None
        if not all_finite(network) or not finite_logits(network, images.images[:1]):
            loss = float("inf")
        elif task.measure:
            with trainee.clock:
                shown = images.images[:STATISTICS]
                update_bn(shown.tensor_split(max(len(shown) // STATISTICS_BATCH, 1)), network)
                valid = log_probabilities(network, self.images.valid)
                flipped = Split(self.images.valid.images.flip(-1), self.images.valid.labels)
                mirrored = recognized(log_probabilities(network, flipped), flipped.labels)
            test = log_probabilities(network, self.images.test)
        seconds = self.seconds(trainee, device) - before
        return Finished(seconds, loss, trainee.state_dict(), valid, test, mirrored, count_parameters(trainee.network))

    def seconds(self, trainee: Trainee, device: torch.device) -> float:
        """Return the cost of a training so far: CPU-seconds on a CPU, seconds on a GPU."""
        return trainee.clock.budget(device)


def right(log_p: Tensor, labels: Tensor) -> float:
    """Return the share of images whose class is the most probable one."""
    return (log_p.argmax(-1) == labels).double().mean().item()


def recognized(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return the number of correctly classified images of each class, int64 [classes]."""
    return torch.bincount(labels[log_p.argmax(-1) == labels], minlength=log_p.shape[1])
