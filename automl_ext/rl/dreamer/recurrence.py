"""The RSSM's two recurrences with their gradients written out: along observed sequences, and imagined steps.

Both are what ``rssm.py`` says, which its plain ``step``, ``prior`` and ``posterior`` do too. Here a step is one node of
autograd's graph, or all steps together are, and what is not recurrent in a gradient is done for all steps at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.rl.dreamer.fused import elu_, elu_backward_
from automl_ext.rl.dreamer.products import linear, product

if TYPE_CHECKING:
    from automl_ext.rl.dreamer.rssm import RSSM

MIN_STD = 0.1


def imagined_step(rssm: RSSM, features: Tensor, action: Tensor, noise: Tensor) -> Tensor:
    """The features of the next state, a sample of the prior; the gradient is to features and action alone.

    Args:
        rssm: its parameters are constants here, and must not change before the gradient is computed.
        features: h and s, [N, deter + stoch].
        action: [N, A].
        noise: standard normal, [N, stoch].
    """
    return _ImaginedStep.apply(features, action, noise, rssm)


class _ImaginedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, action: Tensor, noise: Tensor, rssm: RSSM) -> Tensor:
        state, stoch = features.split([rssm.deter, rssm.stoch], 1)
        from_action = linear(action, rssm.from_action.weight, rssm.from_action.bias)
        x = elu_(linear(stoch, rssm.from_stoch.weight).add_(from_action))
        of_input = linear(x, rssm.cell.weight_ih, rssm.cell.bias_ih)
        deter, gates, new = gru_gates(of_input, linear(state, rssm.cell.weight_hh, rssm.cell.bias_hh), state)
        hidden = elu_(linear(deter, rssm.prior_hidden.weight, rssm.prior_hidden.bias))
        mean, raw = linear(hidden, rssm.prior_out.weight, rssm.prior_out.bias).chunk(2, 1)
        std = F.softplus(raw.contiguous()).add_(MIN_STD)
        ctx.rssm = rssm
        ctx.save_for_backward(state, x, gates, new, hidden, noise * raw.sigmoid())
        return torch.cat([deter, torch.addcmul(mean, std, noise)], 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rssm, cell = ctx.rssm, ctx.rssm.cell
        state, x, gates, new, hidden, by_raw = ctx.saved_tensors
        n = rssm.deter
        of_stoch = gradient[:, n:]
        of_out = torch.cat([of_stoch, of_stoch * by_raw], 1)
        of_hidden = elu_backward_(product(of_out, rssm.prior_out.weight), hidden)
        of_deter = product(of_hidden, rssm.prior_hidden.weight).add_(gradient[:, :n])
        of_gates, to_state = gru_gates_backward(of_deter, gates, new, state)
        of_x = elu_backward_(product(of_gates[:, n:], cell.weight_ih), x)
        of_features = None
        if ctx.needs_input_grad[0]:
            to_state.add_(product(of_gates[:, : 3 * n], cell.weight_hh.roll(n, 0)))
            of_features = torch.cat([to_state, product(of_x, rssm.from_stoch.weight)], 1)
        return of_features, product(of_x, rssm.from_action.weight), None, None


def observed_steps(rssm: RSSM, from_actions: Tensor, from_embeddings: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The states along sequences, each from the initial state on, samples of the posterior.

    Args:
        from_actions, from_embeddings: what the layers of these names made of actions and embeddings, [T, B, hidden].
        noise: standard normal, [T, B, stoch].

    Returns:
        features [T, B, deter + stoch]; the posterior's mean and its deviation before softplus, [T, B, 2 · stoch].
    """
    cell, out = rssm.cell, rssm.posterior_out
    weights = rssm.from_stoch.weight, cell.weight_ih, cell.weight_hh, rssm.from_deter.weight, out.weight
    return _ObservedSteps.apply(from_actions, from_embeddings, noise, *weights, cell.bias_ih, cell.bias_hh, out.bias)


class _ObservedSteps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        from_actions: Tensor,
        from_embeddings: Tensor,
        noise: Tensor,
        w_stoch: Tensor,
        w_input: Tensor,
        w_state: Tensor,
        w_deter: Tensor,
        w_out: Tensor,
        b_input: Tensor,
        b_state: Tensor,
        b_out: Tensor,
    ) -> tuple[Tensor, Tensor]:
        deter = noise.new_zeros(noise.shape[1], w_deter.shape[1])
        stoch = torch.zeros_like(noise[0])
        steps = []
        for from_action, from_embedding, eps in zip(from_actions, from_embeddings, noise, strict=True):
            state, before = deter, stoch
            x = elu_(linear(stoch, w_stoch).add_(from_action))
            deter, gates, new = gru_gates(linear(x, w_input, b_input), linear(state, w_state, b_state), state)
            hidden = elu_(linear(deter, w_deter).add_(from_embedding))
            out = linear(hidden, w_out, b_out)
            mean, raw = out.chunk(2, 1)
            stoch = torch.addcmul(mean, F.softplus(raw).add_(MIN_STD), eps)
            steps.append((before, state, x, gates, new, hidden, out, deter, stoch))
        *kept, outs, deters, stochs = (torch.stack(each) for each in zip(*steps, strict=True))
        by_raw = noise * outs[..., noise.shape[-1] :].sigmoid()
        ctx.save_for_backward(*kept, deters, by_raw, w_stoch, w_input, w_state, w_deter, w_out)
        return torch.cat([deters, stochs], -1), outs

    @staticmethod
    def backward(ctx: Any, of_features: Tensor, of_outs: Tensor) -> tuple[Tensor | None, ...]:
        befores, states, xs, gates, news, hiddens, deters, by_raw, *weights = ctx.saved_tensors
        w_stoch, w_input, w_state, w_deter, w_out = weights
        n = deters.shape[-1]
        rolled = w_state.roll(n, 0)  # see gru_gates_backward
        of_deters, of_stochs = of_features.split([n, of_features.shape[-1] - n], -1)
        to_state, to_stoch = torch.zeros_like(deters[0]), torch.zeros_like(of_stochs[0])
        steps = []
        for t in range(len(deters) - 1, -1, -1):
            of_stoch = to_stoch.add_(of_stochs[t])
            of_out = torch.cat([of_stoch, of_stoch * by_raw[t]], 1).add_(of_outs[t])
            of_hidden = elu_backward_(product(of_out, w_out), hiddens[t])
            of_deter = to_state.add_(of_deters[t]).add_(product(of_hidden, w_deter))
            of_gates, to_state = gru_gates_backward(of_deter, gates[t], news[t], states[t])
            of_x = elu_backward_(product(of_gates[:, n:], w_input), xs[t])
            to_state.add_(product(of_gates[:, : 3 * n], rolled))
            to_stoch = product(of_x, w_stoch)
            steps.append((of_x, of_gates, of_hidden, of_out))
        of_xs, of_gates, of_hiddens, of_outs = (torch.stack(each[::-1]) for each in zip(*steps, strict=True))

        def of_weight(outputs: Tensor, inputs: Tensor) -> Tensor:
            return product(outputs.flatten(0, 1).t(), inputs.flatten(0, 1))

        return (
            of_xs,
            of_hiddens,
            None,
            of_weight(of_xs, befores),
            of_weight(of_gates[..., n:], xs),
            of_weight(of_gates[..., : 3 * n], states).roll(-n, 0),
            of_weight(of_hiddens, deters),
            of_weight(of_outs, hiddens),
            of_gates[..., n:].sum((0, 1)),
            of_gates[..., : 3 * n].sum((0, 1)).roll(-n, 0),
            of_outs.sum((0, 1)),
        )


def gru_gates(of_input: Tensor, of_state: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a GRU does after its two products, as :func:`torch.nn.GRUCell`; it overwrites ``of_state``.

    Args:
        of_input, of_state: the products, [N, 3 n], of reset, update and new.
        state: [N, n].

    Returns:
        The next state; and for the gradient ``of_state``, with the gates in the place of their two thirds, and new.
    """
    n = state.shape[1]
    of_state[:, : 2 * n].add_(of_input[:, : 2 * n]).sigmoid_()
    reset, update, new_of_state = of_state.split(n, 1)
    new = torch.addcmul(of_input[:, 2 * n :], reset, new_of_state)
    new.mul_(2).sigmoid_().mul_(2).sub_(1)  # tanh, for which torch takes far longer on some CPUs
    return torch.lerp(new, state, update), of_state, new


def gru_gates_backward(gradient: Tensor, gates: Tensor, new: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """From the next state's gradient that of the two products, and that of the state beside its product's.

    Returns:
        [N, 4 n]: of new by the state, of reset, of update, of new by the input. The last three are the gradient of
        ``of_input``; the first three that of ``of_state``, but with new before the two others.
        [N, n].
    """
    n = new.shape[1]
    reset, update, new_of_state = gates.split(n, 1)
    found = gradient.new_empty(len(gradient), 4 * n)
    of_new_by_state, of_reset, of_update, of_new = found.split(n, 1)
    to_state = gradient * update
    torch.ops.aten.tanh_backward.grad_input(gradient - to_state, new, grad_input=of_new)
    torch.mul(of_new, reset, out=of_new_by_state)
    torch.mul(of_new, new_of_state, out=of_reset)
    torch.sub(state, new, out=of_update).mul_(gradient)
    both = found[:, n : 3 * n]
    torch.ops.aten.sigmoid_backward.grad_input(both, gates[:, : 2 * n], grad_input=both)
    return found, to_state
