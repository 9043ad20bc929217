"""Weight inheritance from a parent network, as in ReNAS (Chen et al. 2019, section 3.4)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.nas.data import network_shape
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity, global_rng_kept
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.training.machine.clock import budget_clock


class Inheriting:
    """Trains candidates. One that comes with its parent's state (a child) inherits the weights and is trained briefly.

    This is an :class:`~automl_ext.nas.evaluation.Evaluator` whose scores and states are those of
    :class:`~automl_ext.nas.estimators.lower_fidelity.LowerFidelity`. A child is trained for the last ``fine_tune``
    epochs of the schedule, with the learning rates of these epochs. Its weights have also been trained in its
    ancestors, so scores increase with the generations, as in the paper. ``measured["generation"]`` of a child counts
    these ancestors.

    Args:
        training: trains the candidates.
        fine_tune: number of epochs of a child, from 1 to ``training.config.epochs``.

    Raises:
        ValueError: ``fine_tune`` is out of range.
    """

    def __init__(self, training: LowerFidelity, fine_tune: int = 1) -> None:
        if not 1 <= fine_tune <= training.config.epochs:
            raise ValueError(f"fine_tune: expected 1 to {training.config.epochs} epochs, got {fine_tune}")
        self.training, self.fine_tune = training, fine_tune

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Train ``genotype``, like LowerFidelity. With the state of another genotype, ``budget`` is ignored.

        ``measured`` of a child also contains ``inherited``, the fraction of weights that come from the parent, and
        ``generation``, the number of ancestors.
        """
        if state is None or state["genotype"] == str(genotype):
            return self.training.evaluate(genotype, budget, state)
        clock = budget_clock(self.training.device)
        start = clock()
        inherited, share = self.inherited(genotype, state)
        evaluation = self.training.evaluate(genotype, self.training.config.epochs, inherited)
        generation = state.get("generation", 0) + 1
        evaluation.measured.update(inherited=share, generation=generation)
        if evaluation.state is not None:
            evaluation.state["generation"] = generation
        return replace(evaluation, cost=clock() - start)

    def inherited(self, genotype: Any, state: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Return the initial training state of the child and the fraction of its weights that come from the parent."""
        fidelity = self.training
        with global_rng_kept():
            child = NetworkTraining(fidelity.config, fidelity.space, genotype, fidelity.splits, fidelity.device)
            with torch.device("meta"):  # the structure of the parent, without weights
                shape = network_shape(fidelity.splits, fidelity.config.channels, fidelity.config.cells)
                parent = fidelity.space.build(fidelity.space.parse(state["genotype"]), **shape)
                if fidelity.config.auxiliary:
                    parent.add_auxiliary_head()  # type: ignore[operator]
            training = child.state_dict()  # with the random state that its seed determines, not the caller's
        weights = inherit(child.network, parent, state["training"]["network"])
        share = sum(w.numel() for w in weights.values()) / sum(w.numel() for w in child.network.state_dict().values())
        training["epoch"] = fidelity.config.epochs - self.fine_tune
        training["network"] |= weights
        return {**state, "genotype": str(genotype), "loss": math.nan, "training": training}, share


def inherit(child: nn.Module, parent: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that the child inherits, by name.

    A layer inherits from the parent's layer of the same name if both layers are equal and their parent modules contain
    equal layers. So the batch norm after a 1×1 convolution does not inherit from one after a 3×3 convolution, although
    the shapes are equal.

    Args:
        child: the network that inherits.
        parent: a network with the structure of the parent; its weights are not used.
        weights: the ``state_dict`` of the parent.
    """
    layers, before = _layers(child), _layers(parent)
    taken = {}
    for key, fresh in child.state_dict().items():
        layer = key.rpartition(".")[0]
        alike = layer in before and before[layer] == layers[layer]
        if alike and key in weights and weights[key].shape == fresh.shape:
            taken[key] = weights[key].clone()
    return taken


def _layers(network: nn.Module) -> dict[str, tuple[str, list[str]]]:
    """Return, for every module without children, its ``repr`` and the layers of the module that contains it."""
    texts = {name: repr(module) for name, module in network.named_modules() if not any(module.children())}
    held: dict[str, list[str]] = {}
    for name, text in texts.items():
        holder, _, own = name.rpartition(".")
        held.setdefault(holder, []).append(f"{own}: {text}")
    return {name: (text, held[name.rpartition(".")[0]]) for name, text in texts.items()}
