"""The RSSM's two recurrences with hand-written gradients: observed sequences and imagined steps.

The RSSM's methods ``step``, ``prior`` and ``posterior`` compute the same with autograd. Here an imagined step, or a
whole observed sequence, is one node of autograd's graph. The parts of the gradient that are not recurrent are computed
for all time steps at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from automl_ext.rl.dreamer.fused.layers import dense, dense_backward, gru_gates, gru_gates_backward, weight_gradient

MIN_STD = 0.1  # smallest standard deviation of prior and posterior


class ImaginationWeights(NamedTuple):
    """Weights of an imagined step, h_t = GRU(h, ELU(W [s, a])) and p(s_t | h_t); weights [outputs, inputs]."""

    stoch: Tensor
    action: Tensor
    action_bias: Tensor
    input: Tensor
    input_bias: Tensor
    state: Tensor
    state_bias: Tensor
    hidden: Tensor
    hidden_bias: Tensor
    out: Tensor
    out_bias: Tensor


class ObservationWeights(NamedTuple):
    """Weights of an observed step, h_t = GRU(h, ELU(W [s, a])) and q(s_t | h_t, o_t); weights [outputs, inputs]."""

    stoch: Tensor
    input: Tensor
    state: Tensor
    deter: Tensor
    out: Tensor
    input_bias: Tensor
    state_bias: Tensor
    out_bias: Tensor


def imagined_step(weights: ImaginationWeights, features: Tensor, action: Tensor, noise: Tensor) -> Tensor:
    """Compute the features of the next state, with the stochastic part sampled from the prior.

    Gradients flow to ``features`` and ``action`` only.

    Args:
        weights: treated as constants. They must not change before the backward pass.
        features: h and s, [N, deter + stoch].
        action: [N, A].
        noise: standard normal, [N, stoch].
    """
    return _ImaginedStep.apply(features, action, noise, weights)


class _ImaginedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, action: Tensor, noise: Tensor, w: ImaginationWeights) -> Tensor:
        sizes = [w.state.shape[1], w.stoch.shape[1]]
        state, stoch = features.split(sizes, 1)
        from_action = dense(action, w.action, w.action_bias)
        x = dense(stoch, w.stoch, None, from_action, elu=True)
        from_input = dense(x, w.input, w.input_bias)
        from_state = dense(state, w.state, w.state_bias)
        next_features = torch.empty_like(features)
        deter, sample = next_features.split(sizes, 1)
        gates, candidate = gru_gates(from_input, from_state, state, deter)
        hidden = dense(deter, w.hidden, w.hidden_bias, elu=True)
        mean, raw = dense(hidden, w.out, w.out_bias).chunk(2, 1)
        raw = raw.contiguous()  # softplus and sigmoid are slow on memory that is not contiguous
        std = F.softplus(raw).add_(MIN_STD)
        torch.addcmul(mean, std, noise, out=sample)
        ctx.weights = w
        ctx.save_for_backward(state, x, gates, candidate, hidden, noise * raw.sigmoid())
        return next_features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        w = ctx.weights
        state, x, gates, candidate, hidden, sample_by_raw = ctx.saved_tensors
        n = state.shape[1]
        grad_sample = gradient[:, n:]
        grad_out = torch.cat([grad_sample, grad_sample * sample_by_raw], 1)
        grad_hidden = dense_backward(grad_out, w.out, hidden)
        grad_deter = dense_backward(grad_hidden, w.hidden, add=gradient[:, :n])
        grad_gates, grad_state = gru_gates_backward(grad_deter, gates, candidate, state)
        grad_x = dense_backward(grad_gates[:, n:], w.input, x)
        grad_features = None
        if ctx.needs_input_grad[0]:
            grad_state = dense_backward(grad_gates[:, : 3 * n], w.state.roll(n, 0), add=grad_state)
            grad_features = torch.cat([grad_state, dense_backward(grad_x, w.stoch)], 1)
        return grad_features, dense_backward(grad_x, w.action), None, None


def observed_steps(
    weights: ObservationWeights, from_actions: Tensor, from_embeddings: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the states along observed sequences, sampled from the posterior, starting from zero states.

    Args:
        weights: gradients flow to them too.
        from_actions, from_embeddings: the RSSM's layers of these names applied to actions and embeddings,
            [T, B, hidden].
        noise: standard normal, [T, B, stoch].

    Returns:
        Features, [T, B, deter + stoch].
        The posterior's mean and raw standard deviation (before softplus), [T, B, 2 · stoch].
    """
    return _ObservedSteps.apply(from_actions, from_embeddings, noise, *weights)


class _ObservedSteps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, from_actions: Tensor, from_embeddings: Tensor, noise: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        w = ObservationWeights(*weights)
        deter = noise.new_zeros(noise.shape[1], w.deter.shape[1])
        stoch = torch.zeros_like(noise[0])
        steps = []
        for from_action, from_embedding, eps in zip(from_actions, from_embeddings, noise, strict=True):
            state, last_stoch = deter, stoch
            x = dense(stoch, w.stoch, None, from_action, elu=True)
            deter = torch.empty_like(state)
            from_input, from_state = dense(x, w.input, w.input_bias), dense(state, w.state, w.state_bias)
            gates, candidate = gru_gates(from_input, from_state, state, deter)
            hidden = dense(deter, w.deter, None, from_embedding, elu=True)
            out = dense(hidden, w.out, w.out_bias)
            mean, raw = out.chunk(2, 1)
            stoch = torch.addcmul(mean, F.softplus(raw).add_(MIN_STD), eps)
            steps.append((last_stoch, state, x, gates, candidate, hidden, out, deter, stoch))
        *saved, outs, deters, stochs = (torch.stack(each) for each in zip(*steps, strict=True))
        sample_by_raw = noise * outs[..., noise.shape[-1] :].sigmoid()
        ctx.save_for_backward(*saved, deters, sample_by_raw, w.stoch, w.input, w.state, w.deter, w.out)
        return torch.cat([deters, stochs], -1), outs

    @staticmethod
    def backward(ctx: Any, grad_features: Tensor, grad_outs: Tensor) -> tuple[Tensor | None, ...]:
        last_stochs, states, xs, gates, candidates, hiddens, deters, sample_by_raw, *weights = ctx.saved_tensors
        w_stoch, w_input, w_state, w_deter, w_out = weights
        n = deters.shape[-1]
        w_state_rolled = w_state.roll(n, 0)  # rows in the order of gru_gates_backward: candidate, reset, update
        grad_deters, grad_stochs = grad_features.split([n, grad_features.shape[-1] - n], -1)
        grad_state, grad_last_stoch = torch.zeros_like(deters[0]), torch.zeros_like(grad_stochs[0])
        steps = []
        for t in range(len(deters) - 1, -1, -1):
            grad_stoch = grad_last_stoch.add_(grad_stochs[t])
            grad_out = torch.cat([grad_stoch, grad_stoch * sample_by_raw[t]], 1).add_(grad_outs[t])
            grad_hidden = dense_backward(grad_out, w_out, hiddens[t])
            grad_deter = dense_backward(grad_hidden, w_deter, add=grad_state.add_(grad_deters[t]))
            grad_gates, grad_state = gru_gates_backward(grad_deter, gates[t], candidates[t], states[t])
            grad_x = dense_backward(grad_gates[:, n:], w_input, xs[t])
            grad_state = dense_backward(grad_gates[:, : 3 * n], w_state_rolled, add=grad_state)
            grad_last_stoch = dense_backward(grad_x, w_stoch)
            steps.append((grad_x, grad_gates, grad_hidden, grad_out))
        grad_xs, grad_gates, grad_hiddens, grad_outs = (torch.stack(each[::-1]) for each in zip(*steps, strict=True))

        def grad_weight(outputs: Tensor, inputs: Tensor) -> Tensor:
            return weight_gradient(outputs.flatten(0, 1), inputs.flatten(0, 1))

        return (
            grad_xs,
            grad_hiddens,
            None,
            *ObservationWeights(
                stoch=grad_weight(grad_xs, last_stochs),
                input=grad_weight(grad_gates[..., n:], xs),
                state=grad_weight(grad_gates[..., : 3 * n], states).roll(-n, 0),
                deter=grad_weight(grad_hiddens, deters),
                out=grad_weight(grad_outs, hiddens),
                input_bias=grad_gates[..., n:].sum((0, 1)),
                state_bias=grad_gates[..., : 3 * n].sum((0, 1)).roll(-n, 0),
                out_bias=grad_outs.sum((0, 1)),
            ),
        )
