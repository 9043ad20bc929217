"""The RSSM's two recurrences with their gradients written out: along observed sequences, and imagined steps.

Both are what ``rssm.py`` says, which its plain ``step``, ``prior`` and ``posterior`` do too. Here a step is one node of
autograd's graph, or all steps together are, and what is not recurrent in a gradient is done for all steps at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.rl.dreamer.fused.layers import dense, dense_backward, gru_gates, gru_gates_backward, weight_gradient

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
        from_action = dense(action, rssm.from_action.weight, rssm.from_action.bias)
        x = dense(stoch, rssm.from_stoch.weight, None, from_action, elu=True)
        of_input = dense(x, rssm.cell.weight_ih, rssm.cell.bias_ih)
        of_state = dense(state, rssm.cell.weight_hh, rssm.cell.bias_hh)
        following = torch.empty_like(features)
        deter, sample = following.split([rssm.deter, rssm.stoch], 1)
        gates, new = gru_gates(of_input, of_state, state, deter)
        hidden = dense(deter, rssm.prior_hidden.weight, rssm.prior_hidden.bias, elu=True)
        mean, raw = dense(hidden, rssm.prior_out.weight, rssm.prior_out.bias).chunk(2, 1)
        raw = raw.contiguous()  # of which softplus and sigmoid take a fifth of the time
        std = F.softplus(raw).add_(MIN_STD)
        torch.addcmul(mean, std, noise, out=sample)
        ctx.rssm = rssm
        ctx.save_for_backward(state, x, gates, new, hidden, noise * raw.sigmoid())
        return following

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rssm, cell = ctx.rssm, ctx.rssm.cell
        state, x, gates, new, hidden, by_raw = ctx.saved_tensors
        n = rssm.deter
        of_stoch = gradient[:, n:]
        of_out = torch.cat([of_stoch, of_stoch * by_raw], 1)
        of_hidden = dense_backward(of_out, rssm.prior_out.weight, hidden)
        of_deter = dense_backward(of_hidden, rssm.prior_hidden.weight, add=gradient[:, :n])
        of_gates, to_state = gru_gates_backward(of_deter, gates, new, state)
        of_x = dense_backward(of_gates[:, n:], cell.weight_ih, x)
        of_features = None
        if ctx.needs_input_grad[0]:
            to_state = dense_backward(of_gates[:, : 3 * n], cell.weight_hh.roll(n, 0), add=to_state)
            of_features = torch.cat([to_state, dense_backward(of_x, rssm.from_stoch.weight)], 1)
        return of_features, dense_backward(of_x, rssm.from_action.weight), None, None


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
            x = dense(stoch, w_stoch, None, from_action, elu=True)
            deter = torch.empty_like(state)
            gates, new = gru_gates(dense(x, w_input, b_input), dense(state, w_state, b_state), state, deter)
            hidden = dense(deter, w_deter, None, from_embedding, elu=True)
            out = dense(hidden, w_out, b_out)
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
            of_hidden = dense_backward(of_out, w_out, hiddens[t])
            of_deter = dense_backward(of_hidden, w_deter, add=to_state.add_(of_deters[t]))
            of_gates, to_state = gru_gates_backward(of_deter, gates[t], news[t], states[t])
            of_x = dense_backward(of_gates[:, n:], w_input, xs[t])
            to_state = dense_backward(of_gates[:, : 3 * n], rolled, add=to_state)
            to_stoch = dense_backward(of_x, w_stoch)
            steps.append((of_x, of_gates, of_hidden, of_out))
        of_xs, of_gates, of_hiddens, of_outs = (torch.stack(each[::-1]) for each in zip(*steps, strict=True))

        def of_weight(outputs: Tensor, inputs: Tensor) -> Tensor:
            return weight_gradient(outputs.flatten(0, 1), inputs.flatten(0, 1))

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
