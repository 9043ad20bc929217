"""The options that searches over a supernet share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from automl_ext.nas.spaces.supernet import Form
from automl_ext.nas.training.training_options import LARGEST, ClassWeights, ImageConfig, check_class_weights
from automl_ext.training.checks import check_range
from automl_ext.training.search_space import Range


@dataclass
class SupernetConfig(ImageConfig):
    """Options of the supernet, of the training of its weights, and of the final training of the found architecture.

    Attributes:
        name: the name of the search, under which its runs are stored.
    """

    name: ClassVar[str]
    space: str = "nb201"  # Search space: nb201, darts, darts-frc (its reduction cell is fixed) or MODULE:CLASS.
    channels: int = 4  # Number of channels C of the first stage; later stages have 2C and 4C.
    none: bool = False  # Whether the operation "none" is a candidate.
    epochs: int = 200  # Number of search epochs.
    batch_size: int = 64  # Number of images per batch.
    lr: Annotated[float, Range(0.01, 0.5, log=True)] = 0.025  # Initial learning rate of SGD for the weights.
    lr_min: float | None = 0.001  # Final learning rate of the cosine schedule.
    momentum: float = 0.9  # Nesterov momentum of SGD.
    weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 3e-4  # Weight decay of SGD.
    grad_clip: float = 5.0  # Largest norm of the gradient of the weights.
    shift: int = 1  # Largest random shift of a training image, in pixels.
    flip: bool = False  # Mirror each training image with probability 1/2.
    class_weights: ClassWeights = None  # Weights of the classes in the loss: balanced, or one number per class.
    bfloat16: bool = False
    """Compute networks in bfloat16 during training; weights stay float32. Faster on recent processors and GPUs."""
    retrain_epochs: int = 40  # Epochs of the final training. Its other options are the defaults of the command retrain.
    retrain_channels: int = 16  # Number of channels C in the final training.
    retrain_cells: int = 1  # Number of cells N per stage in the final training.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "epochs", "retrain_channels", "retrain_cells", "retrain_epochs", low=1, high=LARGEST)
        check_range(self, "batch_size", low=2, high=LARGEST)
        check_range(self, "shift", low=0, high=LARGEST)
        check_range(self, "lr", "grad_clip", above=0)
        check_range(self, "weight_decay", low=0)
        if not 0 <= self.final_lr <= self.lr:
            raise ValueError(f"lr_min: expected 0 to lr ({self.lr}), got {self.lr_min}")
        check_range(self, "momentum", low=0, below=1)
        check_class_weights(self.class_weights)

    @property
    def final_lr(self) -> float:
        """The final learning rate of the cosine schedule; ``lr``, that is a constant rate, if ``lr_min`` is None."""
        return self.lr if self.lr_min is None else self.lr_min

    def supernet_form(self) -> Form:
        """Return how operations that did not run enter the gradient of α (for straight-through weights only)."""
        return "darts"

    def algorithm(self, *arguments: Any) -> Any:
        """Return the :class:`~automl_ext.nas.supernets.loop.SupernetAlgorithm` that has these options."""
        raise NotImplementedError

    def derivation(self, search: Any) -> Any:
        """Return the job that derives the architecture after ``search``, a finished search over the supernet.

        None: each edge keeps the operation with the largest α.
        """
        return None


@dataclass
class AlphaConfig(SupernetConfig):
    """Options of a search that trains α by Adam."""

    warmup: Annotated[float, Range(0.0, 0.8)] = 0.0
    """Fraction of the epochs, at the start, during which α is fixed; the last epoch always trains α."""
    alpha_lr: Annotated[float, Range(1e-4, 0.1, log=True)] = 0.02  # Learning rate of Adam for α.
    alpha_beta1: float = 0.5  # First decay rate of Adam for α.
    alpha_beta2: float = 0.999  # Second decay rate of Adam for α.
    alpha_weight_decay: float = 0.0  # Weight decay of Adam for α; it pulls α back to 0.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "warmup", "alpha_beta1", "alpha_beta2", low=0, below=1)
        check_range(self, "alpha_lr", above=0)
        check_range(self, "alpha_weight_decay", low=0)

    def warms_up(self, epoch: int) -> bool:
        """Return whether α is fixed in an epoch, counted from 0."""
        return epoch < min(self.warmup * self.epochs, self.epochs - 1)


@dataclass
class SampledConfig(AlphaConfig):
    """Options of a search that samples with a temperature; the defaults are those of GDAS."""

    lr: Annotated[float, Range(0.01, 0.5, log=True)] = 0.2  # Initial learning rate of SGD for the weights.
    lr_min: float | None = None  # Final learning rate of the cosine schedule. Default: lr, a constant rate.
    weight_decay: Annotated[float, Range(1e-5, 1e-2, log=True)] = 5e-4  # Weight decay of SGD.
    warmup: Annotated[float, Range(0.0, 0.8)] = 0.5
    """Fraction of the epochs, at the start, during which α is fixed; the last epoch always trains α."""
    tau_max: Annotated[float, Range(1.0, 20.0, log=True)] = 10.0
    """Temperature τ of the samples in the first epoch; it falls linearly."""
    tau_min: Annotated[float, Range(0.05, 1.0, log=True)] = 1.0  # Temperature τ of the samples in the last epoch.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "tau_max", "tau_min", above=0)
        if self.tau_min > self.tau_max:
            raise ValueError(f"tau_min: expected at most tau_max ({self.tau_max}), got {self.tau_min}")

    def tau(self, epoch: int) -> float:
        """Return the temperature of an epoch: linear from ``tau_max`` in the first to ``tau_min`` in the last."""
        return self.tau_max - (self.tau_max - self.tau_min) * epoch / max(self.epochs - 1, 1)
