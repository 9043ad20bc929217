"""Ensembles of trained architectures: restarts of one, sampled ones, or both; greedy selection among them.

    1. train every member on the training images
    2. choose members, with replacement, by the log-loss of their average on the validation images
    3. test the average of the chosen, that of all, and the member that is best in validation: once, at the end

Caruana et al., "Ensemble selection from libraries of models", ICML 2004. Members of different architectures, drawn at
random: Zaidi et al., "Neural ensemble search", NeurIPS 2021.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits, load_images, split_images
from automl_ext.nas.ensembles.network import save_member
from automl_ext.nas.ensembles.selection import greedy_selection, likelihoods, log_loss
from automl_ext.nas.retraining.images import take, to_device
from automl_ext.nas.retraining.retrain import (
    MANY,
    Training,
    TrainingConfig,
    count_parameters,
    network_shape,
    parse_genotype,
)
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.training.checks import check_range
from automl_ext.training.device import choose_device
from automl_ext.training.epochs import Epochs
from automl_ext.training.errors import UserError
from automl_ext.training.run import Run
from automl_ext.training.seeding import derived_seed


@dataclass
class EnsembleConfig(TrainingConfig):
    """Train members alike, each from a seed of its own, and choose among them."""

    genotype: str | None = None  # an architecture to train ``restarts`` times
    restarts: int = 5
    members: tuple[str, ...] = ()  # architectures to train once each
    random_cells: int = 0  # so many more, drawn uniformly
    rounds: int = 50  # of the greedy selection: the largest number of votes

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "restarts", "rounds", low=1, high=MANY)
        check_range(self, "random_cells", low=0, high=MANY)


def ensemble(
    config: EnsembleConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
) -> dict[str, Any] | None:
    """Train the members in the run directory ``out``, choose, and test.

    Args:
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: interrupt after so many epochs, of all members together.
        space: the search space, in place of the one that ``config.space`` names.

    Returns:
        What ``result.json`` holds. ``greedy``, ``average`` (of all members) and ``best_single`` (lowest log-loss in
        validation), each with test_log_loss (nats), test_accuracy (0 to 1), valid_log_loss and ``votes``, one per
        member. ``members``: genotype, seed, parameters, and the same losses of each alone; their weights are in the
        folder ``members``, see :func:`automl_ext.nas.ensembles.network.load_ensemble`. None when stopped.

    Raises:
        UserError: bad data, genotype, configuration or run directory.
    """
    space = space or spaces.space(config.space)
    genotypes = members_of(config, space)
    splits = split_images(load_images(config.data, subset=config.subset))
    device = choose_device(config.device)

    def start(number: int) -> Training:
        seeded = dataclasses.replace(config, seed=derived_seed(config.seed, number))
        return Training(seeded, space, genotypes[number], without_validation(splits), device)

    training = start(0)  # before there is a directory: it may be refused
    trained: list[dict[str, Any]] = []

    def load(state: dict[str, Any]) -> None:
        nonlocal trained, training
        trained = state["trained"]
        training = start(len(trained))
        training.load_state_dict(state["job"])

    with Run.open(out, config, algorithm="ensemble", resume=resume, load=load) as run:
        first = len(trained)
        with Epochs(run, len(genotypes) * config.epochs, "ensemble", stop_after) as epochs:
            for i in range(first, len(genotypes)):
                training = training if i == first else start(i)
                if not epochs.run(training, f"member{i}", {"trained": trained}):
                    return None
                save_member(run.path, i, training.network)
                trained = [*trained, member(training, genotypes[i], splits)]
        result = select(trained, splits, config.rounds)
        result["space"], result["network"] = config.space, network_shape(splits, config.channels, config.cells)
        run.finish(result)
        return result


def members_of(config: EnsembleConfig, space: Space[Any]) -> list[Any]:
    """The genotypes to train, in order."""
    restarts = [config.genotype] * config.restarts if config.genotype is not None else []
    written = [parse_genotype(space, text) for text in [*restarts, *config.members]]
    if not written and not config.random_cells:
        raise UserError("ensemble: expected --genotype, --members or --random-cells: there is no member to train")
    rng = Random(config.seed)
    return written + [space.random(rng) for _ in range(config.random_cells)]


def without_validation(splits: Splits) -> Splits:
    """A final training learns from the validation images too; members must not, for they are chosen by them."""
    return dataclasses.replace(splits, valid=take(splits.valid, torch.arange(0)))


def member(training: Training, genotype: Any, splits: Splits) -> dict[str, Any]:
    """What is kept of a trained network: its predictions."""
    return {
        "genotype": str(genotype),
        "seed": training.config.seed,
        "parameters": count_parameters(training.network),
        "valid": log_probabilities(training.network, splits.valid),
        "test": log_probabilities(training.network, splits.test),
        "times": {"seconds": training.clock.wall, "cpu_seconds": training.clock.cpu},
    }


@torch.no_grad()
def log_probabilities(network: nn.Module, split: Split) -> Tensor:
    """[N, classes], on the CPU, evaluating."""
    split = to_device(split, next(network.parameters()).device)
    network.eval()
    return torch.cat([torch.log_softmax(network(images), -1).cpu() for images in split.images.split(500)])


def select(trained: list[dict[str, Any]], splits: Splits, rounds: int) -> dict[str, Any]:
    """The result: which members to average, and what that is worth."""
    valid, test = (torch.stack([m[part] for m in trained]).double().exp() for part in ("valid", "test"))
    alone = torch.eye(len(trained), dtype=torch.int64).tolist()
    singles = [measure(votes, valid, test, splits) for votes in alone]
    best = min(singles, key=lambda single: single["valid_log_loss"])
    greedy = greedy_selection(likelihoods(valid, splits.valid.labels), rounds)
    facts = ("genotype", "seed", "parameters", "times")
    return {
        "greedy": measure(greedy, valid, test, splits),
        "average": measure([1] * len(trained), valid, test, splits),
        "best_single": best,
        "members": [
            {key: m[key] for key in facts} | {k: v for k, v in single.items() if k != "votes"}
            for m, single in zip(trained, singles, strict=True)
        ],
    }


def measure(votes: list[int], valid: Tensor, test: Tensor, splits: Splits) -> dict[str, Any]:
    """Of the average of the members' probabilities, [members, images, classes], weighted by votes."""
    weights = torch.tensor(votes, dtype=torch.float64) / sum(votes)
    valid_mean, test_mean = (torch.einsum("m,mnc->nc", weights, p) for p in (valid, test))
    return {
        "test_log_loss": log_loss(test_mean, splits.test.labels),
        "test_accuracy": (test_mean.argmax(-1) == splits.test.labels).double().mean().item(),
        "valid_log_loss": log_loss(valid_mean, splits.valid.labels),
        "votes": votes,
    }
