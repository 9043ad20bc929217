"""Selection of the backend, libraries that are missing or broken, and a torch without an autograd library."""

from __future__ import annotations

import importlib
import pathlib
import re
import shutil
import types

import fresh_python
import pytest
import torch

import automl_ext
from automl_ext import _native

REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps"
native_only = pytest.mark.skipif(not _native.is_loaded(), reason="the native library is not built")

FIRST_USE = """
import json, warnings
with warnings.catch_warnings(record=True) as at_import:
    warnings.simplefilter("always")
    import torch
    at_import.clear()
    import automl_ext as a
    from automl_ext import _native
x = torch.randn(3, 4, requires_grad=True)

def use():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = a.entmax15(x) + a.sparsemax(x) + a.gumbel_softmax(x, seed=1) + a.mixed_op([x, x], torch.ones(2))
        y.sum().backward()
        a.gumbel_argmax(x)
    return [str(w.message) for w in caught]

try:
    with a.backend("native"):
        native_error = None
except ImportError as error:
    native_error = str(error)
facts = {
    "at_import": [str(w.message) for w in at_import],
    "native_error": native_error,
    "build_info": a.build_info(),
    "why_not": _native._why_not,
    "loaded": _native.is_loaded(),
}
"""
EAGER = FIRST_USE + "facts |= {'first': use(), 'second': use()}\nprint(json.dumps(facts))"


@pytest.fixture
def package(tmp_path: pathlib.Path) -> pathlib.Path:
    """Copy the package without the libraries and the build facts; return the parent folder of automl_ext."""
    ignored = shutil.ignore_patterns("*.so", "_build.py", "__pycache__")
    shutil.copytree(fresh_python.PACKAGE, tmp_path / "automl_ext", ignore=ignored)
    return tmp_path


def write_build_facts(package: pathlib.Path, torch_version: str) -> None:
    (package / "automl_ext/_build.py").write_text(
        f"TORCH_VERSION = {torch_version!r}\nCUDA_VERSION = CUDA_ARCHS = None\nCUDA_DECISION = COMPILER = ''\n"
    )


def write_library(package: pathlib.Path, content: bytes) -> None:
    (package / "automl_ext/_kernels.abi3.so").write_bytes(content)


# ---- selection


def grad_fn_name() -> str:
    return automl_ext.entmax15(torch.ones(3, requires_grad=True)).grad_fn.name()


def test_unknown_backend_names_are_refused() -> None:
    with (
        pytest.raises(ValueError, match="backend: expected one of auto, native, reference, got 'fast'"),
        automl_ext.backend("fast"),
    ):
        pass
    code = "import sys\ntry: import automl_ext\nexcept ValueError as error: print(error)\n"
    code += "from automl_ext_cli.entry import main; sys.exit(main(['doctor']))"
    message = "AUTOML_EXT_BACKEND: expected one of auto, native, reference, got 'fast'\n"
    assert fresh_python.run(code, AUTOML_EXT_BACKEND="fast") == (2, message, f"error: {message}")


@native_only
@pytest.mark.parametrize("name", ["native", "reference", ""])
def test_environment_variable_selects_the_backend(name: str) -> None:
    code = "import automl_ext, json, torch; from automl_ext import _native\n" + (
        "y = automl_ext.entmax15(torch.ones(3, requires_grad=True))\n"
        "print(json.dumps([_native.current_backend(), y.grad_fn.name()]))"
    )
    chosen, used = fresh_python.facts(code, AUTOML_EXT_BACKEND=name)
    assert chosen == (name or "auto")
    assert (used == "Entmax15Backward") == (name != "reference")


@native_only
def test_context_nests_and_restores() -> None:
    before = _native.current_backend()
    with automl_ext.backend("reference"):
        assert grad_fn_name() != "Entmax15Backward"
        with automl_ext.backend("native"):
            assert grad_fn_name() == "Entmax15Backward"
            with automl_ext.backend("auto"):
                assert grad_fn_name() == "Entmax15Backward"
            assert _native.current_backend() == "native"
        assert grad_fn_name() != "Entmax15Backward"
    assert _native.current_backend() == before


def test_context_restores_after_an_exception() -> None:
    before = _native.current_backend()
    with pytest.raises(KeyError), automl_ext.backend("reference"):
        raise KeyError
    assert _native.current_backend() == before
    with pytest.raises(ValueError, match="expected one of"), automl_ext.backend("reference"), automl_ext.backend("?"):
        pass
    assert _native.current_backend() == before


@native_only
def test_native_backend_refuses_devices_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_devices", frozenset())  # like a CUDA tensor for a CPU build
    assert grad_fn_name() != "Entmax15Backward"
    with automl_ext.backend("native"), pytest.raises(ImportError, match="without kernels for 'cpu'.*" + REBUILD):
        automl_ext.entmax15(torch.ones(3))


@native_only
def test_a_cpu_build_says_why_it_has_no_kernels_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = "no: torch is a CPU build; install a CUDA build of torch"
    monkeypatch.setattr(_native._build, "CUDA_DECISION", decision)
    monkeypatch.setattr(_native, "_devices", frozenset({"cpu", "meta"}))
    on_gpu = types.SimpleNamespace(device=torch.device("cuda"))  # the only attribute that is read
    expected = f"without kernels for 'cuda' ({decision}). Rebuild: AUTOML_EXT_CUDA=1 {REBUILD}"
    with automl_ext.backend("auto"):
        assert not _native.use_native(on_gpu)
    with automl_ext.backend("native"), pytest.raises(ImportError, match=re.escape(expected)):
        _native.use_native(on_gpu)
    assert expected in _native.why_not_native(torch.device("cuda"))
    assert _native.why_not_native(torch.device("cpu")) is None
    assert "AUTOML_EXT_CUDA" not in _native.why_not_native(torch.device("xpu"))


@native_only
def test_build_info() -> None:
    info = automl_ext.build_info()
    facts = "torch autograd cuda cuda_archs cuda_decision compiler instruction_sets instruction_set"
    assert set(info) == set(facts.split())
    minor = ".".join(torch.__version__.split(".")[:2])
    assert info["autograd"] == f"C++ for torch {minor}"
    assert info["cuda_decision"].startswith("no: " if info["cuda"] is None else "yes: ")
    assert (info["cuda_archs"] is None) == (info["cuda"] is None)
    assert info["compiler"]
    assert info["instruction_sets"].split(", ")[0] == "default"
    assert info["instruction_set"] in info["instruction_sets"].split(", ")


@native_only
def test_parallel_for_uses_two_threads() -> None:
    parallel_threads = _native.functions().automl_ext_parallel_threads
    before = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            assert parallel_threads() == n
    finally:
        torch.set_num_threads(before)


# ---- no usable library


def test_missing_library_warns_once_at_first_use(package: pathlib.Path) -> None:
    facts = fresh_python.facts(EAGER, package)
    assert not facts["loaded"]
    assert facts["build_info"] == {}
    assert facts["at_import"] == facts["second"] == []
    assert len(facts["first"]) == 1
    assert "the compiled library is missing; falling back to PyTorch" in facts["first"][0]
    assert REBUILD in facts["first"][0]
    assert "the compiled library is missing" in facts["native_error"]
    assert REBUILD in facts["native_error"]


@pytest.mark.slow
def test_missing_library_and_compile(package: pathlib.Path) -> None:
    """There is no warning while tracing, which would break the graph, and one at the first eager call."""
    code = FIRST_USE + (
        "def f(x): return a.entmax15(x) + a.sparsemax(x) + a.gumbel_softmax(x, seed=1) + a.mixed_op([x], x[0, :1])\n"
        "compiled = torch.compile(f, fullgraph=True, backend='eager')(x)\n"
        "facts |= {'first': use(), 'equal': torch.allclose(compiled, f(x))}\nprint(json.dumps(facts))"
    )
    facts = fresh_python.facts(code, package)
    assert facts["equal"]
    assert len(facts["first"]) == 1


def test_missing_library_under_native_and_reference(package: pathlib.Path) -> None:
    status, _, err = fresh_python.run("import automl_ext", package, AUTOML_EXT_BACKEND="native")
    assert status == 1
    last = err.strip().splitlines()[-1]
    assert "AUTOML_EXT_BACKEND=native, but the compiled library is missing. Rebuild: " + REBUILD in last
    facts = fresh_python.facts(EAGER, package, AUTOML_EXT_BACKEND="reference")
    assert facts["at_import"] == facts["first"] == []


def check_unusable(facts: dict, *parts: str) -> None:
    """Check for one warning at import that contains the parts, and the same text in the error of the native backend."""
    assert not facts["loaded"]
    assert len(facts["at_import"]) == 1
    assert facts["first"] == facts["second"] == []
    for part in (*parts, REBUILD):
        assert part in facts["at_import"][0]
        assert part in facts["native_error"]


def test_torch_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is compared before the library is loaded, which would fail with an undefined symbol."""
    if not _native.is_loaded():
        pytest.skip("the native library is not built")
    monkeypatch.setattr(_native.ctypes, "PyDLL", None)  # loading fails
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu999")
    expected = "the library needs torch 2.10 or newer but torch 2.9.1+cu999 is running"
    assert _native._load() == (False, expected, True)


def test_broken_library(package: pathlib.Path) -> None:
    write_build_facts(package, torch.__version__)
    write_library(package, b"\x7fELF, but not really")
    check_unusable(fresh_python.facts(EAGER, package), f"fails to load under torch {torch.__version__}")
    status, _, err = fresh_python.run("import automl_ext", package, AUTOML_EXT_BACKEND="native")
    assert status == 1
    assert REBUILD in err.strip().splitlines()[-1]


@native_only
@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_library_that_raises_when_loaded(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(path: str) -> object:
        raise error("the reason")

    monkeypatch.setattr(_native.ctypes, "PyDLL", refuse)
    loaded, why_not, broken = _native._load()
    assert (loaded, broken) == (False, True)
    assert why_not is not None
    assert "fails to load" in why_not
    assert "the reason" in why_not


def test_library_without_build_facts(package: pathlib.Path) -> None:
    write_library(package, b"")
    check_unusable(fresh_python.facts(EAGER, package), "has no build facts")


# ---- the autograd library


@native_only
def test_an_autograd_library_of_another_minor_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = ".".join(torch.__version__.split(".")[:2]) + "0"  # 2.130 is not 2.13
    monkeypatch.setattr(torch, "__version__", f"{newer}.0")
    expected = f"Python, slower for small tensors (no autograd library for torch {newer})"
    assert _native._load_autograd() == (None, expected)


@native_only
def test_a_patch_version_apart_has_the_same_autograd_library(monkeypatch: pytest.MonkeyPatch) -> None:
    minor = ".".join(torch.__version__.split(".")[:2])
    monkeypatch.setattr(torch, "__version__", minor + ".99+other")
    assert _native._load_autograd() == (_native.autograd, f"C++ for torch {minor}")


@native_only
def test_an_autograd_library_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> object:
        raise ImportError("the reason")

    monkeypatch.setattr(importlib, "import_module", refuse)
    module, text = _native._load_autograd()
    assert module is None
    assert "fails to load: the reason" in text
    assert text.startswith("Python, slower")


# ---- imports

BLOCKED = """
import sys
import torch
asked = []

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numpy", "gymnasium", "tyro", "rich", "scipy", "sklearn", "pandas", "matplotlib"):
            asked.append(name)
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

for name in [name for name in sys.modules if name.split(".")[0] == "numpy"]:
    del sys.modules[name]  # imported by torch
sys.meta_path.insert(0, Block())
"""


def test_ops_need_only_torch() -> None:
    code = (
        BLOCKED
        + EAGER.replace("print(json.dumps(facts))", "")
        + (
            "edge = a.GumbelMixedOp([torch.nn.Linear(4, 4), torch.nn.Identity()])\n"
            "edge(x).sum().backward()\n"
            "dynamo = 'torch._dynamo' in sys.modules\n"
            "print(json.dumps([facts['loaded'], facts['first'], [n for n in asked if n != 'numpy'], dynamo]))"
        )
    )
    loaded, warned, asked, dynamo = fresh_python.facts(code)
    assert loaded == _native.is_loaded()
    assert not loaded or warned == []
    assert asked == []
    assert not dynamo  # it would double the import time
