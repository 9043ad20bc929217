"""The benchmarks run, and notice a wrong result."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

import automl_ext

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
TINY: dict[str, list[tuple[int, ...]]] = {
    "rows": [(70, 8), (3, 300)],
    "mixed": [(4, 2, 3, 5)],
    "returns": [(6, 70)],
    "atoms": [(20, 11)],
}
CPU = torch.device("cpu")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/ops_cuda.py. (A file called cuda.py beside a script would hide NVIDIA's package of that name.)"""
    if not BENCHMARKS.exists():
        pytest.skip("the package is tested without its sources")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ops_cuda

    monkeypatch.setattr(ops_cuda, "MOST_SETS", 3)
    monkeypatch.setattr(ops_cuda, "TURN", 1e-5)
    return ops_cuda


def rows_of(bench: ModuleType, todo: list[Any]) -> list[dict[str, Any]]:
    return list(bench.benchmark(todo, CPU, seconds=1e-3, copy_bytes=2**16))


def test_every_row_on_the_cpu(
    bench: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "SHAPES", TINY)
    monkeypatch.setattr(bench, "COPY_BYTES", 2**16)
    file = tmp_path / "rows.json"
    status = bench.main(["--device", "cpu", "--seconds", "0.001", "--json", str(file)])
    shown = capsys.readouterr().out
    assert status == 0, shown
    rows = json.loads(file.read_text())["rows"]
    ops = {"entmax15", "sparsemax", "gumbel_softmax", "gumbel_softmax hard", "gumbel_entmax15", "gumbel_argmax"}
    ops |= {"mixed_op", "cell_aggregate", "gae", "lambda_returns", "discounted_returns", "n_step_returns"}
    ops |= {"vtrace", "retrace", "categorical_projection"}
    assert {row["op"] for row in rows} == ops
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    assert {row["pass"] for row in rows} == {"forward", "forward + backward"}
    for row in rows:
        assert row["correct"], row
        assert min(row[name] for name in ("ours_us", "eager_us", "ratio", "gb_per_s", "percent_of_copy")) > 0
        assert f"{row['op']} " in shown
    assert "WRONG" not in shown


def test_bytes_that_must_move(bench: ModuleType) -> None:
    todo = {case.op: case for case in bench.cases("cpu", TINY, [torch.float32]) if case.shape != (3, 300)}
    n = 4 * 70 * 8
    rows = rows_of(bench, [todo["entmax15"]])
    assert [row["bytes"] for row in rows] == [2 * n, 5 * n]  # x, p; then also the gradient, p again, and dx
    n = 4 * 6 * 70
    flags = 2 * 6 * 70
    rows = rows_of(bench, [todo["gae"]])
    assert [row["bytes"] for row in rows] == [5 * n + flags, 10 * n + 2 * flags]


@pytest.mark.parametrize("op", ["sparsemax", "gumbel_argmax", "mixed_op", "gae", "n_step_returns"])
def test_a_wrong_result_is_noticed(bench: ModuleType, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong in one row in the forward pass, and wrong in the gradient alone."""
    case = next(c for c in bench.cases("cpu", TINY, [torch.float32]) if c.op == op)
    exact = case.ours
    monkeypatch.setattr(bench, "by_reference", lambda _: exact)

    def spoil(y: torch.Tensor) -> torch.Tensor:
        wrong = y.clone()
        wrong.view(-1)[-1] += 1
        return wrong

    def wrong_value(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *others, last = bench.as_list(exact(*tensors))
        return (*others, spoil(last))

    def wrong_gradient(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = bench.as_list(exact(*tensors))
        return tuple(y.detach() + 1.01 * (y - y.detach()) if y.requires_grad else y for y in outputs)

    wrong = dataclasses.replace(case, ours=wrong_value, from_the_front=False)
    assert not rows_of(bench, [wrong])[0]["correct"]
    if case.trained:
        correct = [row["correct"] for row in rows_of(bench, [dataclasses.replace(case, ours=wrong_gradient)])]
        assert correct == [True, False]
    assert all(row["correct"] for row in rows_of(bench, [case]))


def test_as_a_script(tmp_path: pathlib.Path) -> None:
    """Its folder comes first on the path then: none of its files may hide a package."""
    script = BENCHMARKS / "ops_cuda.py"
    if not script.exists():
        pytest.skip("the package is tested without its sources")
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(automl_ext.__file__).parent.parent)}
    process = subprocess.run(
        [sys.executable, str(script), "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert "--json" in process.stdout


def test_no_gpu_is_one_line(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main([]) == 2
    assert capsys.readouterr().err == "error: no GPU is found; --device cpu measures the CPU\n"
