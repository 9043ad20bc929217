"""Candidates from a supernet: a differentiable search with a time limit, as a job of ``search auto``.

It is ``search perturbation``: the weights of the supernet are trained with equal weights of all operations, then
architectures are derived by perturbation in several random orders of the edges, and ordered by training-free scores.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from automl_ext.data.images import Splits
from automl_ext.nas.auto.plan import SUPERNET_STEPS, AutoConfig
from automl_ext.nas.spaces.space import Space, supernet_of
from automl_ext.nas.supernets.candidates import all_candidates
from automl_ext.nas.supernets.loop import SupernetSearch
from automl_ext.nas.supernets.perturbation import EqualWeights, Perturbation, PerturbationConfig, by_rank
from automl_ext.training.errors import UserError

IMAGES = 500  # number of images on which a decision is measured, by its loss
MOST_STEPS = 2000  # largest number of optimizer steps of the supernet
MOST_ORDERS = 8
LEAST_ORDERS = 4  # among fewer architectures there is little choice
DERIVING = 0.6  # largest share of the time for the derivations
FORWARD = 1 / 3  # cost of a forward pass relative to a training step


class DeriveJob:
    """Trains a supernet and derives architectures, a :class:`~automl_ext.training.epochs.Job`.

    The first epoch is measured. If the time does not suffice for SUPERNET_STEPS optimizer steps and LEAST_ORDERS
    derivations, the job ends after this epoch, without architectures.

    Args:
        seconds: time limit, in CPU-seconds (seconds on a GPU).

    Raises:
        UserError: the space has no supernet.
    """

    def __init__(
        self, config: AutoConfig, space: Space[Any], splits: Splits, device: torch.device, seconds: float
    ) -> None:
        self.space, self.splits, self.device, self.limit = space, splits, device, seconds
        options = PerturbationConfig(
            space=config.space,
            seed=config.seed,
            device=config.device,
            channels=config.channels,
            cells=config.cells,
            batch_size=config.batch_size,
            shift=config.shift,
            flip=config.flip,
            class_weights=config.class_weights,
        )
        self.search = SupernetSearch(options, space, splits, device, EqualWeights)
        self.derivation: Perturbation | None = None
        self.epoch, self.epochs, self.orders = 0, 2, 0  # until the first epoch is measured

    def run_epoch(self) -> dict[str, float]:
        """Train the supernet for an epoch, or decide one edge or node of a derivation.

        Returns:
            Measurements of the epoch or of the decision.
        """
        if self.derivation is None:
            measured = self.search.run_epoch()
            named = {f"supernet_{name}": measured[name] for name in ("loss", "supernet_accuracy")}
            if self.epoch == 0:
                self.set_plan(*self.plan())
            if self.orders and self.search.epoch == self.search.epochs:
                self.derivation = self.make_derivation()
        else:
            named = {f"derive_{name}": value for name, value in self.derivation.run_epoch().items()}
        self.epoch += 1
        return named

    def plan(self) -> tuple[int, int]:
        """Return the numbers of epochs and of orders, from the time of the first epoch; (1, 0) to end after it."""
        search, epoch = self.search, self.seconds
        images = len(search.weight_images.labels)
        steps = max(images // search.config.batch_size, 1)
        candidates = sum(int(mask.sum()) for mask in search.allowed or all_candidates(search.supernet))
        order = FORWARD * epoch * candidates * min(IMAGES, len(search.alpha_images.labels)) / images
        orders = min(MOST_ORDERS, int(DERIVING * self.limit / order))
        epochs = min(int((self.limit - orders * order) / epoch), math.ceil(MOST_STEPS / steps))
        return (epochs, orders) if orders >= LEAST_ORDERS and epochs * steps >= SUPERNET_STEPS else (1, 0)

    def set_plan(self, epochs: int, orders: int) -> None:
        """Set the numbers of epochs of the supernet and of orders; without orders, the job ends after its epochs."""
        search, self.orders = self.search, orders
        search.config, search.epochs = replace(search.config, epochs=epochs), epochs
        self.epochs = epochs + self.make_derivation().epochs

    def make_derivation(self) -> Perturbation:
        return Perturbation(self.search, self.orders, images=IMAGES, by_loss=True)

    def genotypes(self) -> list[Any]:
        """Return the architectures that a finished job derived, the one with the highest training-free rank first."""
        if self.derivation is None:
            return []
        found = self.derivation.genotypes()
        with self.search.clock:
            order = by_rank(found, self.space, self.splits, self.device, self.search.config.seed)
        return list(dict.fromkeys(found[i] for i in order))

    @property
    def seconds(self) -> float:
        """The cost so far: CPU-seconds on a CPU, seconds on a GPU."""
        return self.search.clock.cpu if self.device.type == "cpu" else self.search.clock.wall

    def state_dict(self) -> dict[str, Any]:
        job = self.search if self.derivation is None else self.derivation
        plan = self.search.epochs, self.orders
        return {"plan": plan, "derives": self.derivation is not None, "epoch": self.epoch, "job": job.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["epoch"]:
            self.set_plan(*state["plan"])
        self.epoch = state["epoch"]
        if state["derives"]:
            self.derivation = self.make_derivation()
            self.derivation.load_state_dict(state["job"])
        else:
            self.search.load_state_dict(state["job"])


def has_supernet(space: Space[Any]) -> bool:
    """Return whether the space can build a supernet."""
    try:
        with torch.device("meta"):
            supernet_of(space, in_channels=1, num_classes=2, channels=4, cells=1, form="darts")
    except UserError:
        return False
    return True
