"""A network in the race: the state of its training, and its measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from automl_ext.nas.auto.plan import NetworkSpec
from automl_ext.nas.auto.trainee import DECAY
from automl_ext.nas.auto.work import Finished, Task, recognized
from automl_ext.training.ensembles.selection import log_loss


@dataclass
class Entrant:
    """A network that is trained.

    Attributes:
        number: its index, which names the file of its weights and seeds its training.
        steps, epochs, seconds: length and cost of its training so far.
        end: the last step of the training, once it is known.
        losses: validation log-loss after each measurement, in nats; infinite if the network diverged.
        learned: for each of ``losses``, whether it is below that of chance; see :func:`beats_chance`.
        clean: number of snapshots that were taken before the network was trained on validation images.
        mirrored: for each of ``losses``, the number of validation images of each class that are recognized, mirrored
            and as they are; None if the network diverged.
        state: state of its :class:`~automl_ext.nas.auto.trainee.Trainee`; None: its training has not begun.
        snapshots: log-probabilities of the validation and of the test images, after each measurement.
        measured_at: seconds of its training at each measurement.
    """

    number: int
    entry: NetworkSpec
    baseline: bool = False
    steps: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    end: int | None = None
    parameters: int = 0
    losses: list[float] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    clean: int = 0
    mirrored: list[tuple[Tensor, Tensor] | None] = field(default_factory=list)
    state: dict[str, Any] | None = None
    snapshots: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    measured_at: list[float] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.diverged or (self.end is not None and self.steps >= self.end)

    @property
    def diverged(self) -> bool:
        return bool(self.losses) and not math.isfinite(self.losses[-1])

    @property
    def decay_start(self) -> int:
        """The step from which on the rate falls."""
        assert self.end is not None
        return math.ceil((1 - DECAY) * self.end)

    def take(self, task: Task, finished: Finished, labels: Tensor, chance: Tensor) -> None:
        """Take the result of a task.

        Args:
            labels: labels of the validation images.
            chance: log-probabilities of the classes for predictions by class frequency, without an image.
        """
        assert finished.state is not None
        self.state, self.parameters = finished.state, finished.parameters
        self.steps, self.epochs = finished.state["step"], finished.state["epochs"]
        self.seconds += finished.seconds
        if not math.isfinite(finished.loss):
            self.losses.append(math.inf)
            self.learned.append(False)
            self.mirrored.append(None)
        elif finished.valid is not None and finished.test is not None and finished.mirrored is not None:
            self.mirrored.append((finished.mirrored, recognized(finished.valid, labels)))
            self.snapshots.append((finished.valid, finished.test))
            self.clean += not task.last
            self.measured_at.append(self.seconds)
            self.losses.append(log_loss(finished.valid.double().exp(), labels))
            self.learned.append(beats_chance(finished.valid, labels, chance))

    def weights(self) -> dict[str, Tensor]:
        """Return the average of the weights."""
        assert self.state is not None
        prefix = "module."
        return {k.removeprefix(prefix): v for k, v in self.state["average"].items() if k.startswith(prefix)}

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "entry": tuple(self.entry)}

    @classmethod
    def from_state(cls, values: dict[str, Any]) -> Entrant:
        return cls(**{**values, "entry": NetworkSpec(*values["entry"])})


def beats_chance(log_p: Tensor, labels: Tensor, chance: Tensor) -> bool:
    """Return whether the log-loss of predictions is below that of chance by more than two standard errors.

    Args:
        log_p: log-probabilities [N, classes].
        chance: log-probabilities [classes] of predictions by class frequency, without an image.
    """
    gains = log_p.gather(1, labels[:, None])[:, 0].double() - chance[labels]
    return len(gains) > 1 and gains.mean().item() > 2 * gains.std().item() / len(gains) ** 0.5
