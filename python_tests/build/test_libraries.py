"""The compiled libraries run where torch's own wheels do, and the kernels keep to their namespaces.

That is with glibc 2.28 and the C++ library of GCC 8. A symbol that is compiled for AVX and seen by others could replace
the portable one at link time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

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


def outside(symbols: str, unit: str) -> list[str]:
    """Return the symbols, in the output of ``nm -C``, that other units see and that are not in the unit's namespace."""
    family, _, instruction_set = unit.rpartition("_")
    seen = re.findall(r"^[0-9a-f]+ [A-Zuvw] (.+)$", symbols, re.MULTILINE)
    # DW.ref.…: the address of the C++ library's function for exceptions, data without instructions
    own = (f"automl_ext::simd_{instruction_set}_{family}::", "DW.ref.__gxx_personality_v0")
    return [name for name in seen if not name.startswith(own)]


UNITS = sorted((ROOT / "build").glob(f"temp.*-{sys.implementation.cache_tag}/_kernels/build/units/*.o"))


@pytest.mark.skipif(not UNITS or shutil.which("nm") is None, reason="needs the object files of the build and nm")
def test_units_define_only_symbols_of_their_own_namespace() -> None:
    families = set(
        re.findall(r"^#include FAMILY_FILE\((\w+)\)", (ROOT / "csrc/families.inc").read_text(), re.MULTILINE)
    )
    names = {f"{family}_{instruction_set}" for family in families for instruction_set in ("default", "avx2", "avx512")}
    assert names <= {path.stem for path in UNITS}
    for path in UNITS:
        if path.stem in names:  # not of a family that is gone
            symbols = subprocess.run(["nm", "-C", "--defined-only", path], capture_output=True, text=True, check=True)
            assert outside(symbols.stdout, path.stem) == [], path.stem


def test_symbols_outside_are_found() -> None:
    text = (
        "0000 W std::vector<float>::size() const\n0000 t local\n0010 D automl_ext::simd_avx2_mixed_op::table\n"
        "0020 W automl_ext::simd_avx2_entmax::Sum<float>::value()\n0030 V automl_ext::limit\n"
        "0000 V DW.ref.__gxx_personality_v0\n"
    )
    assert outside(text, "mixed_op_avx2") == [
        "std::vector<float>::size() const",
        "automl_ext::simd_avx2_entmax::Sum<float>::value()",
        "automl_ext::limit",
    ]
