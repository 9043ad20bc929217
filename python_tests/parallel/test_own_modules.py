"""The user's modules reach a process that cannot import them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from automl_ext.parallel import own_modules
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import import_module

UNPACK = """
import pickle, sys
from collections.abc import Iterator
from pathlib import Path
from automl_ext.parallel.own_modules import install
install(pickle.loads(Path(sys.argv[1]).read_bytes()))
import own_package.part, own_single
assert own_single.VALUE == own_package.part.VALUE == 7
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user: a module, its package, a library, and data that nobody imports."""
    (tmp_path / "own_single.py").write_text("from own_package import VALUE\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package/__init__.py").write_text("VALUE = 7\n")
    (tmp_path / "own_package/part.py").write_text("from own_package import VALUE\n")
    (tmp_path / "own_unused.py").write_text("raise RuntimeError\n")
    (tmp_path / "data.bin").write_bytes(b"0" * 1000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import_module("own_single", "--space")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_") and name != "own_modules"]:
        del sys.modules[name]


def test_what_a_library_generates_is_not_sent(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile loads the code that it generates as modules of torch, from a temporary folder."""
    generated = ModuleType("torch._inductor.generated")
    generated.__file__ = str(modules / "own_single.py")
    monkeypatch.setitem(sys.modules, generated.__name__, generated)
    assert [name for name in own_modules.own_modules() if name.startswith("torch")] == []


@pytest.mark.slow
def test_what_is_imported_is_sent(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    files = own_modules.own_modules()
    assert {"own_single.py", "own_package/__init__.py", "own_package/part.py"} <= {*files}
    assert not {"own_unused.py", "data.bin"} & {*files}
    assert [name for name in files if name.startswith(("automl_ext", "torch/", "pytest"))] == []
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "files").write_bytes(pickle.dumps(files))
    subprocess.run([sys.executable, "-c", UNPACK, folder / "files"], cwd=folder, check=True, timeout=120)


def test_too_much_is_an_error(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_modules, "LARGEST", 10)
    with pytest.raises(UserError, match=r"--cluster: your modules have .* to send"):
        own_modules.own_modules()
