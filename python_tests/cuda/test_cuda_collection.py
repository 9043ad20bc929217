"""Tests with the marker cuda can be collected and run with only torch, numpy and pytest installed."""

from __future__ import annotations

import fresh_python
import pytest
from paths import ROOT

TESTS = ROOT / "python_tests"
# None in sys.modules hides a package from import and from find_spec.
WITHOUT = """
import sys
import pytest
for name in hidden.split():
    sys.modules[name] = None
sys.exit(pytest.main(arguments))
"""
EXTRAS = (
    "hypothesis tyro rich gymnasium sklearn entmax matplotlib PIL tensorboard pandas stable_baselines3 torchrl minatar "
    "ale_py Box2D pygame cv2 tianshou"
)


def pytest_without(hidden: str, *arguments: str, **environment: str) -> tuple[int, str]:
    words = ["-q", "-p", "no:cacheprovider", "-m", "cuda", *arguments]
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    code = f"hidden, arguments = {hidden!r}, {words!r}\n{WITHOUT}"
    status, out, error = fresh_python.run(code, ROOT, **environment)
    return status, out + error


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [EXTRAS, "gymnasium"])
def test_every_file_is_collected_or_skipped(hidden: str) -> None:
    status, out = pytest_without(hidden, "--collect-only", str(TESTS), AUTOML_EXT_TEST_GPU="cpu")
    assert status == 0, out
    for name in ("test_conformance", "test_cuda", "test_cuda_runtime", "test_cuda_large", "test_cuda_tools"):
        assert f"{name}.py::" in out


@pytest.mark.slow
def test_gpu_tests_run_on_the_cpu() -> None:
    """Some of the GPU tests run on the CPU as a rehearsal, so that they do not break unnoticed."""
    files = [str(TESTS / "cuda" / name) for name in ("test_cuda.py", "test_cuda_tools.py")]
    chosen = "values or vmap or gdas or gumbel_mixed_op or empty or autocast or (nan and 33) or (noise and 33)"
    status, out = pytest_without(EXTRAS, *files, "-k", chosen, AUTOML_EXT_TEST_GPU="cpu")
    assert status == 0, out
    assert " passed" in out
    assert "skipped" not in out
