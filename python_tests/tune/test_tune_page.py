"""The commands of docs/how-to/tune.md run, with tiny budgets. Its Python block is run with those of the other pages."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from paths import ROOT

from automl_ext.cli import main
from automl_ext.training.search_space import Categories, Range
from automl_ext.tune.commands.ranges import space_of
from automl_ext.tune_command import TUNABLE

PAGE = (ROOT / "docs/how-to/tune.md").read_text()
TINY = {"--total-steps": "64", "--trials": "2", "--minutes": "100", "--workers": "1"}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words[0] == "automl-ext"]


def tiny(words: list[str], folder: Path) -> list[str]:
    small = [TINY.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    short = ["--eval-episodes=1", "--final-episodes=1", "--confirm=1"] if words[0] == "tune" else []
    return [word.replace("/shared", str(folder)) for word in small] + short


@pytest.mark.slow
def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands()
    assert len(found) == 4
    for words in found:
        assert main(tiny(words, tmp_path)) == 0, words
    best = ["train", "ppo", "--config", "runs/tuned/best.toml", "--out", "runs/best"]
    assert main(best) == 0
    for command in (["plot", "runs/tuned/trials/0001"], ["eval", "runs/tuned/trials/0001", "--episodes", "1"]):
        assert main(command) == 0
    assert (tmp_path / "study.db").is_file()
    assert json.loads((tmp_path / "mine.json").read_text())["command"] == "train ppo"
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "ranges.toml").write_text(block)
    space = space_of(TUNABLE["train ppo"].load()[0](), tmp_path / "ranges.toml")
    assert space["lr"] == Range(1e-4, 1e-2, log=True)
    assert space["n_steps"] == Categories(16, 32, 64, 128)
    assert not {"vf_coef", "max_grad_norm"} & set(space)
