"""A pytest plugin: a worker of pytest-xdist whose GPU context an error has broken ends, and xdist starts another.

After such an error, all later calls in the process fail. `pytest -p fresh_worker` loads the plugin.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
import torch


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "PYTEST_XDIST_WORKER" in os.environ and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            os.write(2, f"\n{item.nodeid}\n{report.longreprtext}\nThe worker ends: {error}\n".encode())
            os._exit(1)
    return report
