"""Search by perturbation with fixed α (DARTS-PT, "fix α": Wang et al., ICLR 2021, algorithm 1 and section 5.2).

    1. train the weights ω of the supernet, in which all operations run; α is never trained, and near 0
    2. for each edge, in random order:
           for each candidate o:  a(o) = accuracy of the supernet without o on this edge
           the edge keeps argmin a(o), the operation whose removal hurts most;  train ω for a few epochs
       for each node, in random order, if the space limits its inputs:
           remove the edge whose removal hurts least, until the limit is reached;  train ω

The found cell depends on the order of the edges. With ``orders`` above 1, several cells are derived from the same
weights, each in its own random order, and training-free scores choose among them: the accuracy of a derived cell with
the supernet's weights, which were trained for the mixture of all operations, does not show which cell is good. The
choice among orders is of this package; the paper has one order and 5 epochs of training after each decision.

As in the authors' code, the mixing weights of the other operations keep their values when one operation is removed,
batch norm uses the statistics of the batch, and the learning rate of step 2 is a tenth of the search's. Equal
accuracies are decided by the loss. Unlike in that code, accuracies are measured on the first IMAGES images of the
second half of the training images, which are not augmented, and SGD has Nesterov momentum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from automl_ext.data.images import Split, Splits
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.score_job import ScoreJob
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import Choice, Supernet
from automl_ext.nas.supernets.candidates import NONE, all_candidates, decode, masked
from automl_ext.nas.supernets.darts import mix
from automl_ext.nas.supernets.loop import Iteration, SupernetAlgorithm, SupernetSearch
from automl_ext.nas.supernets.supernet_options import SupernetConfig
from automl_ext.nas.training.batches import epoch_batches
from automl_ext.nas.training.sgd import sgd
from automl_ext.nas.training.training_options import LARGEST
from automl_ext.training import ranks
from automl_ext.training.checks import check_range
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.optimizer_state import load_optimizer

IMAGES = 1000  # largest number of images on which an accuracy is measured (the authors: the whole second half)
Result = tuple[float, float]  # accuracy and −loss, the deciding one first


@dataclass
class PerturbationConfig(SupernetConfig):
    """Configuration of a search by perturbation, and of the training of the architecture that it finds."""

    name: ClassVar[str] = "perturbation"
    tune_epochs: int = 0  # Epochs of training after each edge that is decided (the paper: 5).
    orders: int = 8  # Number of derivations, each with its own order of edges; training-free scores choose one cell.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "tune_epochs", low=0, high=LARGEST)
        check_range(self, "orders", low=1, high=LARGEST)
        if self.orders > 1 and self.tune_epochs:
            raise ValueError(
                f"orders: expected 1 with tune_epochs {self.tune_epochs}, got {self.orders}: all derivations start "
                "from the same weights, so set tune_epochs to 0"
            )

    def algorithm(self, *arguments: Any) -> EqualWeights:
        return EqualWeights(self, *arguments)

    def derivation(self, search: SupernetSearch) -> Perturbation:
        return Perturbation(search)


class EqualWeights(SupernetAlgorithm[PerturbationConfig]):
    """Step 1: train the weights; all operations of an edge have nearly equal weights, because α is never trained."""

    def iterate(self, epoch: int, progress: float, train: Iterator[Split], valid: Iterator[Split]) -> Iteration:
        """Take a step on the weights.

        Arguments and result are those of :meth:`automl_ext.nas.supernets.loop.SupernetAlgorithm.iterate`.
        """
        set_cosine_lr(self.weight_optimizer, progress, self.config.lr, self.config.final_lr)
        with torch.no_grad():
            choices = mix(self.alphas())
        return Iteration(self.weight_step(self.weight_optimizer, next(train), choices), choices)

    def weight_step(self, optimizer: Optimizer, batch: Split, choices: list[Choice]) -> Tensor:
        """Take one SGD step on the weights. Return the loss of the batch, 0-dim, detached."""
        optimizer.zero_grad()
        loss = self.loss(batch, choices)
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.weights(), self.config.grad_clip)
        optimizer.step()
        return loss.detach()


class Perturbation:
    """Step 2: derive an architecture from a finished search; a :class:`~automl_ext.training.epochs.Job`.

    An epoch decides one edge or node, then trains the weights for ``tune_epochs`` epochs, except the last one.

    Attributes:
        allowed: masks in the shapes of α; at the end of an order, one operation per edge.
        derived: the masks of all finished orders.
    """

    def __init__(self, search: SupernetSearch) -> None:
        config = cast(PerturbationConfig, search.config)
        self.search, self.supernet, self.tune_epochs = search, search.supernet, config.tune_epochs
        self.derived: list[list[Tensor]] = []
        self.allow_all()
        self.decisions = len(self.edges) + len(self.nodes)
        self.epoch, self.epochs = 0, config.orders * self.decisions
        self.images = Split(search.alpha_images.images[:IMAGES], search.alpha_images.labels[:IMAGES])
        self.optimizer = sgd(self.supernet.weights(), config.lr / 10, config.momentum, config.weight_decay)

    def begin_order(self) -> None:
        """Allow all candidates again, and draw an order of edges and nodes."""
        self.allow_all()
        for places in (self.edges, self.nodes):
            places[:] = [places[i] for i in torch.randperm(len(places), generator=self.search.rng)]

    def allow_all(self) -> None:
        """Allow all candidates, and list all edges and nodes to decide, as pairs (kind of cell, index)."""
        search, supernet = self.search, self.supernet
        self.allowed = [mask.clone() for mask in search.allowed or all_candidates(supernet)]
        self.edges = [(kind, edge) for kind, mask in enumerate(self.allowed) for edge in range(len(mask))]
        self.nodes: list[tuple[int, int]] = []
        if supernet.inputs is not None:  # the space has no edges of "none": it keeps the strongest edges of a node
            for mask in self.allowed:
                mask[:, supernet.operations.index(NONE)] = False
            self.nodes = [(kind, i) for kind in range(len(self.allowed)) for i in range(len(supernet.nodes))]

    def run_epoch(self) -> dict[str, float]:
        """Decide one edge or node.

        Returns:
            The accuracy without the operation or edge whose removal hurts most, and without the one whose removal hurts
            least; the mean loss of the training that follows.
        """
        with self.search.clock:
            self.supernet.train()
            place = self.epoch % self.decisions
            if place == 0:
                self.begin_order()
            if place < len(self.edges):
                results = self.decide_edge(*self.edges[place])
            else:
                results = self.decide_node(*self.nodes[place - len(self.edges)])
            self.epoch += 1
            if place == self.decisions - 1:
                self.derived.append([mask.clone() for mask in self.allowed])
            scalars = {"accuracy_without_best": min(results)[0], "accuracy_without_worst": max(results)[0]}
            if self.epoch < self.epochs and self.tune_epochs:
                scalars["loss"] = self.tune()
            return scalars

    def decide_edge(self, kind: int, edge: int) -> list[Result]:
        """Keep the operation of an edge whose removal hurts most.

        Returns:
            The accuracy and −loss of the supernet without each candidate.
        """
        candidates = self.allowed[kind][edge].nonzero().flatten().tolist()
        results = ranks.from_first([self.measure(self.without(kind, edge, k)) for k in candidates])
        self.keep(kind, edge, candidates[results.index(min(results))])
        return results

    def decide_node(self, kind: int, node: int) -> list[Result]:
        """Remove those edges of a node whose removal hurts least, until as many are left as the space allows.

        Returns:
            The accuracy and −loss of the supernet without each of the node's edges, before the first removal.
        """
        none, left = self.supernet.operations.index(NONE), list(self.supernet.nodes[node])
        first: list[Result] = []
        while len(left) > (self.supernet.inputs or 0):
            results = []
            for edge in left:
                kept = self.allowed[kind][edge].clone()
                self.keep(kind, edge, none)
                results.append(self.measure(self.choices()))
                self.allowed[kind][edge] = kept
            results = ranks.from_first(results)
            self.keep(kind, left.pop(results.index(max(results))), none)
            first = first or results
        return first or [self.measure(self.choices())]

    def keep(self, kind: int, edge: int, operation: int) -> None:
        self.allowed[kind][edge] = False
        self.allowed[kind][edge, operation] = True

    def choices(self) -> list[Choice]:
        """Return the operations that a pass of the supernet runs, given the decisions so far."""
        return mix(self.alphas())

    def without(self, kind: int, edge: int, operation: int) -> list[Choice]:
        """Return the operations that a pass runs if ``operation`` is removed from ``edge``."""
        choices = self.choices()
        weights = choices[kind].weights.clone()
        weights[edge, operation] = 0
        choices[kind] = Choice.support(weights)
        return choices

    def alphas(self, allowed: list[Tensor] | None = None) -> list[Tensor]:
        """Return α with −inf for all operations that were not kept, or that the given masks exclude."""
        return masked([alpha.detach() for alpha in self.supernet.alphas], self.allowed if allowed is None else allowed)

    @torch.no_grad()
    def measure(self, choices: list[Choice]) -> Result:
        return measure(self.supernet, self.images, self.search.config.batch_size, choices)

    def tune(self) -> float:
        """Train the weights with the decisions so far. Return the mean loss."""
        search, algorithm, losses = self.search, cast(EqualWeights, self.search.algorithm), []
        for _ in range(self.tune_epochs):
            order = epoch_batches(len(search.weight_images.labels), search.config.batch_size, search.rng)
            for batch in search.batches(search.weight_images, order):
                losses.append(algorithm.weight_step(self.optimizer, batch, self.choices()))
        return ranks.mean(torch.stack(losses).mean()).item()

    def genotypes(self) -> list[Any]:
        """Return the architecture that each finished order derived."""
        return [decode(self.supernet, self.alphas(masks)) for masks in self.derived]

    def keep_best(self, space: Space[Any], splits: Splits) -> None:
        """Keep the architecture with the highest training-free rank, among those that several orders derived."""
        if len(self.derived) == 1:
            return
        with self.search.clock:
            device, seed = self.search.weight_images.labels.device, self.search.config.seed
            self.allowed = self.derived[best_by_rank(self.genotypes(), space, splits, device, seed)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "search": self.search.state_dict(),
            "epoch": self.epoch,
            "edges": self.edges,
            "nodes": self.nodes,
            "allowed": self.allowed,
            "derived": self.derived,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.search.load_state_dict(state["search"])
        if sorted(state["edges"]) != sorted(self.edges) or sorted(state["nodes"]) != sorted(self.nodes):
            raise ValueError("edges, nodes: expected an order of the edges and nodes of this space")
        self.epoch, self.edges, self.nodes = state["epoch"], state["edges"], state["nodes"]
        for mask, stored in zip(self.allowed, state["allowed"], strict=True):
            mask.copy_(stored)
        self.derived = [[mask.to(self.allowed[0].device) for mask in masks] for masks in state["derived"]]
        load_optimizer(self.optimizer, state["optimizer"])


def measure(supernet: Supernet, images: Split, batch_size: int, choices: list[Choice]) -> Result:
    """Measure a supernet in training mode.

    The batches have equal sizes, up to one image, because each is normalized by its own statistics.

    Returns:
        (accuracy, −mean loss), so that a larger pair is a better network.
    """
    correct, losses = [], []
    parts = math.ceil(len(images.labels) / batch_size)
    for x, y in zip(images.images.tensor_split(parts), images.labels.tensor_split(parts), strict=True):
        logits = supernet(x, *choices)
        correct.append((logits.argmax(-1) == y).double().sum())
        losses.append(F.cross_entropy(logits, y, reduction="sum").double())
    totals = torch.stack([torch.stack(correct).sum(), torch.stack(losses).sum()])
    accuracy, loss = (totals / len(images.labels)).tolist()
    return accuracy, -loss


def best_by_rank(genotypes: Sequence[Any], space: Space[Any], splits: Splits, device: torch.device, seed: int) -> int:
    """Return the index of the architecture with the best training-free rank among ``genotypes``; the first if tied.

    The scores are the same as in a screening.

    Raises:
        UserError: fewer than four training images.
    """
    scoring = ScoreJob(space, genotypes, splits, device, RANK, seed=seed)
    while scoring.epoch < scoring.epochs:
        scoring.run_epoch()
    return int(scoring.table().rank().argmax())
