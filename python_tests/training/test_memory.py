"""A training process keeps freed memory; data may take half of what the machine or container has."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from fresh_python import run

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import largest_data
from automl_ext.training.machine import memory

FAULTS = """
import resource
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    tensors = [torch.ones(n) for n in [1_000_000] * 10 + [10_000_000]]  # 80 MB: 19,500 pages
    del tensors

def of_a_step():
    for _ in range(3):
        step()
    before = faults()
    for _ in range(5):
        step()
    return (faults() - before) // 5
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_run_keeps_what_it_frees() -> None:
    status, out, err = run(
        FAULTS + "import dataclasses, tempfile\n"
        "from automl_ext.training.run import Run\n"
        "config = dataclasses.make_dataclass('Config', [('x', int, 1)])()\n"
        "before = of_a_step()\n"
        "with Run.open(tempfile.mkdtemp(), config, algorithm='none'):\n"
        "    print(before, of_a_step())\n"
    )
    assert status == 0, err
    before, after = map(int, out.split())
    assert 10 * after < before


def test_data_may_take_half_of_the_memory_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{1 << 30}\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(limit),))
    assert largest_data() == 1 << 29


def test_a_number_that_no_float_holds_is_too_large() -> None:
    with pytest.raises(UserError, match=r"^hidden: needs more than 1,000,000,000 GB of memory, this machine has .*"):
        memory.check_memory("hidden", 10**400)
