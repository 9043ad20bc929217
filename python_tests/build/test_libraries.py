"""The compiled libraries run where torch's own wheels do: with glibc 2.28 and the C++ library of GCC 8."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import automl_ext

NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}  # of manylinux_2_28


def too_new(symbols: str) -> list[str]:
    """Return the symbols, in the output of ``objdump -T``, that need a newer version of a library."""
    found = re.findall(r"\*UND\*.*\((GLIBC|GLIBCXX|CXXABI)_([\d.]+)\) +(\S+)", symbols)
    return [name for kind, version, name in found if tuple(map(int, version.split("."))) > NEWEST[kind]]


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("objdump") is None, reason="needs Linux and objdump")
def test_libraries_need_no_newer_system() -> None:
    libraries = sorted(Path(automl_ext.__file__).parent.glob("*.abi3.so"))
    assert len(libraries) >= 2
    for library in libraries:
        symbols = subprocess.run(["objdump", "-T", library], capture_output=True, text=True, check=True).stdout
        assert "(GLIBC_2" in symbols
        assert too_new(symbols) == [], library.name
        # What torch 2.10 lacks is looked up when it is needed.
        assert library.name != "_kernels.abi3.so" or "torch_exception_get_what" not in symbols


def test_newer_symbols_are_found() -> None:
    line = "0000000000000000      DF *UND*\t0000000000000000 ({}) {}\n"
    text = (
        line.format("GLIBC_2.34", "dlsym") + line.format("GLIBC_2.2.5", "free") + line.format("GLIBCXX_3.4.29", "str")
    )
    assert too_new(text) == ["dlsym", "str"]
