"""Fixtures that more than one test file uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import automl_ext
from automl_ext import _native


@pytest.fixture(params=["native", "reference"])
def each_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once on the compiled library and once on the PyTorch reference."""
    if request.param == "native" and not _native.is_loaded():
        pytest.skip("the native library is not built")
    with automl_ext.backend(request.param):
        yield request.param
