"""Measure a training step of a small language model with softmax and with entmax15 as attention weights.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/steps/language_model.py --json FILE

The models differ only in their attention: softmax and entmax15 in one op each, PyTorch's
``scaled_dot_product_attention`` and ``entmax15_attention``, and composed of matrix products and ``torch.softmax``,
``entmax15`` of this package, or that of the package ``entmax`` (if installed). They start from equal weights and read
equal batches of bytes of this repository's pages. They take turns, one step each; times are medians over the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext import __version__, build_info, entmax15, entmax15_attention
from automl_ext.training.machine.environment import cpu_name
from automl_ext.training.machine.memory import keep_freed_memory

ROOT = Path(__file__).parents[2]
BATCH, LENGTH, WIDTH, HEADS, LAYERS = 8, 256, 128, 8, 2
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # of queries, keys and values [batch, heads, length, width]


@cache
def future(length: int) -> Tensor:
    """Return which keys a query must not see, [queries, keys]."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """Return the attention scores, −∞ in the future, [batch, heads, queries, keys]."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(future(q.shape[-2]), -torch.inf)


def composed(weights: Callable[[Tensor], Tensor]) -> Attend:
    """Return attention by two matrix products and ``weights``, which turns scores into weights."""
    return lambda q, k, v: weights(scores(q, k)) @ v


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def heads(self, x: Tensor) -> Tensor:
        """Return queries, keys and values, [3, batch, heads, length, width]."""
        return self.qkv(x).view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attend(*self.heads(x)).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(WIDTH), Attention(attend))
        self.dense = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.dense(x)


class LanguageModel(nn.Module):
    """A transformer that predicts the next byte."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.tokens = nn.Embedding(256, WIDTH)
        self.positions = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(Block(attend) for _ in range(LAYERS)))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.tokens(tokens) + self.positions))


def batch(text: Tensor, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` parts of the text. Return their bytes, and for each the one that follows."""
    starts = torch.randint(len(text) - LENGTH, (count,), generator=generator).tolist()
    rows = torch.stack([text[start : start + LENGTH + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


class Training:
    """A model and its optimizer. All randomness comes from ``seed``."""

    def __init__(self, attend: Attend, text: Tensor, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model, self.text = LanguageModel(attend), text
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(seed)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self) -> None:
        tokens, following = batch(self.text, self.generator, BATCH)
        begin = time.perf_counter()
        loss = F.cross_entropy(self.model(tokens).flatten(0, 1), following.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - begin)
        self.losses.append(loss.item())


def contenders() -> dict[str, Attend]:
    found: dict[str, Attend] = {
        "softmax": composed(partial(torch.softmax, dim=-1)),
        "entmax15": composed(entmax15),
        "fused softmax": partial(F.scaled_dot_product_attention, is_causal=True),
        "fused entmax15": partial(entmax15_attention, is_causal=True),
    }
    try:
        import entmax
    except ModuleNotFoundError:
        return found
    return found | {"entmax package": composed(partial(entmax.entmax15, dim=-1))}


def measure(rounds: int, warm_up: int) -> dict[str, Any]:
    """Return ms per step, the ratio to softmax and the last losses of each contender."""
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    text = torch.tensor(list(b"".join(page.read_bytes() for page in pages)))
    trainings = {name: Training(attend, text) for name, attend in contenders().items()}
    for _ in range(warm_up + rounds):
        for training in trainings.values():
            training.step()
    times = {name: [1e3 * s for s in training.seconds[warm_up:]] for name, training in trainings.items()}
    medians = {name: statistics.median(of) for name, of in times.items()}
    return {
        "ms_per_step": {name: round(median, 2) for name, median in medians.items()},
        "quartiles_ms": {name: [round(q, 2) for q in statistics.quantiles(of, n=4)[::2]] for name, of in times.items()},
        "over_softmax": {name: round(median / medians["softmax"], 3) for name, median in medians.items()},
        "loss": {name: round(statistics.fmean(t.losses[-10:]), 3) for name, t in trainings.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="measured steps of each model (default: 200)")
    parser.add_argument("--warm-up", type=int, default=20, help="steps before these (default: 20)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    load = os.getloadavg()[0]
    names = ("torch", "entmax") if "entmax package" in contenders() else ("torch",)
    result = {
        "command": f"OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/steps/language_model.py --rounds {args.rounds}",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": f"1 thread of {cpu_name()}, {build_info()['instruction_set']} kernels",
        "load": load,
        "versions": {"automl_ext": __version__, **{name: version(name) for name in names}},
        "model": {"batch": BATCH, "length": LENGTH, "width": WIDTH, "heads": HEADS, "layers": LAYERS},
        **measure(args.rounds, args.warm_up),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
