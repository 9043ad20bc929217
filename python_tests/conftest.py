"""Fixtures shared by several test files."""

from __future__ import annotations

import collections
import gc
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpu as gpu_tests
import pytest

import automl_ext
from automl_ext import _native

# The tests need the extra test and what the package itself needs, except those of the ops and of their CUDA kernels.
WITHOUT_EXTRA = {"cuda", "helpers", "ops"}
FOLDERS = {folder.name for folder in Path(__file__).parent.iterdir() if folder.is_dir()}
NEEDED = ("gymnasium", "tyro", "rich", "sklearn", "matplotlib")
collect_ignore = [] if all(map(importlib.util.find_spec, NEEDED)) else sorted(FOLDERS - WITHOUT_EXTRA)


@pytest.fixture(params=["native", "reference"])
def each_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once with the compiled library and once with the PyTorch reference."""
    if request.param == "native" and not _native.is_loaded():
        pytest.skip("the native library is not built")
    with automl_ext.backend(request.param):
        yield request.param


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, standard output and standard error."""
    from automl_ext.cli import main

    def run(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as exit_:  # tyro's
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.hookimpl(trylast=True)  # after -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker of pytest-xdist ends long after the others."""
    if not hasattr(config, "workerinput"):  # one process keeps the order of the command line: tools/mutants.py needs it
        return
    cost: collections.Counter[Path] = collections.Counter()
    for item in items:
        cost[item.path] += 60 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -cost[item.path])


def pytest_collection_finish() -> None:
    """Take what the imports left out of the garbage collector, which would visit those objects again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


# A skip from a single place takes one line of the summary.
def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = gpu_tests.why_no_gpu() if item.get_closest_marker("cuda") else None
    if reason:
        pytest.skip(reason)
    if gpu_tests.REHEARSAL and item.get_closest_marker("real_gpu"):
        pytest.skip("a rehearsal on the CPU")


# Without a GPU, there are no cases for it: to collect and skip them, each worker would take seconds.
ON_GPU = [] if gpu_tests.why_no_gpu() else [pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=["cpu", *ON_GPU])
def device(request: pytest.FixtureRequest) -> str:
    """Run the test on the CPU and, if available, on a GPU."""
    return "cpu" if request.param == "cpu" else gpu_tests.GPU


@pytest.fixture
def drawn_figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The matplotlib figures that the test saves, in order."""
    from matplotlib.figure import Figure

    save, figures = Figure.savefig, []

    def savefig(self: Any, *args: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures
