"""Train the small language model with fused softmax and with fused entmax15 attention, for equal CPU time.

    OMP_NUM_THREADS=1 python benchmarks/steps/language_model_training.py --out FOLDER
        --json benchmarks/results/language_model_training.json [--minutes 20] [--seeds 0 1] [--picture FILE]

The text is that of Python's help (``pydoc_data.topics``); its last tenth is for validation. The learning rate falls to
0 with the CPU time, which counts training steps only. A row has the validation loss and each layer's share of weights
that are not 0, among those that a query sees, after 0, 25, 50 and 100 % of the time: entmax's speed depends on it. Rows
that the file has are not repeated. The picture shows the weights of one head of both models on one validation text.
"""

from __future__ import annotations

import argparse
import json
import pydoc_data.topics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from language_model import LENGTH, Attend, LanguageModel, Training, batch, contenders, future, scores
from torch import Tensor, nn

from automl_ext import build_info, entmax15, keep_freed_memory
from automl_ext.training.files.atomic import write_picture
from automl_ext.training.machine.environment import cpu_name
from automl_ext.training.pictures.curves import add_title, figure

MARKS = (0.0, 0.25, 0.5, 1.0)
WEIGHTS = {"fused softmax": partial(torch.softmax, dim=-1), "fused entmax15": entmax15}


def read_text() -> tuple[Tensor, Tensor]:
    """Return the bytes of the training text and of the validation text."""
    topics = pydoc_data.topics.topics
    text = torch.tensor(list("\n\n".join(topics[name] for name in sorted(topics)).encode()))
    return text[: -len(text) // 10], text[-len(text) // 10 :]


def attention_weights(model: LanguageModel, tokens: Tensor, attend: str) -> list[Tensor]:
    """Return each layer's weights, [batch, heads, queries, keys]."""
    found: list[Tensor] = []

    def collect(module: nn.Module, inputs: tuple[Tensor]) -> None:
        q, k, _ = module.heads(*inputs)
        found.append(WEIGHTS[attend](scores(q, k)))

    hooks = [block.attention[1].register_forward_pre_hook(collect) for block in model.blocks]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return found


def measure(model: LanguageModel, text: Tensor, attend: str) -> dict[str, Any]:
    """Return the validation loss, in nats per byte, and each layer's share of weights that are not 0."""
    tokens, following = batch(text, torch.Generator().manual_seed(0), 64)
    with torch.no_grad():
        parts = zip(tokens.split(8), following.split(8), strict=True)
        losses = [F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item() for x, y in parts]
    seen = ~future(LENGTH)
    shares = [
        (weights[..., seen] > 0).float().mean().item() for weights in attention_weights(model, tokens[:8], attend)
    ]
    return {"loss": round(sum(losses) / len(losses), 4), "nonzero": [round(share, 4) for share in shares]}


def train(attend: str, function: Attend, seed: int, seconds: float) -> tuple[LanguageModel, dict[str, Any]]:
    """Train for ``seconds`` of CPU time. Return the model and its row."""
    text, held_out = read_text()
    training = Training(function, text, seed)
    rate, spent, marks = training.optimizer.param_groups[0]["lr"], 0.0, []
    while True:
        if spent >= MARKS[len(marks)] * seconds:
            marks.append({"seconds": round(spent, 1), "steps": len(training.losses)})
            marks[-1] |= measure(training.model, held_out, attend)
            print(attend, seed, marks[-1], flush=True)
            if len(marks) == len(MARKS):
                break
        training.optimizer.param_groups[0]["lr"] = rate * max(1 - spent / seconds, 0.0)
        start = time.process_time()
        training.step()
        spent += time.process_time() - start
    last = sum(training.losses[-100:]) / 100
    return training.model, {"attention": attend, "seed": seed, "training_loss": round(last, 4), "marks": marks}


def draw(folder: Path, seed: int, path: Path) -> None:
    """Draw the weights of each model's last layer on one validation text: of its first head, and 64 bytes."""
    tokens, _ = batch(read_text()[1], torch.Generator().manual_seed(1), 1)
    picture = figure(8, 4)
    axes = picture.subplots(1, 2)
    for plot, name in zip(axes, WEIGHTS, strict=True):
        model = LanguageModel(contenders()[name])
        model.load_state_dict(torch.load(folder / f"{name.replace(' ', '-')}-{seed}.pt", weights_only=True))
        weights = attention_weights(model, tokens, name)[-1][0, 0, :64, :64]
        shown = plot.imshow(weights.where(weights > 0, torch.nan), vmin=0, vmax=1)
        plot.set_title(name.removeprefix("fused "))
        plot.set_xlabel("key (byte of the text)")
    axes[0].set_ylabel("query (byte of the text)")
    picture.colorbar(shown, ax=axes, label="weight; white: exactly 0")
    add_title(picture, "Attention weights of one head after training")
    write_picture(picture, path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="CPU-minutes of training steps per model")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained models")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows")
    parser.add_argument("--picture", type=Path, help="draw the weights of both models of the first seed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = json.loads(args.json.read_text()) if args.json.exists() else []
    for seed in args.seeds:
        for name in WEIGHTS:
            if any((row["attention"], row["seed"]) == (name, seed) for row in rows):
                continue
            model, row = train(name, contenders()[name], seed, 60 * args.minutes)
            row["processor"] = f"{cpu_name()}, {build_info()['instruction_set']}"
            torch.save(model.state_dict(), args.out / f"{name.replace(' ', '-')}-{seed}.pt")
            rows.append(row)
            args.json.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    if args.picture:
        draw(args.out, args.seeds[0], args.picture)


if __name__ == "__main__":
    main()
