"""Manipulated run directories are rejected, and nothing in them is executed."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from automl_ext.cli import main
from automl_ext.nas.export.export import export
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint

CODE = "[str(k) for k in range(10)] if not open('executed', 'w') else []"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": CODE}, "classes: expected a list of 10"),
        ({"classes": [["a"]] * 10}, "classes: expected strings"),
        ({"mean": "[0.5] if not open('executed', 'w') else []"}, "mean: expected a list of 1"),
        ({"mean": ["open('executed', 'w')"]}, "mean: expected finite numbers"),
        ({"std": "[0.5] if not open('executed', 'w') else []"}, "std: expected a list of 1"),
        ({"mean": [float("nan")]}, "mean: expected finite numbers"),
        ({"mean": [True]}, "mean: expected finite numbers"),
        ({"std": [0.0]}, "std: expected numbers above 0"),
        ({"shape": {"channels": 2}}, "shape: expected in_channels, num_classes, channels, cells, got"),
        ({"channels": "2 if not open('executed', 'w') else 2"}, "channels: expected an int from 1 to 4096"),
        ({"channels": 10**9}, "channels: expected an int from 1 to 4096"),
        ({"channels": 4096}, r"is of another network: network\..* expected"),
        ({"cells": True}, "cells: expected an int"),
        ({"x=open('executed', 'w')": 1}, "shape: expected"),
        ({"image_size": [8, 10**9]}, "image_size: expected two ints"),
        ({"image_size": ["open('executed', 'w')", 8]}, "image_size: expected two ints"),
        ({"space": ["nb201"]}, "space: expected a string"),
        ({"space": "x"}, "expected one of nb201"),
        ({"space": "evil:Space"}, r"result\.json names the Python module evil \(evil:Space\).*--trust evil$"),
        ({"space": ":"}, "--space :: expected MODULE:NAME"),
        ({"network": 3}, "network: expected an object"),
        ({"genotype": 3}, "expected a run with one network"),
        ({"genotype": '"""; open("executed", "w"); """'}, "expected a NAS-Bench-201 cell"),
    ],
)
def test_manipulated_results_are_rejected(
    change: dict[str, Any],
    message: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command prints a one-line error, exits with 2, and executes nothing of the changed result.json."""
    shutil.copytree(runs / "nb201", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "run"))
    (tmp_path / "run/evil.py").write_text("open('executed', 'w')\n")
    path = tmp_path / "run/result.json"
    result = json.loads(path.read_text())
    shape = {"in_channels", "num_classes", "channels", "cells"}
    for name, value in change.items():
        if name in ("network", "genotype"):
            result[name] = value
        else:
            inner = name in shape or "=" in name
            (result["network"]["shape"] if inner else result["network"])[name] = value
    path.write_text(json.dumps(result))
    assert main(["export", "run", "--out", "net.py"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not [p.name for p in tmp_path.iterdir() if p.name != "run"]


def test_class_names_stay_strings_in_the_module(runs: Path, tmp_path: Path) -> None:
    """Class names may contain quotes, newlines, code and non-Latin characters."""
    shutil.copytree(runs / "nb201", tmp_path / "run")
    path = tmp_path / "run/result.json"
    result = json.loads(path.read_text())
    names = ["'", '"', "\n", "\\", "猫", "\ud800", '"""', "{x}", "]", "'] + [open('executed', 'w')] + ['"]
    result["network"]["classes"] = names
    path.write_text(json.dumps(result))
    export(tmp_path / "run", tmp_path / "net.py")
    line = next(x for x in (tmp_path / "net.py").read_text("utf-8").splitlines() if x.startswith("CLASSES = "))
    assert ast.literal_eval(line.removeprefix("CLASSES = ")) == names


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"7", b"\xff"])
def test_result_that_is_not_an_object_is_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(UserError, match=r"expected a JSON object|is not valid JSON"):
        export(tmp_path, tmp_path / "net")


def test_pipe_in_place_of_the_result_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(UserError, match=r"it has no result\.json"):
        export(tmp_path, tmp_path / "net")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "does not contain the state of a network"),
        ({"job": {}}, "does not contain the state of a network"),
        ({"job": {"network": [1]}}, "does not contain the state of a network"),
        ({"job": {"network": {"a": 1}}}, r"is of another network: network\.stem\.0\.weight is missing"),
    ],
)
def test_checkpoint_without_the_network_is_rejected(
    state: dict[str, Any], message: str, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "nb201", tmp_path / "run")
    folder = tmp_path / "run/checkpoints"
    facts = checkpoint.read_manifest(checkpoint.list_steps(folder)[-1])
    checkpoint.write(folder, 99, state, facts)
    with pytest.raises(UserError, match=message):
        export(tmp_path / "run", tmp_path / "net")


@pytest.mark.parametrize("name", ['a"""b', "a\\b", "a\nb", "a'b.py"])
def test_file_name_that_could_end_the_docstring_is_rejected(name: str, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a name of letters"):
        export(runs / "nb201", tmp_path / name)
