"""``automl-ext score``: training-free scores of architectures, in a run directory that can be resumed."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from automl_ext.nas.data import load_splits
from automl_ext.nas.estimators.benchmark_table import Table, place
from automl_ext.nas.estimators.training_free.correlations import kendall, spearman
from automl_ext.nas.estimators.training_free.scores import RANK, SCORES, check_scores
from automl_ext.nas.screening import score_job
from automl_ext.nas.screening.score_job import LEAST_IMAGES, ScoreJob
from automl_ext.nas.screening.score_report import draw_scatter
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.screening.screen import draw_candidates
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.training_options import LARGEST, MANY, ImageConfig
from automl_ext.training.checks import check_range
from automl_ext.training.epochs import Epochs
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_small
from automl_ext.training.machine.device import choose_device
from automl_ext.training.run import Run

SHOWN = 20  # architectures in the result; scores.csv has all of them
FILE = "scores.csv"


@dataclass
class ScoreConfig(ImageConfig):
    """Configuration of the training-free ranking of architectures."""

    genotype: tuple[str, ...] = ()  # Architectures to score.
    file: str | None = None  # File with one architecture per line.
    random: int | None = None  # Number of different architectures to draw. Default: 100 if no other option names any.
    all: bool = False  # Score the whole space (nb201: 15,625 cells).
    scores: tuple[str, ...] = tuple(SCORES)  # Scores to compute; those of the combined rank are always computed.
    table: str | None = None  # Compare the ranks with test accuracies: cifar10 (NAS-Bench-201), or an npz file.
    images: int = score_job.IMAGES  # Number of images of the batch.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "images", low=LEAST_IMAGES, high=LARGEST)
        check_range(self, "random", low=1, high=MANY)
        check_scores("scores", self.scores)
        if self.all and self.random is not None:
            raise ValueError(f"random: expected none with all, which scores the whole space, got {self.random}")
        if self.table is not None and self.space != "nb201":
            raise ValueError(f"table: the table holds NAS-Bench-201 cells (space nb201), not {self.space}")


def genotypes(config: ScoreConfig, space: Space[Any]) -> list[Any]:
    """Return the architectures that the options name, in their order and without duplicates.

    Raises:
        UserError: the file cannot be read, an architecture is not of the space, or the space is too large for ``all``.
    """
    found = [spaces.parse_genotype(space, text) for text in config.genotype]
    if config.file is not None:
        try:
            lines = read_small(Path(config.file)).decode().splitlines()
        except OSError as error:
            raise UserError(f"file: cannot read {config.file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"file: {config.file}: expected text, one architecture per line") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    found.append(spaces.parse_genotype(space, line))
                except UserError as error:
                    raise UserError(f"{config.file}, line {number}: {error}") from None
    if config.all:
        if (size := math.prod(space.num_choices)) > MANY:
            raise UserError(f"all: the space {config.space} has {size:.1e} architectures; use --random N")
        found += draw_candidates(space, size, Random(config.seed))
    elif config.random is not None or not (config.genotype or config.file):
        found += draw_candidates(space, config.random or 100, Random(config.seed))
    return list(dict.fromkeys(found))


def score(
    config: ScoreConfig, out: str | Path, resume: str | None = None, stop_after: int | None = None
) -> dict[str, Any] | None:
    """Score architectures and rank them. Writes ``scores.csv`` (all scores), and ``scatter.png`` if there is a table.

    Args:
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: interrupt after this many checkpoints, of which a run has up to 100.

    Returns:
        The content of ``result.json``, see :func:`summary`. None if interrupted.

    Raises:
        UserError: an option, the data, the table or the run directory is invalid.
    """
    space = spaces.space(config.space)
    accuracies = Table.load(config.table).test_200 if config.table is not None else None
    chosen = genotypes(config, space)
    splits = load_splits(config)
    names = [name for name in SCORES if name in {"parameters", *RANK, *config.scores}]
    size = {"channels": config.channels, "cells": config.cells, "images": config.images}
    job = ScoreJob(space, chosen, splits, choose_device(config.device), names, **size, seed=config.seed)
    with Run.open(
        out, config, algorithm="score", resume=resume, load=lambda state: job.load_state_dict(state["job"])
    ) as run:
        with Epochs(run, job.epochs, "score", stop_after) as epochs:
            if not epochs.run(job, "score", {}):
                return None
        table = job.table()
        table.write(run.path / FILE)
        truth = None if accuracies is None else [float(accuracies[place(genotype)]) for genotype in table.genotypes]
        result = summary(table, truth) | {
            "times": {"seconds": job.seconds, "seconds_per_network": job.seconds / len(job.networks)},
            "networks": len(job.networks),
        }
        run.finish(result)
        if truth is not None and len(truth) > 1 and importlib.util.find_spec("matplotlib"):
            draw_scatter(table, truth, run.path / "scatter.png")
        return result


def summary(table: ScoreTable, accuracies: list[float] | None) -> dict[str, Any]:
    """Summarize scores.

    Returns:
        ``architectures`` (a count), ``rank_of`` (names of the scores that are combined), and ``best``: the 20
        architectures with the best rank, each with its scores, and ``test_accuracy`` if it is known. With accuracies
        also ``correlations``: Spearman's ρ and Kendall's τ of every score and of the combined rank with the accuracies,
        None for a constant score; and ``pick_accuracy``, the accuracies of the architecture with the best rank and of
        the one with the most parameters.
    """
    rank = table.rank()
    order = sorted(range(len(rank)), key=lambda i: -rank[i])
    best = []
    for i in order[:SHOWN]:
        row: dict[str, Any] = {"genotype": str(table.genotypes[i]), "rank": _finite(rank[i])}
        row |= {name: _finite(values[i]) for name, values in table.scores.items()}
        best.append(row | ({} if accuracies is None else {"test_accuracy": accuracies[i]}))
    result: dict[str, Any] = {"architectures": len(rank), "rank_of": list(RANK), "best": best}
    if accuracies is not None and len(accuracies) > 1:
        columns = {"rank": rank, **table.scores}
        result["correlations"] = {
            name: {"spearman": _finite(spearman(values, accuracies)), "kendall": _finite(kendall(values, accuracies))}
            for name, values in columns.items()
        }
        result["pick_accuracy"] = {name: accuracies[int(columns[name].argmax())] for name in ("rank", "parameters")}
    return result


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
