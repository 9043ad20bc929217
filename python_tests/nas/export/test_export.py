"""Exported networks, loaded by an interpreter that has no automl_ext; and the worked example of docs/extending.md."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch
from paths import ROOT

pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")
pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("rich", reason="the command line needs rich")
from automl_ext.cli import main
from automl_ext.nas.differentiable.gdas import GDASConfig, search
from automl_ext.nas.export import export as export_module
from automl_ext.nas.export.export import export, import_lines, read_result, read_weights
from automl_ext.nas.export.source import Sources
from automl_ext.nas.retraining.compare import CompareConfig, compare
from automl_ext.nas.retraining.retrain import RetrainConfig, retrain
from automl_ext.nas.spaces.registry import SPACES, space
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint

DOCS = ROOT / "docs/extending.md"

# Both forms, on 1 and on 5 images, without automl_ext: the interpreter is isolated, and importing it is an error.
FRESH = """
import importlib.util, sys, torch
sys.modules["automl_ext"] = None
folder, names = sys.argv[1], sys.argv[2:]
images = torch.load(f"{folder}/images.pt")
for name in names:
    spec = importlib.util.spec_from_file_location("exported", f"{folder}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["exported"] = module
    spec.loader.exec_module(module)
    logits = torch.load(f"{folder}/{name}.logits")
    with torch.no_grad():
        for network in (module.load(), torch.export.load(f"{folder}/{name}.pt2").module()):
            for n in (1, len(images)):
                torch.testing.assert_close(network(images[:n]), logits[:n], rtol=1e-4, atol=1e-5)
    assert module.CLASSES == [str(k) for k in range(10)]
    raw = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    torch.testing.assert_close(module.normalize(raw), torch.full((2, 1, 8, 8), (1 - module.MEAN[0]) / module.STD[0]))
assert not [name for name in sys.modules if name.startswith("automl_ext.")]
print("same logits:", *names)
"""


def config(name: str, **changes: object) -> RetrainConfig:
    genotype = str(space(name).random(Random(3)))
    return RetrainConfig(**{"space": name, "genotype": genotype, "subset": 60, "epochs": 1, "channels": 2} | changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished retrain of every space, and of one with an auxiliary head, by name."""
    folder = tmp_path_factory.mktemp("runs")
    for name in SPACES:
        retrain(config(name, auxiliary=0.4 * (name == "darts"), drop_path=0.1), folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [["nb201"], pytest.param([n for n in SPACES if n != "nb201"], marks=pytest.mark.slow)],
    ids=["nb201", "all"],
)
def test_a_fresh_interpreter_gets_the_same_logits(names: list[str], runs: Path, tmp_path: Path) -> None:
    images = torch.randn(5, 1, 8, 8)
    torch.save(images, tmp_path / "images.pt")
    for name in names:
        written = export(runs / name, tmp_path / name)
        assert [path.name for path in written] == [f"{name}.pt2", f"{name}.py", f"{name}.pt"]
        result, facts = read_result(runs / name)
        network = space(name).build(space(name).parse(result["genotype"]), **facts["shape"])
        network.load_state_dict(read_weights(runs / name, network))
        with torch.no_grad():
            torch.save(network.eval()(images), tmp_path / f"{name}.logits")
        text = (tmp_path / f"{name}.py").read_text()
        assert "automl_ext." not in text.partition('"""')[2].partition('"""')[2].replace(
            "automl_ext.nas.spaces.space.Space", ""
        )
        assert "def mutate" not in text
        assert "AuxiliaryHead" not in text
    done = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, str(tmp_path), *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[2:] == names


def test_one_form_by_its_suffix_and_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(runs / "nb201", tmp_path / "a" / "net.pt2") == [tmp_path / "a" / "net.pt2"]
    assert main(["export", str(runs / "nb201"), "--out", str(tmp_path / "b.py")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "b.py"), str(tmp_path / "b.pt")]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["b.pt", "b.py", "net.pt2"]


def test_a_search_is_exported_too(tmp_path: Path) -> None:
    tiny = GDASConfig(subset=60, channels=2, epochs=1, batch_size=18, retrain_channels=3, retrain_epochs=1)
    found = search(tiny, tmp_path / "run")
    assert found is not None
    assert found["network"]["shape"]["channels"] == 3
    assert len(export(tmp_path / "run", tmp_path / "net.py")) == 2


def test_what_cannot_be_exported_is_told(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ending in \.pt2, \.py or nothing"):
        export(runs / "nb201", tmp_path / "net.onnx")
    with pytest.raises(UserError, match="no finished run"):
        export(tmp_path / "nothing", tmp_path / "net")
    retrain(config("nb201", epochs=2), tmp_path / "stopped", stop_after=1)
    with pytest.raises(UserError, match="no finished run"):
        export(tmp_path / "stopped", tmp_path / "net")
    compare(CompareConfig(subset=60, epochs=1, channels=2, random_cells=1), tmp_path / "compare")
    with pytest.raises(UserError, match="expected a finished retrain or differentiable search"):
        export(tmp_path / "compare", tmp_path / "net")
    with pytest.raises(UserError, match="expected a NAS-Bench-201 cell"):
        export(runs / "darts", tmp_path / "net", space=space("nb201"))
    state = max((runs / "renas" / "checkpoints").iterdir()) / "state.pt"
    intact = state.read_bytes()
    state.write_bytes(intact[:-1] + b"?")
    try:
        with pytest.raises(UserError, match="is damaged"):
            export(runs / "renas", tmp_path / "net")
    finally:
        state.write_bytes(intact)
    assert not list(tmp_path.glob("net*"))


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
        ({"channels": 4096}, "is of another network: network\..* expected"),
        ({"cells": True}, "cells: expected an int"),
        ({"x=open('executed', 'w')": 1}, "shape: expected"),
        ({"image_size": [8, 10**9]}, "image_size: expected two ints"),
        ({"image_size": ["open('executed', 'w')", 8]}, "image_size: expected two ints"),
        ({"space": ["nb201"]}, "space: expected a string"),
        ({"space": "x"}, "expected one of nb201"),
        ({"network": 3}, "network: expected an object"),
        ({"genotype": 3}, "expected a finished retrain or differentiable search"),
        ({"genotype": '"""; open("executed", "w"); """'}, "expected a NAS-Bench-201 cell"),
    ],
)
def test_a_hostile_result_is_refused(
    change: dict[str, Any],
    message: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every change of result.json, one line and exit 2; nothing of it runs."""
    shutil.copytree(runs / "nb201", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
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


def test_strings_of_a_result_stay_strings(runs: Path, tmp_path: Path) -> None:
    """Class names with quotes, newlines and another script are data in the module."""
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
def test_a_result_that_is_no_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(UserError, match=r"expected a JSON object|is not valid JSON"):
        export(tmp_path, tmp_path / "net")


def test_a_pipe_as_result_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(UserError, match=r"it has no result\.json"):
        export(tmp_path, tmp_path / "net")


@pytest.mark.parametrize("state", [{"job": {}}, {"job": {"network": [1]}}, {"job": {"network": {"a": 1}}}, {}])
def test_a_checkpoint_of_something_else_is_refused(state: dict[str, Any], runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "nb201", tmp_path / "run")
    checkpoint.write(tmp_path / "run/checkpoints", 99, state, {})
    with pytest.raises(UserError, match="does not contain the state of a network"):
        export(tmp_path / "run", tmp_path / "net")


@pytest.mark.parametrize("name", ['a"""b', "a\\b", "a\nb", "a'b.py"])
def test_a_name_that_could_end_the_docstring_is_refused(name: str, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a name of letters"):
        export(runs / "nb201", tmp_path / name)


def test_a_wrong_export_is_noticed(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = export_module.MODULE.replace("return network.eval()", "return network")  # batch statistics
    monkeypatch.setattr(export_module, "MODULE", template)
    with pytest.raises(RuntimeError, match="logits differ"):
        export(runs / "nb201", tmp_path / "net.py")


def test_imports_are_grouped() -> None:
    lines = import_lines(["from torch import nn", "import math", "from torch import Tensor", "import torch"])
    assert lines == "import math\n\nimport torch\nfrom torch import Tensor, nn"


def module_of(text: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__(name)


SOURCE = """
import math
from os import path as os_path
from collections import OrderedDict, deque

import automl_ext.ops as ops

ONE = 1
# what follows is two
TWO = ONE + 1
UNUSED = deque()


def outer(x):
    return inner(x) + Thing(x).size()


def inner(x):
    return math.floor(x) + TWO if x else outer(x - 1)


class Thing(OrderedDict):
    \"\"\"A thing.\"\"\"

    color = "red"
    width = 3

    def __init__(self, x):
        self.x = x

    # of the thing
    def size(self):
        return self.width

    @property
    def gone(self):
        return UNUSED

    def __repr__(self):
        return os_path.join("a")


def needs_a_module():
    return ops
"""


def test_only_what_is_needed_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module_of(SOURCE, "copied_source", tmp_path, monkeypatch)
    sources = Sources({"copied_source", "automl_ext"})
    sources.add("copied_source", "outer")
    sources.close()
    text = sources.text()
    assert set(sources.definitions) == {"outer", "inner", "Thing", "ONE", "TWO"}
    assert sources.imports == {
        "math": "import math",
        "OrderedDict": "from collections import OrderedDict",
    }
    for kept in ("# what follows is two\nTWO", "    # of the thing\n    def size", '"""A thing."""', "width = 3"):
        assert kept in text
    for dropped in ("UNUSED", "gone", "@property", "__repr__", "color"):
        assert dropped not in text
    values: dict[str, object] = {}
    exec("import math\nfrom collections import OrderedDict\n" + text, values)
    assert values["outer"](0.5) == 0 + 2 + 3  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"cannot copy the import 'import automl_ext\.ops as ops'"):
        (sources.add("copied_source", "needs_a_module"), sources.close())


def test_the_worked_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/extending.md: the space's file, the searching of it, and the export, which needs neither file."""
    if not DOCS.exists():
        pytest.skip("the package is tested without its documents")
    pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "automl_ext[plot]"')
    blocks = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL))
    chain, use = blocks["chain.py"], blocks["search_chain.py"]
    module = module_of(chain, "chain", tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    short = use.replace("epochs=20,", "epochs=2, subset=300,").replace("retrain_epochs=5", "retrain_epochs=1")
    assert short.count("epochs=") == 3
    values: dict[str, object] = {}
    exec(short, values)
    s = module.ChainSpace()
    found = values["found"]
    assert isinstance(found, dict)
    genotype = s.parse(found["genotype"])
    assert s.decode(s.encode(genotype)) == genotype
    assert sum(a != b for a, b in zip(s.encode(genotype), s.encode(s.mutate(genotype, Random(0))), strict=True)) == 1
    mine = values["mine"]
    assert isinstance(mine, dict)
    assert mine["test_accuracy"] > 0.7
    assert (tmp_path / "runs/chain/cell.png").stat().st_size > 1000
    text = (tmp_path / "runs/mine/network.py").read_text()
    assert "class ChainNetwork" in text
    assert "Supernet" not in text
    check = "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['automl_ext'] = sys.modules['chain'] = None; "
    check += "import network, torch; print(network.load()(torch.zeros(4, 1, 8, 8)).shape)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", check, str(tmp_path / "runs/mine")], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "torch.Size([4, 10])", done.stderr
