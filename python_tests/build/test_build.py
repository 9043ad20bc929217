"""setup.py: the CUDA decision and one-line errors, without a build."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import build_backend
import pytest
from paths import ROOT

SETUP = ROOT / "setup.py"


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("automl_ext_setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NO_SOURCES = "this version has no CUDA kernels"
CPU_TORCH = "torch is a CPU build; install a CUDA build of torch"
MEND = (
    "install the CUDA 13.0 toolkit and set CUDA_HOME to its folder, or run: pip install "
    '"nvidia-cuda-nvcc==13.0.*" "nvidia-cuda-crt==13.0.*" "nvidia-nvvm==13.0.*" "nvidia-cuda-cccl==13.0.*"'
)
NO_NVCC = f"torch has CUDA 13.0 and no nvcc was found; {MEND}"
MAJORS = f"nvcc is 12.8 and torch has CUDA 13.0; {MEND}"
NO_NVCC_12 = "torch has CUDA 12.8 and no nvcc was found; install the CUDA 12.8 toolkit and set CUDA_HOME to its folder"


@pytest.mark.parametrize(
    ("nvcc", "torch_cuda", "has_sources", "missing"),
    [
        ("13.0", "13.0", False, NO_SOURCES),
        (None, None, False, NO_SOURCES),
        ("13.0", None, True, CPU_TORCH),
        (None, None, True, CPU_TORCH),
        (None, "13.0", True, NO_NVCC),
        (None, "12.8", True, NO_NVCC_12),
        ("12.8", "13.0", True, MAJORS),
        ("1.3", "13.0", True, MAJORS.replace("12.8", "1.3")),
    ],
)
def test_no_cuda(setup: ModuleType, nvcc: str | None, torch_cuda: str | None, has_sources: bool, missing: str) -> None:
    assert setup.decide_cuda("auto", nvcc, torch_cuda, has_sources) == (False, missing)
    with pytest.raises(SystemExit) as stop:
        setup.decide_cuda("1", nvcc, torch_cuda, has_sources)
    assert stop.value.code == f"automl_ext: AUTOML_EXT_CUDA=1, but {missing}"
    assert setup.decide_cuda("0", nvcc, torch_cuda, has_sources) == (False, "AUTOML_EXT_CUDA=0")


@pytest.mark.parametrize("asked", ["auto", "1"])
@pytest.mark.parametrize(("nvcc", "torch_cuda"), [("13.0", "13.0"), ("13.1", "13.0"), ("12.4", "12.8")])
def test_cuda_where_majors_agree(setup: ModuleType, asked: str, nvcc: str, torch_cuda: str) -> None:
    assert setup.decide_cuda(asked, nvcc, torch_cuda, True) == (
        True,
        f"nvcc {nvcc} and torch's CUDA {torch_cuda} agree",
    )


def test_zero_wins(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert setup.decide_cuda("0", "13.0", "13.0", True) == (False, "AUTOML_EXT_CUDA=0")
    monkeypatch.setenv("AUTOML_EXT_NO_CUDA_WHY", "make found no GPU")
    assert setup.decide_cuda("0", "13.0", "13.0", True) == (False, "make found no GPU")
    assert setup.decide_cuda("1", "13.0", "13.0", True)[0]


@pytest.mark.parametrize("asked", ["yes", "", "2", "Auto"])
def test_bad_value(setup: ModuleType, asked: str) -> None:
    with pytest.raises(SystemExit) as stop:
        setup.decide_cuda(asked, "13.0", "13.0", True)
    assert stop.value.code == f"automl_ext: AUTOML_EXT_CUDA: expected auto, 0 or 1, got {asked!r}"


def test_a_compiled_file_is_one_short_line(setup: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    """The lines of ninja have all flags; lines of compilers, such as warnings and ptxas' report, stay."""
    command = f"c++ -MMD -MF a.o.d {'-I/include ' * 50}-c {ROOT}/csrc/entmax/entmax_cpu.cpp -o a.o -O3"
    others = "a.cpp:1: warning: x\nptxas info    : Used 8 registers\nFAILED: a.o\n"
    with setup.short_lines():
        print("from Python")
        subprocess.run(["printf", "%s", f"[1/17] {command}\n{others}{command}\n"], check=True)
    print("after")
    assert capfd.readouterr().out == f"from Python\n[1/17] csrc/entmax/entmax_cpu.cpp\n{others}{command}\nafter\n"


def executable(path: pathlib.Path, prints: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand in for compilers")
def test_compiler_version(setup: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "c++", "c++ 12.2\nmore")
    executable(tmp_path / "g++", "g++ 12.2")
    executable(tmp_path / "clang++", "clang 17")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert setup.compiler_version() == "c++ 12.2"
    monkeypatch.setenv("CXX", "clang++ -O2")
    assert setup.compiler_version() == "clang 17"


@pytest.mark.parametrize(("cxx", "named"), [(None, "c++"), ("icpx -fast", "icpx")])
def test_no_compiler(
    setup: ModuleType, cxx: str | None, named: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if cxx:
        monkeypatch.setenv("CXX", cxx)
        executable(tmp_path / "g++", "g++ 12.2")  # torch would call CXX all the same
    with pytest.raises(SystemExit) as stop:
        setup.compiler_version()
    assert stop.value.code == f"automl_ext: no C++ compiler ({named}) found: install one or set CXX; {setup.INSTALL}"


def test_jobs_are_limited_by_memory(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**20}[name])
    monkeypatch.setattr(setup.os, "cpu_count", lambda: 64)
    monkeypatch.delenv("MAX_JOBS", raising=False)
    setup.limit_jobs()
    assert setup.os.environ["MAX_JOBS"] == "2"  # 4 GB, 2 GB a job
    monkeypatch.setenv("MAX_JOBS", "7")
    setup.limit_jobs()
    assert setup.os.environ["MAX_JOBS"] == "7"


@pytest.mark.parametrize(("version", "minor"), [("2.13.0+cpu", (2, 13)), ("2.9.1", (2, 9)), ("2.10.0a0+git1", (2, 10))])
def test_minor_of_a_version(setup: ModuleType, version: str, minor: tuple[int, int]) -> None:
    assert setup.torch_minor(version) == minor


def test_sources_of_each_library(setup: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = ["csrc/common/c.cpp", "csrc/cpu.cpp"]
    cuda = ["csrc/a/a_cuda.cpp", "csrc/a/a_cuda.cu"]
    included = ["csrc/a/a_cpu.cpp", "csrc/a/a_autograd.cpp", "csrc/autograd_module.cpp", "csrc/a/a_kernels.cuh"]
    for name in [*kernels, *cuda, "csrc/autograd.cpp", *included, "csrc/instruction_sets/unit.cpp.in"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "csrc/families.inc").write_text("#include FAMILY_FILE(a)\n#include FAMILY_FILE(b_c)\n")
    units = [f"build/units/{family}_{name}.cpp" for family in ("a", "b_c") for name in ("default", "avx2", "avx512")]
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    assert setup.kernel_sources(False) == units + kernels
    assert setup.kernel_sources(True) == units + sorted(kernels + cuda)
    assert setup.autograd_sources() == ["csrc/autograd.cpp"]


def test_an_unchanged_unit_keeps_its_date(
    setup: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    template = tmp_path / "csrc/instruction_sets/unit.cpp.in"
    template.parent.mkdir(parents=True)
    template.write_text("@csrc@ @family@ @set@")
    (tmp_path / "csrc/families.inc").write_text("#include FAMILY_FILE(a)\n")
    unit = tmp_path / setup.kernel_units()[1]
    assert unit.read_text() == f"{tmp_path / 'csrc'} a avx2"
    os.utime(unit, (1, 1))
    setup.kernel_units()
    assert unit.stat().st_mtime == 1
    template.write_text("@set@")
    setup.kernel_units()
    assert unit.read_text() == "avx2"


@pytest.mark.parametrize(("whole", "parts"), [("autograd", ("*_autograd", "*_composite")), ("cpu", ("*_cpu",))])
def test_every_part_is_compiled(whole: str, parts: tuple[str, ...]) -> None:
    folder = SETUP.parent / "csrc"
    families = re.findall(r"^#include FAMILY_FILE\((\w+)\)$", (folder / "families.inc").read_text(), re.MULTILINE)
    named = re.findall(r'^#include "(\w+/\w+\.cpp)"', (folder / f"{whole}.cpp").read_text(), re.MULTILINE)
    compiled = [f"{family}/{family}_{whole}.cpp" for family in families] + named
    files = [str(path.relative_to(folder)) for part in parts for path in folder.glob(f"*/{part}.cpp")]
    assert len(files) >= 9
    assert sorted(compiled) == sorted(files)


def test_the_cuda_runtime_is_linked_statically(setup: ModuleType, tmp_path: pathlib.Path) -> None:
    def extension() -> SimpleNamespace:
        return SimpleNamespace(include_dirs=["toolkit"], libraries=["c10", "cudart"], extra_link_args=[])

    home, wheel = tmp_path / "cuda", tmp_path / "cu13"
    with pytest.raises(SystemExit, match=r"libcudart_static\.a is in none of .*cuda/lib64, .*cuda/lib, .*cu13/lib64"):
        setup.use_toolkit(extension(), home, [wheel])
    for path in (wheel / "lib/libcudart_static.a", home / "lib64/libcudart_static.a"):  # the toolkit's own comes first
        path.parent.mkdir(parents=True)
        path.touch()
        linked = extension()
        setup.use_toolkit(linked, home, [wheel])
        assert linked.extra_link_args[0] == str(path)
        assert linked.libraries == ["c10"]
        assert linked.include_dirs == ["toolkit", str(wheel / "include")]


def test_an_isolated_build_downloads_torch_where_it_is_missing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_backend, "PACKAGES", str(tmp_path))
    (tmp_path / "torchrl-0.14.dist-info").mkdir()
    (tmp_path / "torchrl-0.14.dist-info/METADATA").write_text("Name: torchrl\n")
    assert build_backend.get_requires_for_build_wheel() == ["torch>=2.10"]
    (tmp_path / "torch-2.11.0.dist-info").mkdir()
    (tmp_path / "torch-2.11.0.dist-info/METADATA").write_text("Name: torch\n")
    assert build_backend.get_requires_for_build_wheel() == build_backend.get_requires_for_build_editable({}) == []


def test_cuda_files_have_objects_of_their_own(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """With setuptools' names, a_cuda.cpp and a_cuda.cu would write the same object file."""
    builder = setup.Build(setup.setuptools.Distribution())
    builder.compiler = SimpleNamespace(
        object_filenames=lambda names, output_dir="": [f"{n.split('.')[0]}.o" for n in names]
    )
    monkeypatch.setattr(setup.BuildExtension, "build_extensions", lambda self: None)
    builder.build_extensions()
    assert builder.compiler.object_filenames(["a_cuda.cpp", "a_cuda.cu"]) == ["a_cuda.o", "a_cuda.cu.o"]


def run_setup(code: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport runpy\nrunpy.run_path({str(SETUP)!r}, run_name='__main__')"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8", "PATH": ""},
        cwd=SETUP.parent,
        timeout=120,
        check=False,
    )
    assert process.returncode == 1
    assert process.stdout == ""
    return process.stderr


@pytest.mark.slow
def test_without_torch_and_with_an_old_one() -> None:
    assert run_setup("import sys; sys.modules['torch'] = None") == (
        "automl_ext: building needs torch: run `pip install torch ninja`, then `pip install --no-build-isolation .`\n"
    )
    assert run_setup("import torch; torch.__version__ = '2.9.1'") == (
        "automl_ext: torch ≥ 2.10 is needed, got 2.9.1: pip install -U torch\n"
    )
