"""Cases of log-probabilities of tokens, with and without entropies, from the logits of a language model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import automl_ext as a
from automl_ext.bench.cases.case import Case, Function, Peer, plain
from automl_ext.bench.cases.rows import by_rows

Pair = tuple[Tensor, Tensor]


def logits_cases(shape: tuple[int, ...], dtype: torch.dtype, device: str, modules: dict[str, Any]) -> list[Case]:
    def make() -> list[Tensor]:
        return [torch.randn(shape, device=device).to(dtype), torch.randint(shape[1], shape[:1], device=device)]

    def case(op: str, ours: Function, eager: Function, peers: dict[str, Peer]) -> Case:
        return Case(
            op,
            shape,
            dtype,
            make,
            ours,
            eager,
            by_rows,
            lambda y, at: y[at],
            shape[0],
            peers=peers,
            saved=lambda inputs, outputs: inputs[:1],
        )

    def log_softmax(x: Tensor, tokens: Tensor) -> Tensor:
        return x.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def with_entropy(x: Tensor, tokens: Tensor) -> Pair:
        logs = x.log_softmax(-1)
        return logs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), -(logs.exp() * logs).sum(-1)

    cross_entropy = Peer(plain(lambda x, tokens: -F.cross_entropy(x, tokens, reduction="none")), trained=True)
    return [
        case(
            "token_log_probs",
            lambda x, tokens: a.categorical_log_probs(x, tokens)[0],
            log_softmax,
            {"cross_entropy": cross_entropy},
        ),
        case("token_log_probs_entropy", a.categorical_log_probs, with_entropy, {}),
    ]
