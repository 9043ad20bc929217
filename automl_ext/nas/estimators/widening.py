"""Network morphisms as an evaluator: the first half of a training is that of a narrower network."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, cast

from automl_ext.nas.data import network_shape
from automl_ext.nas.estimators.lower_fidelity import LowerFidelity, global_rng_kept
from automl_ext.nas.estimators.wider_cells import widen_cells
from automl_ext.nas.evaluation import Evaluation
from automl_ext.nas.spaces.nasbench201 import Network
from automl_ext.training.machine.clock import budget_clock
from automl_ext.training.seeding import generator

NOISE = 0.01  # of the weights of new channels, relative: copies would otherwise stay copies


class Widening:
    """Trains a cell of NAS-Bench-201 with half of the channels, widens the network (Net2Wider), and trains it on.

    This is an :class:`~automl_ext.nas.evaluation.Evaluator` that ignores budgets and states. Each of the two networks
    is trained for half of the epochs, with the learning rates of these epochs. The score is the accuracy of the wide
    network.

    Args:
        training: trains the wide networks, of at least two channels, for at least two epochs.
    """

    def __init__(self, training: LowerFidelity) -> None:
        self.training, self.narrow = training, copy.copy(training)
        self.narrow.config = replace(training.config, channels=training.config.channels // 2)

    def evaluate(self, genotype: Any, budget: int | None = None, state: dict[str, Any] | None = None) -> Evaluation:
        """Score ``genotype``. ``measured["epochs"]`` counts those of the wide network."""
        clock = budget_clock(self.training.device)
        start = clock()
        first = self.narrow.evaluate(genotype, self.training.config.epochs // 2)
        if first.state is None:  # it diverged
            return first
        evaluation = self.training.evaluate(genotype, None, self.widened(genotype, first.state))
        return replace(evaluation, cost=clock() - start, state=None)

    def widened(self, genotype: Any, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state from which the training of the wide network starts, given that of the narrow one."""
        config, splits = self.narrow.config, self.narrow.splits
        with global_rng_kept():
            network = self.narrow.space.build(genotype, **network_shape(splits, config.channels, config.cells))
            training = self.training.training(genotype).state_dict()
        network.load_state_dict(state["training"]["network"])
        wide = widen_cells(
            cast(Network, network), self.training.config.channels, noise=NOISE, generator=generator(config.seed)
        )
        training |= {"epoch": state["training"]["epoch"], "network": dict(wide.state_dict())}
        return {**state, "fidelity": self.training.fidelity(), "loss": math.nan, "training": training}
