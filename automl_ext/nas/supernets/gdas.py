"""GDAS: differentiable architecture search by Gumbel sampling (Dong & Yang, CVPR 2019, algorithm 1).

Each step samples one architecture for the weights ω and another one for the architecture parameters α:

    g ~ Gumbel(0, 1);  p = softmax((log_softmax(α) + g)/τ);  w = onehot(argmax p) − sg(p) + p
    1. training batch:    ω ← ω − SGD step on the loss of the sampled architecture
    2. validation batch:  α ← α − Adam step on the loss, through w (straight-through argmax)

sg is the stop-gradient. τ falls linearly over the epochs. The search ends with argmax α on every edge; that
architecture is trained from scratch. The loop over batches and epochs is :mod:`automl_ext.nas.supernets.loop`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from automl_ext.data.images import Split
from automl_ext.nas.spaces.supernet import Choice, Form
from automl_ext.nas.supernets.loop import AlphaAlgorithm, Iteration, frozen
from automl_ext.nas.supernets.supernet_options import SampledConfig
from automl_ext.ops.gumbel import gumbel_softmax
from automl_ext.training.epochs import set_cosine_lr
from automl_ext.training.seeding import draw_seed


@dataclass
class GDASConfig(SampledConfig):
    """Configuration of a search with GDAS (Dong & Yang 2019) and of the training of the architecture that it finds.

    The defaults, most of which entmax-GDAS shares, are for one to three thousand steps;
    docs/how-to/search-supernets.md has them beside the paper's values, which are for 97,500 steps (--preset paper).
    They were chosen with seeds 5 to 9 on Fashion-MNIST. The first half of the search trains only the weights. Their
    learning rate is large and constant, because the gradient of α favors convolutions then. α has no weight decay, and
    τ is at least 1, so that the small gradients of α accumulate.
    """

    name: ClassVar[str] = "gdas"
    form: Form = "darts"  # Gradient of α as in the authors' code for NAS-Bench-201 (nb201) or for DARTS cells (darts).

    def supernet_form(self) -> Form:
        return self.form

    def algorithm(self, *arguments: Any) -> GDAS:
        return GDAS(self, *arguments)


def sample(alphas: Iterable[Tensor], tau: float, rng: torch.Generator) -> list[Choice]:
    """Sample one operation per edge: hard Gumbel-softmax of log_softmax(α).

    Args:
        alphas: α of each kind of cell, [edges, operations].
        tau: temperature τ above 0.
        rng: source of the random numbers.

    Returns:
        One choice for each kind of cell.
    """
    choices = []
    for alpha in alphas:
        logits = torch.log_softmax(alpha, dim=-1)
        weights, index = gumbel_softmax(logits, tau, hard=True, seed=draw_seed(rng), return_index=True)
        choices.append(Choice.hard(weights, index))
    return choices


class GDAS(AlphaAlgorithm[SampledConfig]):
    """The two steps of GDAS (Dong & Yang 2019, algorithm 1)."""

    sample = staticmethod(sample)

    def iterate(self, epoch: int, progress: float, train: Iterator[Split], valid: Iterator[Split]) -> Iteration:
        """Take a step on the weights, then one on α.

        Arguments and result are those of :meth:`automl_ext.nas.supernets.loop.SupernetAlgorithm.iterate`.
        """
        tau = self.config.tau(epoch)
        set_cosine_lr(self.weight_optimizer, progress, self.config.lr, self.config.final_lr)
        loss, ran = self.weight_step(next(train), tau)
        if self.config.warms_up(epoch):
            return Iteration(loss, ran, tau=tau)
        alpha_loss, also_ran = self.alpha_step(next(valid), tau)
        return Iteration(loss, ran + also_ran, alpha_loss, tau)

    def weight_step(self, batch: Split, tau: float) -> tuple[Tensor, list[Choice]]:
        """Step 1: update ω on a training batch, by SGD on the loss of a sampled architecture.

        ``zero_grad`` sets the gradients to None. So operations that do not run get no update at all, neither weight
        decay nor momentum. In the official code of GDAS, which sets the gradients to zero, both still apply.
        """
        with torch.no_grad():
            choices = self.sample(self.alphas(), tau, self.rng)
        self.weight_optimizer.zero_grad()
        loss = self.loss(batch, choices)
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.weights(), self.config.grad_clip)
        self.weight_optimizer.step()
        return loss.detach(), choices

    def alpha_step(self, batch: Split, tau: float) -> tuple[Tensor, list[Choice]]:
        """Step 2: update α on a validation batch, by Adam on the loss of another sample, through its weights."""
        with frozen(self.supernet.weights()):  # no gradients of ω are computed
            choices = self.sample(self.alphas(), tau, self.rng)
            loss = self.loss(batch, choices)
            self.alpha_optimizer.zero_grad()
            loss.backward()
            self.alpha_optimizer.step()
        return loss.detach(), choices
