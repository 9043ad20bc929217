"""The source code in an exported module; and the custom space of docs/development/extending-nas.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from paths import ROOT

from automl_ext.nas.export.export import import_lines
from automl_ext.nas.export.source_code import Sources

DOCS = ROOT / "docs/development/extending-nas.md"


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
TWO, THREE = ONE + 1, 3
UNUSED = deque()


def outer(x):
    return inner(x) + Thing(x).size()


def inner(x):
    return math.floor(x) + TWO + THREE if x else outer(x - 1)


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


def test_only_needed_definitions_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module_of(SOURCE, "copied_source", tmp_path, monkeypatch)
    sources = Sources({"copied_source", "automl_ext"})
    sources.add("copied_source", "outer")
    sources.close()
    text = sources.text()
    assert set(sources.definitions) == {"outer", "inner", "Thing", "ONE", "TWO", "THREE"}
    assert sources.imports == {
        "math": "import math",
        "OrderedDict": "from collections import OrderedDict",
    }
    for kept in ("# what follows is two\nTWO", "    # of the thing\n    def size", '"""A thing."""', "width = 3"):
        assert text.count(kept) == 1
    for dropped in ("UNUSED", "gone", "@property", "__repr__", "color"):
        assert dropped not in text
    values: dict[str, object] = {}
    exec("import math\nfrom collections import OrderedDict\n" + text, values)
    assert values["outer"](0.5) == 0 + 2 + 3 + 3  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"cannot copy the import 'import automl_ext\.ops as ops'"):
        (sources.add("copied_source", "needs_a_module"), sources.close())


@pytest.mark.slow
def test_custom_space_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run docs/development/extending-nas.md: define a space, search it, export a network that needs neither."""
    if not DOCS.exists():
        pytest.skip("the package is tested without its documents")
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
