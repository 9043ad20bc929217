"""``examples/pronunciation.py``: its search, its measures, and learning on words that are made here."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from random import Random

import pronunciation as example
import pytest
import torch
from pronunciation_alignment import alignments, draw

SOUNDS = {"sh": ["SH"], "th": ["TH"], "a": ["AA"], "e": ["EH"], "o": ["OW"], "b": ["B"], "t": ["T"], "s": ["S"]}
SOUNDS |= {"h": ["HH"], "x": ["K", "S"]}


def made_words(count: int) -> dict[str, list[list[str]]]:
    """Make words of letters and pairs of letters with one sound, and of one letter with two."""
    rng, words = Random(0), {}
    while len(words) < count:
        parts = rng.choices(list(SOUNDS), k=rng.randint(2, 4))
        if not any(a[-1] + b[0] in SOUNDS for a, b in pairwise(parts)):
            words["".join(parts)] = [[sound for part in parts for sound in SOUNDS[part]]]
    return words


@pytest.mark.slow
def test_it_learns_made_words() -> None:
    row, _ = example.run(made_words(240), 40, "entmax", "entmax", 200, 0)
    assert row["phoneme_error_rate"] < 0.1
    assert row["complete_beams"] > 0.3


@pytest.mark.parametrize(("output", "beam"), [("softmax", 2_000), ("entmax", 2)])
def test_a_complete_beam_has_the_most_probable_hypothesis(
    output: str, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the probabilities of all sequences of up to four of two codes. With softmax, none has probability 0."""
    monkeypatch.setattr(example, "LONGEST", 5)
    monkeypatch.setattr(example, "BEAM", beam)
    word, completes, lengths = torch.tensor([2, 3, 5, example.END]), set(), set()
    for seed in range(30):
        torch.manual_seed(seed)
        model = example.Model(6, 4, "entmax", output).eval()
        with torch.no_grad():
            model.out[-1].weight *= 30
            for weight in model.decoder.parameters():  # so that the next code depends on those before
                weight *= 8
            model.out[-1].bias += torch.tensor([-50.0, -2.0, 0.0, 0.0])  # no padding
            logs = {path: log_probabilities(model, word, path) for n in range(5) for path in product((2, 3), repeat=n)}
        scores = {path: sum(logs[path[:k]][c] for k, c in enumerate((*path, example.END))) for path in logs}
        alive, complete = [()], True
        for _ in range(example.LONGEST):
            following = [(*path, code) for path in alive for code in range(4) if logs[path][code] > -torch.inf]
            complete &= len(following) <= beam
            alive = [path for path in following if path[-1] in (2, 3)]
        found, whole = example.search(model, word)
        assert whole == (complete and output == "entmax" and not alive)
        best = max(scores, key=lambda path: scores[path])
        if whole or output == "softmax":
            assert tuple(found) == best
            lengths.add(len(best))
        completes.add(whole)
    assert completes == ({True, False} if output == "entmax" else {False})
    assert len(lengths) > 1


def log_probabilities(model: example.Model, word: torch.Tensor, path: tuple[int, ...]) -> list[float]:
    """Return those of the four codes after a path."""
    states, state = model.encode(word[None])
    logits, *_ = model.decode(torch.tensor([[example.END, *path]]), state, states, word[None])
    return model.probabilities(logits[0, -1], dim=-1).log().tolist()


def test_the_edit_distance_counts_each_kind_of_error() -> None:
    pairs = [("kitten", "sitting", 3), ("", "ab", 2), ("abc", "abc", 0), ("abcd", "acd", 1)]
    for a, b, expected in pairs:
        assert example.distance(list(map(ord, a)), list(map(ord, b))) == expected


def test_padding_changes_no_result() -> None:
    torch.manual_seed(0)
    model = example.Model(6, 5, "entmax", "entmax").eval()
    short, long = torch.tensor([[2, 3, 1]]), torch.tensor([[2, 3, 1, 0, 0], [2, 3, 4, 5, 1]])
    before = torch.tensor([[1, 2, 3]])
    alone, *_ = model.decode(before, *reversed(model.encode(short)), short)
    states, state = model.encode(long)
    together, *_ = model.decode(before.expand(2, -1), state, states, long)
    torch.testing.assert_close(together[:1], alone)


def test_the_alignment_of_a_word_is_drawn(tmp_path: Path) -> None:
    words = made_words(70)
    word = [*words][3]
    found = alignments(words, word, 2)
    for weights in found.values():  # a row per phoneme and one for the end
        assert weights.shape == (len(words[word][0]) + 1, len(word) + 1)
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert (found["softmax"] > 0).all()
    draw(found, word, words[word][0], tmp_path / "alignment.png")
    assert (tmp_path / "alignment.png").read_bytes().startswith(b"\x89PNG")
