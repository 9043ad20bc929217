"""A child network that starts from its parent's weights, as ReNAS's do (Chen et al. 2019, section 3.4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.nas.estimators.lower_fidelity import LowerFidelity, global_chance_kept
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.retraining.training import NetworkTraining, network_shape


class Inheriting:
    """Trains candidates; one that comes with another's state inherits its weights and is trained for less.

    An :class:`~automl_ext.nas.evaluation.Evaluator`: score and state are those of
    :class:`~automl_ext.nas.estimators.lower_fidelity.LowerFidelity`. The inherited network is trained for the last
    ``fine_tune`` epochs of what others are trained for, at the learning rates of those. It has then had its ancestors'
    epochs too, so scores rise with the generations: what is compared is a lineage's weights, as in the paper.

    Args:
        fine_tune: 1 to ``training.config.epochs``.

    Raises:
        ValueError: another ``fine_tune``.
    """

    def __init__(self, training: LowerFidelity, fine_tune: int = 1) -> None:
        if not 1 <= fine_tune <= training.config.epochs:
            raise ValueError(f"fine_tune: expected 1 to {training.config.epochs} epochs, got {fine_tune}")
        self.training, self.fine_tune = training, fine_tune

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """As LowerFidelity's; with the state of another genotype the budget means nothing.

        Measured besides: ``inherited``, the share of the weights that are the parent's.
        """
        if state is None or state["genotype"] == str(genotype):
            return self.training.evaluate(genotype, budget, state)
        start, share = self.inherited(genotype, state)
        evaluation = self.training.evaluate(genotype, self.training.config.epochs, start)
        evaluation.measured["inherited"] = share
        return evaluation

    def inherited(self, genotype: Any, state: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The state from which the child's training goes on, and the share of its weights that are the parent's."""
        fidelity = self.training
        with global_chance_kept():
            child = NetworkTraining(fidelity.config, fidelity.space, genotype, fidelity.splits, fidelity.device)
            with torch.device("meta"):  # the parent's structure, without weights
                shape = network_shape(fidelity.splits, fidelity.config.channels, fidelity.config.cells)
                parent = fidelity.space.build(fidelity.space.parse(state["genotype"]), **shape)
        weights = inherit(child.network, parent, state["training"]["network"])
        share = sum(w.numel() for w in weights.values()) / sum(w.numel() for w in child.network.state_dict().values())
        child.epoch = fidelity.config.epochs - self.fine_tune
        training = child.state_dict()
        training["network"] |= weights
        return {**state, "genotype": str(genotype), "loss": math.nan, "training": training}, share


def inherit(child: nn.Module, parent: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the parent's weights that the child takes over, by name.

    A layer inherits from the layer of its name where both are alike, and so are the layers beside it in the module that
    holds them: the batch norm of a 3×3 convolution is not inherited by that of a 1×1, however equal their shapes.

    Args:
        weights: the parent's ``state_dict``; of ``parent`` itself only the structure is looked at.
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
    """For every layer, a module without children: what it is, and what its holder's layers are."""
    texts = {name: repr(module) for name, module in network.named_modules() if not any(module.children())}
    held: dict[str, list[str]] = {}
    for name, text in texts.items():
        holder, _, own = name.rpartition(".")
        held.setdefault(holder, []).append(f"{own}: {text}")
    return {name: (text, held[name.rpartition(".")[0]]) for name, text in texts.items()}
