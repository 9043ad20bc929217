"""The example package of examples/own_op: an op of its own on top of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

USE = """
import automl_ext, sparse_mix, torch
scores, values = (torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in ((2, 3, 4), (2, 4, 5)))
assert torch.equal(sparse_mix.mix(scores, values), automl_ext.entmax15(scores) @ values)
assert torch.autograd.gradcheck(sparse_mix.mix, (scores, values))
print("used", sparse_mix.__file__)
"""


@pytest.mark.slow
def test_an_op_on_top_of_ours_builds_and_has_gradients(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/own_op", tmp_path / "own_op")
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(build, cwd=tmp_path / "own_op", check=True, capture_output=True, text=True)
    used = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path / "own_op", capture_output=True, text=True)
    assert "used " + str(tmp_path) in used.stdout, used.stderr
