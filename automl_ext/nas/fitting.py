"""One call from images to a trained network: search a cell, train it, and predict with it.

result = fit(images, labels, minutes=10)
result.accuracy, result.predict(new_images), result.save("network")
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automl_ext.data.datasets import image_arrays
from automl_ext.nas.auto.auto import auto
from automl_ext.nas.auto.plan import AutoConfig
from automl_ext.nas.export.export import export, load_network
from automl_ext.nas.export.program import RawImages
from automl_ext.nas.supernets.darts import DARTSConfig
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.training.config import with_values
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object, short

SEARCHES: dict[str, tuple[type, Callable[..., Any]]] = {
    "auto": (AutoConfig, auto),
    "entmax-gdas": (EntmaxGDASConfig, search_supernet),
    "gdas": (GDASConfig, search_supernet),
    "darts": (DARTSConfig, search_supernet),
}


def fit(
    data: Any,
    labels: Any = None,
    *,
    search: str = "auto",
    out: str | Path | None = None,
    resume: str | None = None,
    **options: Any,
) -> FittedNetwork:
    """Search an architecture for images, train it, and test it on 20 % of the images, which are used for nothing else.

    Args:
        data: a folder or zip file with one folder of images per class; or a value of ``--data``, such as "digits"; or a
            Dataset or DataLoader of (image, label); or images, with ``labels``: an array or tensor [N, H, W],
            [N, C, H, W] or [N, H, W, C] of uint8 or of floats in [0, 1], or a list of Pillow images.
        labels: integers from 0 to K − 1, one per image, if ``data`` are images.
        search: ``auto``, a search within a budget; or ``darts``, ``gdas`` or ``entmax-gdas``.
        out: the run directory, see :mod:`automl_ext.training.run`; by default a temporary one, deleted with the result.
        resume: ``"auto"`` continues an interrupted run in ``out``.
        options: fields of the search's configuration. All searches have ``image_size``, ``class_weights``, ``device``
            and ``seed``. ``auto`` also has ``minutes`` (10 CPU-minutes), ``baselines`` (False; True: also train three
            networks for ``minutes`` each) and the other fields of :class:`~automl_ext.nas.auto.plan.AutoConfig`. The
            other searches also have ``epochs`` (200, of the search), ``retrain_epochs`` (40), ``retrain_channels`` and
            the other fields of :class:`~automl_ext.nas.supernets.supernet_options.SupernetConfig`.

    Returns:
        The trained network.

    Raises:
        UserError: the data or an option is invalid, or ``out`` is in use.
    """
    if search not in SEARCHES:
        raise UserError(f"search: expected one of {', '.join(SEARCHES)}, got {search!r}")
    if data is None:
        raise UserError("data: expected images, a dataset or a path, got None")
    if labels is not None and isinstance(data, (str, Path)):
        raise UserError(f"labels: expected none beside a path, which has its own, got {short(labels)}")
    if resume is not None and out is None:
        raise UserError("resume: needs out, the run directory to resume")
    make_config, run_search = SEARCHES[search]
    if isinstance(data, (str, Path)):
        path = Path(data)
        is_path = path.is_dir() or (path.suffix == ".zip" and path.is_file())
        options["data"], own = (f"folder:{path}" if is_path else str(data)), None
    else:
        own = data if labels is None else (data, labels)
    values = {name: plain(value) for name, value in options.items()}
    if isinstance(values.get("image_size"), int):
        values["image_size"] = str(values["image_size"])
    config = with_values(make_config(), values, "fit")
    trust = (config.space.partition(":")[0],)  # for a user-defined space, MODULE:CLASS: the module that may be imported
    if out is not None:
        run_search(config, out, resume=resume, data=own)
        return FittedNetwork(out, trust)
    temporary = tempfile.mkdtemp(prefix="automl_ext-")
    try:
        run_search(config, Path(temporary, "run"), data=own)
        fitted = FittedNetwork(Path(temporary, "run"), trust)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    weakref.finalize(fitted, shutil.rmtree, temporary, ignore_errors=True)
    return fitted


def plain(value: Any) -> Any:
    """Return the value of an option as a file would hold it: NumPy scalars as Python's, tuples as lists."""
    if isinstance(value, np.generic):
        return value.item()
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


class FittedNetwork:
    """The trained network of a finished run of ``search auto``, of a search over a supernet, or of ``retrain``.

    Args:
        run: the run directory.
        trust: Python modules that the run may name (``space``); they are imported.

    Attributes:
        run: the run directory.
        result: the content of its ``result.json``.
        genotype: the architecture, as text.
        accuracy: the test accuracy, 0 to 1.
        classes: the names of the classes.
        network: uint8 images [N, C, H, W] → logits [N, K], in evaluation mode on the CPU, with the normalization.
    """

    def __init__(self, run: str | Path, trust: Iterable[str] = ()) -> None:
        self.run, self._trust = Path(run), tuple(trust)
        network, genotype, _, self._facts = load_network(self.run, trust=self._trust)
        self.network = RawImages(network, self._facts["mean"], self._facts["std"]).eval()
        self.result = read_object(self.run / "result.json")
        self.genotype, self.classes = str(genotype), tuple(self._facts["classes"])
        self.accuracy = float(self.result["test_accuracy"])

    @torch.no_grad()
    def predict_proba(self, images: Any) -> Tensor:
        """Return the probabilities of the classes, float32 [N, K].

        Args:
            images: as ``data`` of :func:`fit`: an array or tensor of images, or a sequence of single images. They are
                converted to the size and the channels of the training.
        """
        mode = "gray" if self._facts["shape"]["in_channels"] == 1 else "rgb"
        if isinstance(images, (Tensor, np.ndarray)) and images.ndim == 3:
            shape = list(images.shape)
            if shape[2] in (1, 3) or (mode == "rgb" and shape[0] == 3):  # [H, W, C] or [C, H, W]
                raise UserError(f"images: expected several images, got shape {shape}; for one image, pass images[None]")
        height, width = self._facts["image_size"]
        arrays = image_arrays("images", images, (height, width), mode)
        return torch.cat([torch.softmax(self.network(part), -1) for part in arrays.split(500)])

    def predict(self, images: Any) -> Tensor:
        """Return the predicted labels, int64 [N], which index ``classes``; for ``images`` see :meth:`predict_proba`."""
        return self.predict_proba(images).argmax(-1)

    def save(self, out: str | Path) -> list[Path]:
        """Export the network: ``NAME.pt2`` (torch.export), ``NAME.py`` (a Python module), or NAME for both.

        The files need no automl_ext. Returns their paths.
        """
        return export(self.run, out, trust=self._trust)
