"""DARTS, first order (Liu, Simonyan & Yang, ICLR 2019, section 2.3 with ξ = 0, algorithm 1).

    w = softmax(α) on every edge; all operations run, nothing is sampled
    1. training batch:    ω ← ω − SGD step on the loss of the supernet
    2. validation batch:  α ← α − Adam step on the loss at the new ω

The paper takes step 2 first. The search ends with argmax α on every edge, "none" excluded as in the paper. In the
experiments of NAS-Bench-201's authors, which allow "none", first-order DARTS ends with skip connections everywhere.
The run logs the shares of skip connections and "none", which show such a collapse. The loop over batches and epochs is
:mod:`automl_ext.nas.supernets.loop`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split
from automl_ext.nas.spaces.supernet import Choice
from automl_ext.nas.supernets.loop import AlphaAlgorithm, Iteration, frozen
from automl_ext.nas.supernets.supernet_options import AlphaConfig
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.search_space import Range


@dataclass
class DARTSConfig(AlphaConfig):
    """Configuration of a search with DARTS (Liu et al. 2019) and of the training of the architecture that it finds.

    As in the paper, the learning rates are 0.025 for the weights and 3e-4 for α, and there is no warm-up. The paper
    takes 19,500 steps (50 epochs of 390 steps). On the digits data, 200 epochs are 1,600 steps. In these, α changes
    little, but the architecture depends only on the order of its values.
    """

    name: ClassVar[str] = "darts"
    alpha_lr: Annotated[float, Range(1e-4, 0.1, log=True)] = 3e-4  # Learning rate of Adam for α.
    alpha_weight_decay: float = 1e-3  # Weight decay of Adam for α.

    def algorithm(self, *arguments: Any) -> DARTS:
        return DARTS(self, *arguments)


def mix(alphas: Iterable[Tensor]) -> list[Choice]:
    """Weight all operations of each edge by softmax(α), equation 2.

    Args:
        alphas: α of each kind of cell, [edges, operations].

    Returns:
        One choice for each kind of cell.
    """
    return [Choice.support(torch.softmax(alpha, dim=-1)) for alpha in alphas]


class DARTS(AlphaAlgorithm[DARTSConfig]):
    """The two steps of first-order DARTS (Liu et al. 2019, algorithm 1 with ξ = 0)."""

    def iterate(self, epoch: int, progress: float, train: Iterator[Split], valid: Iterator[Split]) -> Iteration:
        """Take a step on the weights, then one on α.

        Arguments and result are those of :meth:`automl_ext.nas.supernets.loop.SupernetAlgorithm.iterate`.
        """
        set_cosine_lr(self.weight_optimizer, progress, self.config.lr, self.config.final_lr)
        loss, ran = self.weight_step(next(train))
        if self.config.warms_up(epoch):
            return Iteration(loss, ran)
        alpha_loss, also_ran = self.alpha_step(next(valid))
        return Iteration(loss, ran + also_ran, alpha_loss)

    def weight_step(self, batch: Split) -> tuple[Tensor, list[Choice]]:
        """Step 1: update ω on a training batch, by SGD on the loss of the mixture."""
        with torch.no_grad():
            choices = mix(self.alphas())
        self.weight_optimizer.zero_grad()
        loss = self.loss(batch, choices)
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.weights(), self.config.grad_clip)
        self.weight_optimizer.step()
        return loss.detach(), choices

    def alpha_step(self, batch: Split) -> tuple[Tensor, list[Choice]]:
        """Step 2: update α on a validation batch, by Adam on the loss at the new ω."""
        with frozen(self.supernet.weights()):  # no gradients of ω are computed
            choices = mix(self.alphas())
            loss = self.loss(batch, choices)
            self.alpha_optimizer.zero_grad()
            loss.backward()
            self.alpha_optimizer.step()
        return loss.detach(), choices
