"""Tests with the marker cuda can be collected and run with only torch, numpy and pytest installed."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from paths import ROOT

TESTS = ROOT / "python_tests"
# None in sys.modules hides a package from import and from find_spec.
WITHOUT = """
import sys
import pytest
for name in (
    "hypothesis", "tyro", "rich", "gymnasium", "sklearn", "entmax", "matplotlib", "PIL", "tensorboard", "pandas",
    "stable_baselines3", "torchrl", "minatar", "ale_py", "Box2D", "pygame", "cv2", "tianshou",
):
    sys.modules[name] = None
sys.exit(pytest.main(sys.argv[1:]))
"""


def pytest_without_extras(*arguments: str, **environment: str) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT, "-q", "-p", "no:cacheprovider", "-m", "cuda", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""} | environment,
        capture_output=True,
        text=True,
    )
    return process.returncode, process.stdout + process.stderr


@pytest.mark.slow
def test_every_file_is_collected_or_skipped() -> None:
    status, out = pytest_without_extras("--collect-only", str(TESTS), AUTOML_EXT_TEST_GPU="cpu")
    assert status == 0, out
    for name in ("test_conformance", "test_cuda", "test_cuda_runtime", "test_cuda_large", "test_cuda_tools"):
        assert f"{name}.py::" in out


@pytest.mark.slow
def test_gpu_tests_run_on_the_cpu() -> None:
    """Some of the GPU tests run on the CPU as a rehearsal, so that they do not break unnoticed."""
    files = [str(TESTS / "cuda" / name) for name in ("test_cuda.py", "test_cuda_tools.py")]
    chosen = "values or vmap or gdas or gumbel_mixed_op or empty or autocast or (nan and 33) or (noise and 33)"
    status, out = pytest_without_extras(*files, "-k", chosen, AUTOML_EXT_TEST_GPU="cpu")
    assert status == 0, out
    assert " passed" in out
    assert "skipped" not in out


@pytest.mark.slow
def test_parts_of_cuda_test_run_on_the_cpu(tmp_path: pathlib.Path) -> None:
    """`make cuda-test` runs these parts on a GPU."""
    for part in (["once"], ["times", str(tmp_path)]):
        command = [sys.executable, str(ROOT / "tools/cuda_day.py"), *part]
        environment = os.environ | {"AUTOML_EXT_TEST_GPU": "cpu", "PYTHONPATH": str(ROOT)}
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    times = json.loads((tmp_path / "times.json").read_text())["times"]
    assert all(row["microseconds"] > 0 for row in times.values())
    assert "entmax15 (64, 32000)" in times


def test_script_of_cuda_test_is_valid() -> None:
    subprocess.run(["sh", "-n", str(ROOT / "tools/cuda_test.sh")], check=True)
