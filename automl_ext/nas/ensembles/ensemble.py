"""Ensembles of trained architectures: several trainings of one, different ones, or both, selected greedily.

    1. train every member on the training images
    2. select members, with replacement, by the log-loss of their average on the validation images
    3. test the average of the selected members, the average of all, and the member with the best validation loss

Caruana et al., "Ensemble selection from libraries of models", ICML 2004. Members of different, randomly drawn
architectures: Zaidi et al., "Neural ensemble search", NeurIPS 2021.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits
from automl_ext.nas.costs import count_parameters
from automl_ext.nas.data import network_shape, prepare
from automl_ext.nas.ensembles.network import save_member
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.batches import logits, to_device, without_validation
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.series import Trainings, train_series
from automl_ext.nas.training.training_options import MANY, TrainingConfig
from automl_ext.training.checks import MOST_WORKERS, check_range
from automl_ext.training.ensembles.selection import greedy_selection, likelihoods, log_loss
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device
from automl_ext.training.seeding import derived_seed


@dataclass
class EnsembleConfig(TrainingConfig):
    """Configuration of an ensemble: its members, trained in the same way with different seeds, and their selection."""

    genotype: str | None = None  # Architecture to train `restarts` times; none by default.
    restarts: int = 5  # Number of trainings of `genotype`.
    members: tuple[str, ...] = ()  # Architectures to train once each.
    random_cells: int = 0  # Number of further architectures, drawn uniformly.
    rounds: int = 50  # Number of rounds of the greedy selection; each round adds one vote for a member.
    # Number of members that are trained at the same time. It divides the threads (OMP_NUM_THREADS); results are equal
    # for an equal number of threads per process.
    workers: int = field(default=1, metadata={"without_effect": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "workers", low=1, high=MOST_WORKERS)
        check_range(self, "restarts", "rounds", low=1, high=MANY)
        check_range(self, "random_cells", low=0, high=MANY)


class MemberTrainings(Trainings):
    """The trainings of the members."""

    prefix = "member"

    def start(self, number: int) -> NetworkTraining:
        seeded = dataclasses.replace(self.config, seed=derived_seed(self.config.seed, number))
        device = choose_device(self.config.device)
        return NetworkTraining(seeded, self.space, self.genotypes[number], without_validation(self.splits), device)

    def measure(self, number: int, training: NetworkTraining) -> dict[str, Any]:
        return predictions(training, self.genotypes[number], self.splits)

    def keep(self, number: int, weights: dict[str, Tensor], run: Path) -> None:
        save_member(run, number, weights)


def ensemble(
    config: EnsembleConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Train the members, select an ensemble and test it.

    Arguments are those of :func:`~automl_ext.nas.training.retrain.retrain`; ``stop_after`` counts the epochs of all
    members together.

    Returns:
        The contents of ``result.json``; None if the run was interrupted. ``greedy``, ``average`` (of all members) and
        ``best_single`` (lowest validation log-loss) each have test_log_loss, valid_log_loss (nats), test_accuracy,
        valid_accuracy (0 to 1) and ``votes``, one per member. ``members`` has the genotype, seed, parameters and the
        same measurements of each member. The weights are in the folder ``members`` of the run; see
        :func:`automl_ext.nas.ensembles.network.load_ensemble`.

    Raises:
        UserError: the data, a genotype, the configuration or the run directory is invalid.
    """
    space = space or spaces.space(config.space)
    genotypes = member_genotypes(config, space)
    config, splits = prepare(config, data)

    def summarize(trained: list[dict[str, Any]]) -> dict[str, Any]:
        shape = network_shape(splits, config.channels, config.cells)
        return {**select(trained, splits, config.rounds), "space": config.space, "network": shape}

    trainings = MemberTrainings(config, space, genotypes, splits)
    return train_series(out, "ensemble", trainings, summarize, resume, stop_after)


def member_genotypes(config: EnsembleConfig, space: Space[Any]) -> list[Any]:
    """Return the genotypes to train, in order.

    Raises:
        UserError: there is none, or one is invalid.
    """
    restarts = [config.genotype] * config.restarts if config.genotype is not None else []
    written = [spaces.parse_genotype(space, text) for text in [*restarts, *config.members]]
    if not written and not config.random_cells:
        raise UserError("ensemble: expected --genotype, --members or --random-cells: there is no member to train")
    rng = Random(config.seed)
    return written + [space.random(rng) for _ in range(config.random_cells)]


def predictions(training: NetworkTraining, genotype: Any, splits: Splits) -> dict[str, Any]:
    """Return the predictions of a trained member, which the selection needs, and its facts for the result."""
    return {
        "genotype": str(genotype),
        "seed": training.config.seed,
        "parameters": count_parameters(training.network),
        "valid": log_probabilities(training.network, splits.valid),
        "test": log_probabilities(training.network, splits.test),
        "times": {"seconds": training.clock.wall, "cpu_seconds": training.clock.cpu},
    }


def log_probabilities(network: nn.Module, split: Split) -> Tensor:
    """Compute the network's log-probabilities in evaluation mode: [N, classes], on the CPU."""
    return torch.log_softmax(logits(network, to_device(split, next(network.parameters()).device)), -1).cpu()


def select(trained: list[dict[str, Any]], splits: Splits, rounds: int) -> dict[str, Any]:
    """Select the ensemble and measure it, the average of all members, and each member."""
    valid, test = (torch.stack([m[part] for m in trained]).double().exp() for part in ("valid", "test"))
    alone = torch.eye(len(trained), dtype=torch.int64).tolist()
    singles = [measure_votes(votes, valid, test, splits) for votes in alone]
    best = min(singles, key=lambda single: single["valid_log_loss"])
    greedy = greedy_selection(likelihoods(valid, splits.valid.labels), rounds)
    facts = ("genotype", "seed", "parameters", "times")
    return {
        "greedy": measure_votes(greedy, valid, test, splits),
        "average": measure_votes([1] * len(trained), valid, test, splits),
        "best_single": best,
        "members": [
            {key: m[key] for key in facts} | {k: v for k, v in single.items() if k != "votes"}
            for m, single in zip(trained, singles, strict=True)
        ],
    }


def measure_votes(votes: list[int], valid: Tensor, test: Tensor, splits: Splits) -> dict[str, Any]:
    """Compute log-loss and accuracy of the ensemble whose probabilities are the members' average, weighted by votes.

    Args:
        votes: number of votes of each member.
        valid, test: probabilities of the validation and test images, [members, images, classes].
    """
    weights = torch.tensor(votes, dtype=torch.float64) / sum(votes)
    valid_mean, test_mean = (torch.einsum("m,mnc->nc", weights, p) for p in (valid, test))
    return {
        "test_log_loss": log_loss(test_mean, splits.test.labels),
        "test_accuracy": (test_mean.argmax(-1) == splits.test.labels).double().mean().item(),
        "valid_log_loss": log_loss(valid_mean, splits.valid.labels),
        "valid_accuracy": (valid_mean.argmax(-1) == splits.valid.labels).double().mean().item(),
        "votes": votes,
    }
