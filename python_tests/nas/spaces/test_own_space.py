"""Search spaces of the user: --space module:Class."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from paths import ROOT

from automl_ext.nas.evaluation import Evaluation, Scoring
from automl_ext.nas.search.evaluators import EVALUATORS
from automl_ext.nas.spaces.nasbench201 import NASBench201

MODULE = """
from torch import nn

from automl_ext.nas.spaces.nasbench201 import NASBench201, NASBench201Supernet
from automl_ext.nas.spaces.supernet import Supernet


class Mine(NASBench201):
    pass


class Empty:
    pass


class Arguments(Mine):
    def __init__(self, size):
        pass


class Fails(Mine):
    def random(self, rng):
        raise RuntimeError("no luck")


class Kinds(Mine):
    kinds = ("operation",)


class Counts(Mine):
    num_choices = (5, 5.0)


class Fixed(Mine):
    num_choices = (1, 5, 5, 5, 5, 5)  # the first edge is always a skip connection

    def encode(self, genotype):
        return (0, *super().encode(genotype)[1:])

    def decode(self, indices):
        return NASBench201().decode((1, *indices[1:]))


class Single(Mine):
    num_choices = (1,) * 6


class Encode(Mine):
    def encode(self, genotype):
        return (9,) * 6


class Decode(Mine):
    def decode(self, indices):
        return super().decode(indices[::-1])


class Parse(Mine):
    def parse(self, text):
        return super().parse(text.replace("none", "skip_connect").replace("conv_1x1", "conv_3x3"))


class NoSupernet(Mine):
    def parse(self, text):
        return super().parse(text) if "|" in text else None.parse

    def build_supernet(self, **shape):
        raise NotImplementedError("layers differ")


class Incomplete(NASBench201Supernet):
    derive = Supernet.derive


class NoDerive(Mine):
    def build_supernet(self, **shape):
        return Incomplete(**shape)


class WrongOut(Mine):
    def build(self, genotype, *, num_classes, **shape):
        return super().build(genotype, num_classes=num_classes + 1, **shape)


class NoWeights(Mine):
    def build(self, genotype, **shape):
        return nn.Flatten()


class Legal(Mine):
    def legal(self, genotype, decision):
        return (0, 1, 2, 3, 4)


def function():
    pass
"""
SMALL = shlex.split("--subset 200 --epochs 1 --channels 4 --device cpu")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write own_space.py into the current directory, which is not on sys.path; forget it afterwards."""
    (tmp_path / "own_space.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    sys.modules.pop("own_space", None)
    yield
    sys.modules.pop("own_space", None)


@pytest.mark.slow
def test_search_train_plot_and_export_in_an_own_space(command: Command) -> None:
    mine = ["--space", "own_space:Mine"]
    code, out, error = command("search", "random", *SMALL, *mine, "--evaluations", "2", "--out", "run")
    assert code == 0, error
    assert json.loads(Path("run/config.json").read_text())["space"] == "own_space:Mine"
    genotype = json.loads(Path("run/result.json").read_text())["genotype"]
    retrain = next(line for line in out.splitlines() if "automl-ext retrain " in line)
    for flags in ("--space own_space:Mine", f"--genotype '{genotype}'", "--subset", "--out run-retrained"):
        assert flags in retrain
    code, out, error = command("retrain", *SMALL, *mine, "--genotype", genotype, "--out", "net")
    assert code == 0, error
    assert "automl-ext export net --out net/network --trust own_space" in out
    for arguments in (["plot", "run"], ["export", "net", "--out", "a.py"]):
        del sys.modules["own_space"]
        code, out, error = command(*arguments)
        assert (code, error.count("\n")) == (2, 1)
        assert re.search(r"error: \w+/\w+\.json names the Python module own_space .*--trust own_space$", error)
        assert "own_space" not in sys.modules
        code, out, error = command(*arguments, "--trust", "own_space")
        assert code == 0, error
    assert Path("a.py").is_file()
    assert Path("run/cell.png").is_file()
    assert command("plot", "--genotype", genotype, *mine, "--out", "cell")[0] == 0


@pytest.mark.slow
def test_worker_processes_import_the_space(command: Command) -> None:
    flags = ["--space", "own_space:Mine", "--evaluations", "2", "--workers", "2", "--out", "run"]
    code, _, error = command("search", "random", *SMALL, *flags)
    assert code == 0, error


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own_spcae:Mine", r"No module named 'own_spcae' in .*; did you mean own_space\?"),
        ("own_space:Mien", r"own_space\.py does not define Mien; did you mean Mine\?"),
        ("own_space:function", "expected a class, got <function"),
        (
            "own_space:Empty",
            "expected a search space; it lacks parse, random, .*, kinds; without a supernet, let it raise",
        ),
        ("own_space:Arguments", r"Arguments\(\) raised TypeError: .*size"),
        ("own_space:Fails", r"random\(\) raised RuntimeError: no luck \(.*own_space\.py:\d+\)"),
        ("own_space:Kinds", 'kinds: expected "operation" or "input" for each of the 6 decisions'),
        ("own_space:Counts", r"num_choices: expected ints of at least 1, got \(5, 5\.0\)"),
        ("own_space:Single", r"num_choices: expected a decision with several choices, got \(1, 1, 1, 1, 1, 1\)"),
        ("own_space:Encode", r"encode\(\) returned \(9, 9, 9, 9, 9, 9\), expected indices below \(5, 5"),
        ("own_space:Decode", r"decode\(encode\(genotype\)\) is not the genotype"),
        ("own_space:Parse", r"parse\(str\(genotype\)\) is not the genotype"),
        ("own_space:Legal", r"legal\(genotype, 0\) returned \(0, 1, 2, 3, 4\), expected choices below 5 without"),
    ],
)
def test_wrong_space_is_one_line_before_a_run_directory(command: Command, name: str, text: str) -> None:
    code, out, error = command("search", "gdas", *SMALL, "--space", name, "--out", "run")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"error: --space {name}: ")
    assert re.search(text, error), error
    assert not Path("run").exists()


@pytest.mark.parametrize("strategy", ["rea", "renas", "reinforce"])
def test_a_decision_with_one_choice_keeps_it(command: Command, monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    monkeypatch.setitem(EVALUATORS, "train", lambda *_: Scoring(Constant))
    flags = ["--space", "own_space:Fixed", "--evaluations", 60, "--finalists", 0, "--out", "run"]
    flags += ["--population", 4, "--sample", 2] * (strategy != "reinforce")
    code, _, error = command("search", strategy, *flags)
    assert code == 0, error
    assert json.loads(Path("run/result.json").read_text())["genotype"].startswith("|skip_connect~0|")


class Constant:
    """Gives every architecture the same score."""

    def evaluate(self, genotype: object, budget: object = None, state: object = None) -> Evaluation:
        return Evaluation(0.5, 1.0)


def test_mutations_of_spaces_with_several_choices_draw_as_before() -> None:
    space, rng, expected = NASBench201(), Random(0), Random(0)
    genotype = space.random(rng)
    assert space.random(expected) == genotype
    for _ in range(20):
        decision, indices = expected.randrange(6), list(space.encode(genotype))
        indices[decision] = expected.choice(space.legal(genotype, decision))
        genotype = space.mutate(genotype, rng)
        assert genotype == space.decode(indices)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WrongOut", r"expected a network whose output has shape \(\d+, 10\), got shape \(\d+, 11\)"),
        ("NoWeights", "expected a network with parameters"),
    ],
)
def test_networks_that_do_not_classify_are_refused(command: Command, name: str, text: str) -> None:
    code, _, error = command("search", "random", *SMALL, "--space", f"own_space:{name}", "--out", "run")
    assert code == 2
    assert re.search(rf"error: {name}\.build\(.*\): {text}", error), error


@pytest.mark.slow
def test_a_space_without_a_supernet(command: Command) -> None:
    mine = ["--space", "own_space:NoSupernet"]
    for search in (["gdas"], ["random", "--evaluator", "supernet"]):
        code, _, error = command("search", *search, *SMALL, *mine, "--out", "run")
        assert (code, error) == (2, "error: space NoSupernet: has no supernet: layers differ\n")
    small = ["--minutes", "0.01", "--candidates", "4", "--subset", "200", "--channels", "2"]
    code, _, error = command("search", "auto", *small, *mine, "--out", "run")
    assert code == 0, error
    code, _, error = command("retrain", *SMALL, *mine, "--genotype", "no", "--out", "net")
    assert code == 2
    assert re.match(r"error: NoSupernet\.parse\('no'\) raised AttributeError: .*own_space\.py:\d+\)\n$", error), error


def test_a_supernet_that_cannot_derive_is_refused_before_the_search(command: Command) -> None:
    code, _, error = command("search", "gdas", *SMALL, "--space", "own_space:NoDerive", "--out", "run")
    assert (code, error) == (2, "error: Incomplete: expected a method derive, which returns a genotype\n")
    assert not Path("run").exists()


def test_the_space_of_the_documentation(command: Command, tmp_path: Path) -> None:
    """The class of docs/development/extending-nas.md."""
    page = (ROOT / "docs/development/extending-nas.md").read_text()
    (tmp_path / "chain.py").write_text(page.partition("`chain.py`:\n\n```python\n")[2].partition("```")[0])
    flags = ["--space", "chain:ChainSpace", "--retrain-epochs", "1", "--retrain-channels", "4", "--out", "run"]
    code, _, error = command("search", "gdas", *SMALL, *flags)
    assert code == 0, error
    assert re.fullmatch(r"\w+-\w+-\w+-\w+", json.loads(Path("run/result.json").read_text())["genotype"])
    assert command("export", "run", "--out", "net", "--trust", "chain")[0] == 0
    del sys.modules["chain"]
