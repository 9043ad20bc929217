"""Each file of csrc without torch headers includes what it uses, so that an editor (clangd) opens it without errors.

CUDA kernels are compiled as in their tests on the CPU.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

COMPILER = [os.environ.get("CXX", "c++"), "-std=c++17", "-Wno-unknown-pragmas", "-x"]
TORCH = re.compile(r"#include <(ATen|c10|torch|pybind11)")
# Files, and the header that is compiled beforehand, which takes most of the time.
KINDS = {
    "**/*.inc": "csrc/instruction_sets/kernel_headers.h",
    "**/*.cuh": "cpp_tests/cuda_on_cpu/cuda_on_cpu.h",
    "*/*.h": None,
}


def needs_torch(path: Path) -> bool:
    text = path.read_text()
    includes = re.findall(r'^#include "([^"]+)"', text, re.MULTILINE)
    return bool(TORCH.search(text)) or any(needs_torch(path.parent / name) for name in includes)


def errors(path: Path, *include: str) -> str:
    done = subprocess.run([*COMPILER, "c++", "-fsyntax-only", *include, path], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("pattern", KINDS)
@pytest.mark.slow
def test_each_file_includes_what_it_uses(pattern: str, tmp_path: Path) -> None:
    include = []
    if KINDS[pattern]:
        header = tmp_path / "all.h"
        header.write_text(f'#include "{ROOT / KINDS[pattern]}"\n')
        subprocess.run([*COMPILER, "c++-header", header, "-o", f"{header}.gch"], check=True)
        include = ["-include", str(header)]
    files = [path for path in sorted((ROOT / "csrc").glob(pattern)) if not needs_torch(path)]
    assert files
    assert [found for path in files if (found := errors(path, *include))] == []


def test_a_missing_include_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "broken.inc"
    text = (ROOT / "csrc/mlp/gru.inc").read_text()
    broken.write_text(re.sub(r'#include "[^"]*"\n', "", text))
    assert "SIMD_NAMESPACE" in errors(broken)
