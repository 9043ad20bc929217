"""Trains one architecture from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_ext.nas.data import prepare
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.batches import without_validation
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.result import measure
from automl_ext.nas.training.training_options import TrainingConfig
from automl_ext.parallel.ranked_run import check_equal, open_run
from automl_ext.training.epochs import Epochs
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device


@dataclass
class RetrainConfig(TrainingConfig):
    """Configuration of the training of one architecture on the training and validation images, and of its test."""

    genotype: str = ""  # Architecture as text: |nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|none~2|.
    validate: bool = False  # Hold the validation images out, and log the accuracy on them after each epoch.


def retrain(
    config: RetrainConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Train ``config.genotype`` from scratch and test it.

    Args:
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of epochs after which to interrupt the run.
        space: the search space; by default the one that ``config.space`` names.
        data: own data in place of ``config.data``, as :mod:`automl_ext.data.datasets` takes them.

    Returns:
        The contents of ``result.json``: genotype, test_accuracy (0 to 1), majority_accuracy, class_accuracy, confusion,
        parameters, macs (multiply-adds of one image), network and times. None if the run was interrupted.

    Raises:
        UserError: the genotype is missing, or the genotype, the data, the configuration or the run directory is
            invalid.
    """
    space = space or spaces.space(config.space)
    if not config.genotype:
        raise UserError("retrain: expected --genotype, an architecture as in the result.json of a search")
    genotype = spaces.parse_genotype(space, config.genotype)
    config, splits = prepare(config, data)
    device = choose_device(config.device)
    check_equal(config, "retrain")
    used, held_out = (without_validation(splits), splits.valid) if config.validate else (splits, None)
    # This may raise an error, so it comes before the run directory is made.
    training = NetworkTraining(config, space, genotype, used, device, held_out)
    if training.drop_path is not None and not training.drop_path.operations:
        raise UserError(f"drop_path: {genotype} has no operation that can be dropped, so expected 0")

    def load(state: dict[str, Any]) -> None:
        training.load_state_dict(state["job"])

    with open_run(out, config, algorithm="retrain", resume=resume, load=load) as run:
        with Epochs(run, config.epochs, "retrain", stop_after) as epochs:
            if not epochs.run(training, "retrain", {}):
                return None
        result = measure(training, genotype, splits)
        run.finish(result)
        return result
