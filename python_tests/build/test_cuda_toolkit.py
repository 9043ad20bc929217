"""tools/cuda_toolkit.py on fake toolkits: the chosen nvcc, pip packages and architectures."""

from __future__ import annotations

import pathlib
import sys

import cuda_toolkit
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand in for compilers")
PACKAGES = ["nvidia-cuda-nvcc==13.0.*", "nvidia-cuda-crt==13.0.*", "nvidia-nvvm==13.0.*", "nvidia-cuda-cccl==13.0.*"]


def toolkit(home: pathlib.Path, release: str, more: str = "") -> pathlib.Path:
    """Create a folder with an nvcc that reports this release, and a header."""
    (home / "bin").mkdir(parents=True)
    (home / "include").mkdir()
    (home / "include/cuda_runtime.h").touch()
    nvcc = home / "bin/nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.48'\n{more}")
    nvcc.chmod(0o755)
    return home


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Hide all compilers."""
    monkeypatch.setattr(cuda_toolkit, "USUAL_HOME", tmp_path / "usual")
    monkeypatch.setenv("PATH", str(tmp_path / "path/bin"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    return tmp_path


def wheels(machine: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """site-packages/nvidia/cu13 of a fake site-packages, as torch's wheels leave it: no compiler."""
    folder = machine / "site-packages/nvidia/cu13"
    (folder / "include").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(machine / "site-packages"))
    monkeypatch.setitem(sys.modules, "nvidia", None)
    monkeypatch.delitem(sys.modules, "nvidia")
    return folder


def test_no_compiler(machine: pathlib.Path) -> None:
    homes = cuda_toolkit.system_homes()
    assert cuda_toolkit.find("13.0", homes) == (None, None)
    assert cuda_toolkit.missing_packages("13.0", homes) == PACKAGES
    assert cuda_toolkit.missing_packages("12.8", homes) == []  # there is no whole compiler to install
    assert cuda_toolkit.mend("12.8") == "install the CUDA 12.8 toolkit and set CUDA_HOME to its folder"


def test_order_of_homes(machine: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [toolkit(machine / "usual", "13.0")]
    assert cuda_toolkit.find("13.0", cuda_toolkit.system_homes()) == (homes[0], "13.0")
    homes.insert(0, toolkit(machine / "path", "13.1"))
    assert cuda_toolkit.find("13.0", cuda_toolkit.system_homes()) == (homes[0], "13.1")
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        homes.insert(0, toolkit(machine / variable, "13.2"))
        monkeypatch.setenv(variable, str(homes[0]))
        assert cuda_toolkit.find("13.0", cuda_toolkit.system_homes()) == (homes[0], "13.2")
    assert cuda_toolkit.system_homes() == homes
    assert cuda_toolkit.missing_packages("13.0", homes) == []


def test_torchs_major_version_comes_first(machine: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(toolkit(machine / "old", "12.8")))
    assert cuda_toolkit.find("13.0", cuda_toolkit.system_homes()) == (machine / "old", "12.8")
    assert cuda_toolkit.missing_packages("13.0", cuda_toolkit.system_homes()) == PACKAGES
    toolkit(machine / "usual", "13.0")
    assert cuda_toolkit.find("13.0", cuda_toolkit.system_homes()) == (machine / "usual", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(machine / "no such folder"))
    assert cuda_toolkit.find("13.0", cuda_toolkit.system_homes()) == (machine / "usual", "13.0")


def test_compiler_from_pypi(machine: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = wheels(machine, monkeypatch)
    assert folder in cuda_toolkit.wheel_folders("13.0")
    assert folder.with_name("cu12") not in cuda_toolkit.wheel_folders("12.8")
    assert cuda_toolkit.missing_packages("13.0", [*cuda_toolkit.system_homes(), folder]) == PACKAGES
    (folder / "include").rmdir()
    toolkit(folder, "13.0")
    homes = [*cuda_toolkit.system_homes(), folder]
    assert cuda_toolkit.find("13.0", homes) == (folder, "13.0")
    assert cuda_toolkit.missing_packages("13.0", homes) == []


def test_nvcc_on_path_that_only_calls_another(machine: pathlib.Path) -> None:
    real = toolkit(machine / "real", "13.0", f"echo '#$ TOP={machine}/real/bin/..' >&2\n")
    caller = machine / "path/bin/nvcc"
    caller.parent.mkdir(parents=True)
    caller.symlink_to(real / "bin/nvcc")
    assert cuda_toolkit.home_of(str(caller)) == real
    caller.unlink()
    caller.write_text(f'#!/bin/sh\nexec {real}/bin/nvcc "$@"\n')
    caller.chmod(0o755)
    assert cuda_toolkit.home_of(str(caller)) == real
    (real / "include/cuda_runtime.h").unlink()  # headers are somewhere else, as on Debian: the folder torch would take
    assert cuda_toolkit.home_of(str(caller)) == machine / "path"


def test_release_of_nvcc(tmp_path: pathlib.Path) -> None:
    assert cuda_toolkit.nvcc_release(None) is None
    assert cuda_toolkit.nvcc_release(tmp_path) is None
    toolkit(tmp_path / "good", "13.0")
    assert cuda_toolkit.nvcc_release(tmp_path / "good") == "13.0"
    bad = toolkit(tmp_path / "bad", "") / "bin/nvcc"
    assert cuda_toolkit.nvcc_release(tmp_path / "bad") is None
    bad.write_text("not a program")
    assert cuda_toolkit.nvcc_release(tmp_path / "bad") is None


def test_archs_of_nvcc(tmp_path: pathlib.Path) -> None:
    home = toolkit(tmp_path / "cuda", "13.0", "echo compute_75; echo compute_80; echo compute_103; echo compute_121\n")
    assert cuda_toolkit.nvcc_archs(home) == [(7, 5), (8, 0), (10, 3), (12, 1)]


KNOWN = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]


@pytest.mark.parametrize(
    ("asked", "gpus", "known", "expected"),
    [
        (None, [], KNOWN, "8.0;9.0+PTX"),
        ("", [], KNOWN[:4], "8.0+PTX"),
        ("native", [], KNOWN, "8.0;9.0+PTX"),
        ("7.5 8.6+PTX", [(9, 0)], KNOWN, "7.5;8.6+PTX"),
        ("Hopper", [], KNOWN, "Hopper"),
        (None, [(8, 9)], KNOWN, "8.9+PTX"),
        ("native", [(9, 0), (8, 0), (9, 0)], KNOWN, "8.0;9.0+PTX"),
        (None, [(10, 0), (8, 0)], KNOWN, "8.0;10.0+PTX"),  # as numbers; as text 10.0 comes first
        (None, [(12, 1)], KNOWN, "12.0+PTX"),  # newer than anything known: PTX does it
        (None, [(6, 1)], KNOWN, "8.0;9.0+PTX"),  # too old for this nvcc
    ],
)
def test_arch_list(asked: str | None, gpus: list[tuple[int, int]], known: list[tuple[int, int]], expected: str) -> None:
    assert cuda_toolkit.arch_list(asked, gpus, known) == expected
