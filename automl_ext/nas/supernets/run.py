"""The run of a search over a supernet: run directory, search, derivation of an architecture, and its final training.

The searches differ in their algorithm, options and derivation only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.data import prepare
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import recalibrate
from automl_ext.nas.supernets.candidates import decode, derived_choices
from automl_ext.nas.supernets.loop import SupernetAlgorithm, SupernetSearch
from automl_ext.nas.supernets.supernet_options import SupernetConfig
from automl_ext.nas.training.batches import accuracy, to_device
from automl_ext.nas.training.training_options import SAME_IMAGES
from automl_ext.parallel.ranked_run import check_equal, open_run
from automl_ext.training import ranks
from automl_ext.training.epochs import Epochs
from automl_ext.training.machine.device import choose_device

if TYPE_CHECKING:
    from automl_ext.nas.training.network_training import NetworkTraining
    from automl_ext.nas.training.retrain import RetrainConfig


def search_supernet(
    config: SupernetConfig,
    out: str | Path,
    make: Callable[..., SupernetAlgorithm[Any]],
    name: str,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
    derivation: Callable[[SupernetSearch], Any] | None = None,
) -> dict[str, Any] | None:
    """Search, then train the found architecture on the training and validation images and test it once.

    The result is bitwise reproducible for the same configuration, number of threads, PyTorch version, backend and
    processor type. The number of threads changes the rounding, because some sums have one part per thread: those of
    batch norm statistics of channels-last images (PyTorch) and of weight gradients of convolutions (oneDNN). The
    reference backend rounds the gradients of α differently. Training amplifies rounding differences, so such a search
    may find another architecture. The architectures that a step samples depend on α and the seed only, not on threads.

    Args:
        out: the run directory.
        make: makes the algorithm, for example :class:`automl_ext.nas.supernets.gdas.GDAS`.
        name: the name under which the run is stored.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of epochs, of search and final training together, after which to interrupt the run.
        space: the search space; by default the one that ``config.space`` names.
        data: own data in place of ``config.data``, as :mod:`automl_ext.data.datasets` takes them.
        derivation: makes the job that derives the architecture after the search, a
            :class:`~automl_ext.nas.supernets.perturbation.Perturbation`; by default, each edge keeps the operation
            with the largest α.

    Returns:
        The contents of ``result.json``: those of :func:`automl_ext.nas.training.retrain.retrain`, supernet_accuracy
        (of the found architecture with the supernet's weights, on the validation images) and alpha. None if the run
        was interrupted.

    Raises:
        UserError: the data, the configuration or the run directory is invalid, or the search diverges.
    """
    # The final training is another job; an import of the algorithms does not load it.
    from automl_ext.nas.training.network_training import NetworkTraining
    from automl_ext.nas.training.result import measure

    space = space or spaces.space(config.space)
    config, splits = prepare(config, data)
    device = choose_device(config.device)
    check_equal(config, name)
    job = SupernetSearch(config, space, splits, device, make)  # may raise: before the run directory exists
    found: dict[str, Any] | None = None
    training: NetworkTraining | None = None
    deriving: Any = None

    def load(state: dict[str, Any]) -> None:
        nonlocal found, training, deriving
        found, training, deriving = state["found"], None, None
        if found is not None:
            training = final_training(found)
            training.load_state_dict(state["job"])
        elif derivation is not None and "search" in state["job"]:
            deriving = derivation(job)
            deriving.load_state_dict(state["job"])
        else:
            job.load_state_dict(state["job"])

    def final_training(found: dict[str, Any]) -> NetworkTraining:
        genotype = space.parse(found["genotype"])
        return NetworkTraining(retrain_config(config, genotype), space, genotype, splits, device)

    with open_run(out, config, algorithm=name, resume=resume, load=load) as run:
        decisions = 0 if derivation is None else derivation(job).epochs
        total = config.epochs + decisions + config.retrain_epochs
        with Epochs(run, total, "search", stop_after) as epochs:
            if found is None:
                if deriving is None and not epochs.run(job, "search", {"found": None}):
                    return None
                if derivation is not None:
                    deriving = deriving or derivation(job)
                    if not epochs.run(deriving, "derive", {"found": None}):
                        return None
                    deriving.keep_best(space, splits)
                alphas = job.alphas() if deriving is None else deriving.alphas()
                found = ranks.from_first(conclude(job, splits, alphas))
            training = training or final_training(found)
            if not epochs.run(training, "retrain", {"found": found}):
                return None
        result = measure(training, space.parse(found["genotype"]), splits)
        result |= {key: value for key, value in found.items() if key != "times"}
        result["times"] |= found["times"]
        run.finish(result)
        return result


def conclude(job: SupernetSearch, splits: Splits, alphas: list[Tensor]) -> dict[str, Any]:
    """Derive the architecture of a finished search from ``alphas``, and measure it with the supernet's weights.

    Returns:
        genotype, supernet_accuracy, alpha and times, as plain Python values.
    """
    valid = to_device(splits.valid, job.weight_images.labels.device)
    choices = derived_choices(job.supernet, alphas)
    recalibrate(job.supernet, job.weight_images.images, choices)
    return {
        "genotype": str(decode(job.supernet, alphas)),
        "supernet_accuracy": accuracy(job.supernet, valid, *choices),
        "alpha": [alpha.tolist() for alpha in job.supernet.alphas],
        "times": {"search_seconds": job.clock.wall, "search_cpu_seconds": job.clock.cpu},
    }


def retrain_config(config: SupernetConfig, genotype: Any) -> RetrainConfig:
    """Return the configuration of the final training, which equals the command ``retrain`` with these options.

    Learning rate and batch size are the defaults of ``retrain``, whatever those of the search are.
    """
    from automl_ext.nas.training.retrain import RetrainConfig

    same = {name: getattr(config, name) for name in (*SAME_IMAGES, "device")}
    return RetrainConfig(
        genotype=str(genotype),
        channels=config.retrain_channels,
        cells=config.retrain_cells,
        epochs=config.retrain_epochs,
        **same,
    )
