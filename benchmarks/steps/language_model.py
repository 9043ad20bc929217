"""Measure a training step of a small language model with softmax and with entmax15 as attention weights.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/steps/language_model.py --json FILE

The models differ only in the function that turns attention scores into weights: ``torch.softmax``, ``entmax15`` of this
package, ``entmax15`` of the package ``entmax`` (if installed), and, for comparison, softmax within PyTorch's fused
``scaled_dot_product_attention``. They start from equal weights and read equal batches of bytes of this repository's
pages. They take turns, one step each; the times are medians over the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext import __version__, build_info, entmax15
from automl_ext.training.machine.environment import cpu_name
from automl_ext.training.machine.memory import keep_freed_memory

ROOT = Path(__file__).parents[2]
BATCH, LENGTH, WIDTH, HEADS, LAYERS = 8, 256, 128, 8, 2
Weights = Callable[[Tensor], Tensor]  # of attention scores [batch, heads, queries, keys]


class Attention(nn.Module):
    """Causal self-attention. ``weights``: None for PyTorch's fused attention with softmax."""

    def __init__(self, weights: Weights | None) -> None:
        super().__init__()
        self.weights = weights
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("future", torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        if self.weights is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            y = self.weights(scores.masked_fill(self.future, -torch.inf)) @ v
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, weights: Weights | None) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(WIDTH), Attention(weights))
        self.dense = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.dense(x)


class LanguageModel(nn.Module):
    """A transformer that predicts the next byte."""

    def __init__(self, weights: Weights | None) -> None:
        super().__init__()
        self.tokens = nn.Embedding(256, WIDTH)
        self.positions = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(Block(weights) for _ in range(LAYERS)))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.tokens(tokens) + self.positions))


class Training:
    """A model and its optimizer. All randomness comes from seed 0."""

    def __init__(self, weights: Weights | None, text: Tensor) -> None:
        torch.manual_seed(0)
        self.model, self.text = LanguageModel(weights), text
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(0)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self) -> None:
        starts = torch.randint(len(self.text) - LENGTH, (BATCH,), generator=self.generator).tolist()
        rows = torch.stack([self.text[start : start + LENGTH + 1] for start in starts])
        begin = time.perf_counter()
        logits = self.model(rows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - begin)
        self.losses.append(loss.item())


def contenders() -> dict[str, Weights | None]:
    found: dict[str, Weights | None] = {
        "softmax": lambda scores: scores.softmax(-1),
        "entmax15": entmax15,
        "fused softmax": None,
    }
    try:
        import entmax
    except ModuleNotFoundError:
        return found
    return found | {"entmax package": lambda scores: entmax.entmax15(scores, dim=-1)}


def measure(rounds: int, warm_up: int) -> dict[str, Any]:
    """Return ms per step, the ratio to softmax and the last losses of each contender."""
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    text = torch.tensor(list(b"".join(page.read_bytes() for page in pages)))
    trainings = {name: Training(weights, text) for name, weights in contenders().items()}
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
