"""The computation of training-free scores of many architectures, as a job that can be interrupted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from automl_ext.data.images import Splits, draw_stratified
from automl_ext.nas.costs import count_macs, count_parameters
from automl_ext.nas.data import network_shape
from automl_ext.nas.estimators.lower_fidelity import global_rng_kept
from automl_ext.nas.estimators.training_free.scores import score_network
from automl_ext.nas.screening.equal_cells import has_dead_node, representative
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.spaces.nasbench201 import EDGES, NASBench201, live_edges
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.batches import take, to_device
from automl_ext.training.errors import UserError
from automl_ext.training.machine.clock import budget_clock
from automl_ext.training.seeding import generator, seed_everything

CHANNELS, CELLS, IMAGES = 16, 1, 16  # default size of the networks and of the batch
LEAST_IMAGES = 4
CHECKPOINTS = 100  # largest number of epochs, and so of checkpoints, of a job


class ScoreJob:
    """Scores architectures, a :class:`~automl_ext.training.epochs.Job` whose epochs score equal numbers of them.

    Every network starts from the same seed, so a score does not depend on the other architectures. In NAS-Bench-201,
    cells that compute the same function are scored once; see
    :func:`~automl_ext.nas.screening.equal_cells.representative`.

    Args:
        splits: images; a stratified batch of the training part is used.
        channels, cells: the size of the networks.
        images: the number of images of the batch.
        seed: seed of the batch and of the weights.
        limit: largest number of seconds that the scores may cost.

    Raises:
        UserError: there are no architectures, or too few images.
    """

    def __init__(
        self,
        space: Space[Any],
        genotypes: Sequence[Any],
        splits: Splits,
        device: torch.device,
        names: Sequence[str],
        *,
        channels: int = CHANNELS,
        cells: int = CELLS,
        images: int = IMAGES,
        seed: int = 0,
        limit: float = math.inf,
    ) -> None:
        if not genotypes:
            raise UserError("score: expected at least one architecture")
        images = min(images, len(splits.train.labels))
        if images < LEAST_IMAGES:
            raise UserError(f"score: expected at least {LEAST_IMAGES} training images, got {images}")
        self.space, self.genotypes, self.names, self.seed = space, list(genotypes), tuple(names), seed
        drawn = draw_stratified(splits.train.labels, images, generator(seed))
        self.limit = limit
        self.batch, self.device = to_device(take(splits.train, drawn), device), device
        self.shape = network_shape(splits, channels, cells)
        self.networks = list(dict.fromkeys(distinct(space, genotype) for genotype in self.genotypes))
        self.size = -(-len(self.networks) // CHECKPOINTS)  # architectures per epoch
        self.epochs, self.epoch = -(-len(self.networks) // self.size), 0
        self.rows: list[list[float]] = []  # scores and seconds of each distinct architecture

    @property
    def seconds(self) -> float:
        """The cost so far: CPU-seconds on a CPU, wall-clock seconds on a GPU."""
        return sum(row[-1] for row in self.rows)

    def run_epoch(self) -> dict[str, float]:
        """Score the next architectures. Return the number scored so far and its cost.

        Raises:
            UserError: the limit is exceeded.
        """
        clock = budget_clock(self.device)
        for genotype in self.networks[len(self.rows) : len(self.rows) + self.size]:
            start = clock()
            with global_rng_kept():
                seed_everything(self.seed)
                network = self.build(genotype).to(self.device)
                scores = score_network(network, self.batch.images, self.names)
            self.rows.append([*scores.values(), clock() - start])
        self.epoch += 1
        if self.seconds > self.limit:
            done, count = len(self.rows), len(self.networks)
            raise UserError(
                f"screen: scores of {done} of {count} architectures took {self.seconds:.0f} s, more than the budget "
                f"of {self.limit:g} s"
            )
        return {"architectures": len(self.rows), "seconds": self.seconds}

    def build(self, genotype: Any) -> nn.Module:
        return self.space.build(genotype, **self.shape)

    def table(self) -> ScoreTable:
        """Return the scores of all architectures, after the last epoch."""
        place = {genotype: i for i, genotype in enumerate(self.networks)}
        rows = torch.tensor([self.rows[place[distinct(self.space, g)]] for g in self.genotypes], dtype=torch.float64)
        columns = {name: rows[:, k].numpy() for k, name in enumerate(self.names)}
        # Unused convolutions have parameters, and those of zeros run; the representative lacks both. Cells of
        # NAS-Bench-201 with the same operations in another order have equal numbers.
        image = self.batch.images.shape[1:]
        for name, edges, count in (
            ("parameters", lambda _: range(len(EDGES)), count_parameters),
            ("multiply_adds", live_edges, partial(count_macs, image=image)),
        ):
            counts: dict[tuple[str, ...], int] = {}
            for i, genotype in enumerate(self.genotypes if name in columns else []):
                if genotype not in place and columns[name][i] > -math.inf:
                    operations = tuple(sorted(genotype.operations[e] for e in edges(genotype)))
                    if operations not in counts:
                        with torch.device("meta"):
                            counts[operations] = count(self.build(genotype))
                    columns[name][i] = counts[operations]
        return ScoreTable(self.genotypes, columns, rows[:, -1].numpy())

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "rows": torch.tensor(self.rows, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rows, done = state["rows"], min(state["epoch"] * self.size, len(self.networks))
        if len(rows) != done or (done and rows.shape != (done, len(self.names) + 1)):
            raise ValueError(f"rows: expected scores of {done} architectures, got shape {tuple(rows.shape)}")
        self.epoch, self.rows = state["epoch"], rows.tolist()


def distinct(space: Space[Any], genotype: Any) -> Any:
    """Return the architecture whose scores ``genotype`` has: itself, or one that computes the same function."""
    return representative(genotype) if isinstance(space, NASBench201) else genotype


def complete(space: Space[Any], genotype: Any) -> bool:
    """Return whether all nodes of a cell of NAS-Bench-201 are used; True in other spaces."""
    return not (isinstance(space, NASBench201) and has_dead_node(genotype))
