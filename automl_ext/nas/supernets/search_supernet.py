"""A search over a supernet: run directory, search, derivation of an architecture, and its final training.

The configuration says which algorithm searches, and how the architecture is derived.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from automl_ext.data.images import Splits
from automl_ext.nas.data import prepare
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.spaces.supernet import recalibrate
from automl_ext.nas.supernets.candidates import decode, derived_choices
from automl_ext.nas.supernets.loop import SupernetSearch
from automl_ext.nas.supernets.supernet_options import SupernetConfig
from automl_ext.nas.training.batches import accuracy, to_device
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.result import measure
from automl_ext.nas.training.retrain import RetrainConfig
from automl_ext.nas.training.training_options import SAME_IMAGES
from automl_ext.parallel.ranked_run import check_equal, open_run
from automl_ext.training import ranks
from automl_ext.training.epochs import Epochs
from automl_ext.training.machine.device import choose_device


def search_supernet(
    config: SupernetConfig,
    out: str | Path,
    resume: str | None = None,
    stop_after: int | None = None,
    space: Space[Any] | None = None,
    data: Any = None,
) -> dict[str, Any] | None:
    """Search, then train the found architecture on the training and validation images and test it once.

    On a CPU, the result is bitwise reproducible for the same configuration, number of threads, PyTorch version, backend
    and processor type; on a GPU, only under :func:`torch.use_deterministic_algorithms`. The number of threads changes
    the rounding, because some sums have one part per thread: those of batch norm statistics of channels-last images
    (PyTorch) and of weight gradients of convolutions (oneDNN). The reference backend rounds the gradients of α
    differently. Training amplifies rounding differences, so such a search may find another architecture. The
    architectures that a step samples depend on α and the seed only, not on threads.

    Args:
        config: configuration of the search, for example :class:`automl_ext.nas.supernets.gdas.GDASConfig`.
        out: the run directory.
        resume: None, "auto" or a checkpoint; see :meth:`automl_ext.training.run.Run.open`.
        stop_after: the number of epochs, of search and final training together, after which to interrupt the run.
        space: the search space; by default the one that ``config.space`` names.
        data: own data in place of ``config.data``, as :mod:`automl_ext.data.datasets` takes them.

    Returns:
        The contents of ``result.json``: those of :func:`automl_ext.nas.training.retrain.retrain`, supernet_accuracy
        (of the found architecture with the supernet's weights, on the validation images) and alpha. None if the run
        was interrupted.

    Raises:
        UserError: the data, the configuration or the run directory is invalid, or the search diverges.
    """
    space = space or spaces.space(config.space)
    config, splits = prepare(config, data)
    device = choose_device(config.device)
    check_equal(config, config.name)
    job = SupernetSearch(config, space, splits, device)  # may raise: before the run directory exists
    found: dict[str, Any] | None = None
    training: NetworkTraining | None = None
    deriving = config.derivation(job)

    def load(state: dict[str, Any]) -> None:
        nonlocal found, training, deriving
        found, training, deriving = state["found"], None, config.derivation(job)
        if found is not None:
            training = final_training(found)
            training.load_state_dict(state["job"])
        elif deriving is not None and "search" in state["job"]:
            deriving.load_state_dict(state["job"])
        else:
            job.load_state_dict(state["job"])

    def final_training(found: dict[str, Any]) -> NetworkTraining:
        genotype = space.parse(found["genotype"])
        return NetworkTraining(retrain_config(config, genotype), space, genotype, splits, device)

    with open_run(out, config, algorithm=config.name, resume=resume, load=load) as run:
        total = config.epochs + (deriving.epochs if deriving else 0) + config.retrain_epochs
        with Epochs(run, total, "search", stop_after) as epochs:
            if found is None:
                if not epochs.run(job, "search", {"found": None}):
                    return None
                if deriving:
                    if not epochs.run(deriving, "derive", {"found": None}):
                        return None
                    deriving.keep_best(space, splits)
                alphas = deriving.alphas() if deriving else job.alphas()
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

    Learning rate and batch size are the defaults of ``retrain``, not those of the search.
    """
    same = {name: getattr(config, name) for name in (*SAME_IMAGES, "device", "bfloat16")}
    return RetrainConfig(
        genotype=str(genotype),
        channels=config.retrain_channels,
        cells=config.retrain_cells,
        epochs=config.retrain_epochs,
        **same,
    )
