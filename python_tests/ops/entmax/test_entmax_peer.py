"""Run the test files of the ``entmax`` package on ``automl_ext.ops.entmax``."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

import pytest

import automl_ext

pytest.importorskip("entmax")

# Of 127 tests, 27 look at two private functions of the package (they compare a partial sort with a full one). Three
# check the gradient of one loss, whose fourth case is run, with other reductions: half of the time of all.
DESELECTED = [
    "test_topk.py::test_entmax_topk",
    "test_topk.py::test_sparsemax_topk",
    *(
        f"test_losses.py::test_loss[{case}-NormmaxBisectLoss]"
        for case in ("sum-False", "sum-True", "elementwise_mean-False")
    ),
]
PASSED = 97

# Changes of the imports: (pattern, replacement, number of occurrences in all files).
EDITS = [
    (r"from entmax\.(activations|root_finding|losses) import", "from automl_ext.ops.entmax import", 6),
    (r"    _\w+_threshold_and_support,\n", "", 2),
]
# For some seeds, test_budget_grad_multiple_k samples an alpha below 1 for normmax, where the package fails it too.
SEED = """
import pytest
import torch

torch.manual_seed(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)
"""


@pytest.mark.slow
def test_tests_of_the_entmax_package_pass(tmp_path):
    distribution = importlib.metadata.distribution("entmax")
    if distribution.version != "1.3":
        pytest.skip(f"the counts are those of entmax 1.3, not {distribution.version}")
    files = [f for f in distribution.files or [] if re.fullmatch(r"entmax/test_\w+\.py", f.as_posix())]
    sources = {f.name: pathlib.Path(f.locate()).read_text() for f in files}
    for pattern, replacement, times in EDITS:
        edited = {name: re.subn(pattern, replacement, text) for name, text in sources.items()}
        assert sum(count for _, count in edited.values()) == times, pattern
        sources = {name: text for name, (text, _) in edited.items()}
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "conftest.py").write_text(SEED)  # without a seed, a gradient check occasionally hits a kink

    package_root = pathlib.Path(automl_ext.__file__).parents[1]
    path = os.pathsep.join([str(package_root), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += [argument for name in DESELECTED for argument in ("--deselect", name)]
    run = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    summary = run.stdout.strip().splitlines()[-1]
    assert re.match(rf"{PASSED} passed, \d+ deselected", summary), summary
