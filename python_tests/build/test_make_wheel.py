"""tools/make_wheel.py and sbom.py, and setup.py with the headers of another torch, without a build."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import make_wheel
import pytest
import sbom
from test_build import setup as setup

VERSION = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {}\n#define TORCH_VERSION_PATCH 1\n"


def fake_torch(path: Path, minor: int) -> Path:
    """A wheel of torch: headers, and what is not to be unpacked."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("torch/include/torch/headeronly/version.h", VERSION.format(minor))
        archive.writestr("torch/lib/libtorch_cpu.so", "large")
    return path


def test_headers_are_unpacked_once(setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = []

    def download(*arguments: str) -> None:
        downloads.append(arguments[-1])
        fake_torch(Path(arguments[arguments.index("--dest") + 1]) / "torch.whl", 12)

    monkeypatch.setattr(make_wheel, "ROOT", tmp_path)
    monkeypatch.setattr(make_wheel, "python_run", download)
    folder = make_wheel.headers("2.12")
    assert make_wheel.headers("2.12") == folder
    assert downloads == ["torch==2.12.*"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["version.h"]
    assert setup.minor_of_headers(folder) == (2, 12)


def test_the_autograd_library_of_other_headers(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel.unpack_headers(fake_torch(tmp_path / "torch.whl", 99), tmp_path / "2.99")
    monkeypatch.setattr(setup, "other_headers", str(tmp_path / "2.99"), raising=False)
    (library,) = setup.extensions()
    assert library.name == "automl_ext._autograd_2_99"
    assert library.include_dirs == [str(tmp_path / "2.99"), str(tmp_path / "2.99/torch/csrc/api/include")]
    monkeypatch.setattr(setup, "other_headers", None)
    monkeypatch.setattr(setup, "use_cuda", False, raising=False)
    kernels, own = setup.extensions()
    assert kernels.name == "automl_ext._kernels"
    assert own.name == "automl_ext._autograd_{}_{}".format(*setup.torch_minor(setup.torch.__version__))
    assert library.include_dirs[0] not in own.include_dirs


def report(**facts: Any) -> dict[str, Any]:
    return {"extensions": [], "bundled_libs": [{"path": "_kernels.abi3.so", "torch": facts}]}


def test_the_oldest_torch_of_an_audit() -> None:
    assert make_wheel.oldest_torch(report(stable=True, min_torch_version="2.13.0")) == (2, 13)
    assert make_wheel.oldest_torch(report(stable=False, min_torch_version="2.10.0")) is None


def test_the_build_number_of_a_wheel_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_wheel.subprocess, "run", lambda *command, **options: SimpleNamespace(stdout="13\n"))
    assert make_wheel.cuda_label() == "1cu13"
    monkeypatch.setattr(make_wheel.subprocess, "run", lambda *command, **options: SimpleNamespace(stdout="\n"))
    with pytest.raises(SystemExit, match="--cuda needs a CUDA build of torch"):
        make_wheel.cuda_label()


def test_the_date_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_wheel, "ROOT", tmp_path)  # not in git
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert make_wheel.date() is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert make_wheel.date() == "1700000000"


def test_the_list_of_what_a_wheel_requires(tmp_path: Path) -> None:
    about = ["Name: automl_ext", "Version: 1.5", "License-Expression: Apache-2.0", "Requires-Dist: torch>=2.10"]
    about += ["Requires-Dist: rich", 'Requires-Dist: scipy>=1; extra == "tune"']
    wheel = tmp_path / "automl_ext-1.5.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("automl_ext-1.5.dist-info/METADATA", "\n".join(about) + "\n\ntext\n")
    bill = sbom.bill(wheel)
    assert {one["name"]: one["description"] for one in bill["components"]} == {
        "torch": "required version: >=2.10",
        "rich": "required version: any",
    }
    (needs,) = bill["dependencies"]
    assert needs == {"ref": "pkg:pypi/automl-ext@1.5", "dependsOn": ["pkg:pypi/torch", "pkg:pypi/rich"]}
    assert bill["metadata"]["component"]["version"] == "1.5"
