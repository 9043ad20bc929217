"""``examples/pronunciation.py``: its search, its measures, and learning on words that are made here."""

from __future__ import annotations

import importlib.util
import itertools
from random import Random
from types import ModuleType

import pytest
import torch
from paths import ROOT

SOUNDS = {"sh": ["SH"], "th": ["TH"], "a": ["AA"], "e": ["EH"], "o": ["OW"], "b": ["B"], "t": ["T"], "s": ["S"]}
SOUNDS |= {"h": ["HH"], "x": ["K", "S"]}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pronunciation", ROOT / "examples/pronunciation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_words(count: int) -> dict[str, list[list[str]]]:
    """Make words of letters and pairs of letters with one sound, and of one letter with two."""
    rng, words = Random(0), {}
    while len(words) < count:
        parts = rng.choices(list(SOUNDS), k=rng.randint(2, 4))
        if not any(a[-1] + b[0] in SOUNDS for a, b in itertools.pairwise(parts)):
            words["".join(parts)] = [[sound for part in parts for sound in SOUNDS[part]]]
    return words


@pytest.mark.slow
def test_it_learns_made_words(example: ModuleType) -> None:
    row, _ = example.run(made_words(240), 40, "entmax", "entmax", 200, 0)
    assert row["phoneme_error_rate"] < 0.1
    assert row["complete_beams"] > 0.3


@pytest.mark.parametrize("output", ["softmax", "entmax"])
def test_a_complete_beam_has_the_most_probable_hypothesis(
    example: ModuleType, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sequences of up to four of two codes are scored one by one."""
    monkeypatch.setattr(example, "LONGEST", 5)
    complete = []
    for seed in range(10):
        torch.manual_seed(seed)
        model = example.Model(6, 4, "entmax", output).eval()
        with torch.no_grad():
            model.out[-1].weight *= 8
            model.out[-1].bias += torch.tensor([-50.0, 2.0, 0.0, 0.0])  # no padding
            word = torch.tensor([2, 3, 5, example.END])
            scores: dict[tuple[int, ...], float] = {}
            for length in range(5):
                for path in itertools.product((2, 3), repeat=length):
                    states, state = model.encode(word[None])
                    before = torch.tensor([[example.END, *path]])
                    logits, *_ = model.decode(before, state, states, word[None])
                    logs = model.probabilities(logits[0], dim=-1).log()
                    scores[path] = sum(logs[k, code].item() for k, code in enumerate((*path, example.END)))
            found, whole = example.search(model, word)
        best = max(scores, key=lambda path: scores[path])
        complete.append(whole)
        if whole:
            assert tuple(found) == best
        elif len(found) < 5:
            assert scores[tuple(found)] <= scores[best]
    assert any(complete) == (output == "entmax")


def test_the_edit_distance_counts_each_kind_of_error(example: ModuleType) -> None:
    pairs = [("kitten", "sitting", 3), ("", "ab", 2), ("abc", "abc", 0), ("abcd", "acd", 1)]
    for a, b, expected in pairs:
        assert example.distance(list(map(ord, a)), list(map(ord, b))) == expected


def test_padding_changes_no_result(example: ModuleType) -> None:
    torch.manual_seed(0)
    model = example.Model(6, 5, "entmax", "entmax").eval()
    short, long = torch.tensor([[2, 3, 1]]), torch.tensor([[2, 3, 1, 0, 0], [2, 3, 4, 5, 1]])
    before = torch.tensor([[1, 2, 3]])
    alone, *_ = model.decode(before, *reversed(model.encode(short)), short)
    states, state = model.encode(long)
    together, *_ = model.decode(before.expand(2, -1), state, states, long)
    torch.testing.assert_close(together[:1], alone)
