"""`automl-ext bench`: missed targets, the README's table, and the command."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh_python import run
from paths import ROOT

from automl_ext.bench import command, speed_targets, timing
from automl_ext.bench.cases.case import FORWARD, TRAINING
from automl_ext.bench.cases.table import CUDA_SHAPES, cases
from automl_ext.bench.measure import compared
from automl_ext.bench.reports import terminal as report
from automl_ext.bench.reports.readme import BEGIN, END, markdown
from automl_ext.bench.timing import summary
from automl_ext.training.errors import UserError

SHORT = ["--quick", "--seconds", "0.001"]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TURN", 1e-5)


def bench(*args: object) -> int:
    from automl_ext_cli.options import parse_options

    return command.bench(parse_options(command.BenchCommand, "bench", [*SHORT, *(str(arg) for arg in args)]))


# ---- targets


EAGER = speed_targets.Target("gumbel_softmax", (1024, 1024), FORWARD, "eager", 15)


def planted(target: speed_targets.Target, value: float) -> dict[str, Any]:
    """Return a row in which our op takes 1 µs, a copy 0, and the target's measurement has this value."""
    seconds = {"ours": 1e-6, "copy": 1e-12, "softmax": 1e-6, "eager": 1e-6}
    if target.against == "µs":
        seconds["ours"] = value * 1e-6
    elif target.against == "softmax":
        seconds["softmax"] = 1e-6 / value
    else:
        seconds[target.against] = value * 1e-6
    row: dict[str, Any] = {
        "op": target.op,
        "shape": list(target.shape),
        "dtype": "float32",
        "pass": target.pass_,
        "bytes": 8,
        "copied_bytes": 8,
        "seconds": {name: summary([t]) for name, t in seconds.items()},
        "wrong": [],
        "errors": {},
        "skipped": {},
        "failed": {},
    }
    return row | compared(row)


FACTS = {
    "date": "2026-01-02",
    "device": "A CPU",
    "build_info": {"instruction_set": "avx2"},
    "threads": 1,
    "load": 0.1,
    "versions": {"torch": "9"},
    "seconds_per_row": 0.5,
}


def result_with(rows: list[dict[str, Any]], scaling: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    well = {"op": "gae", "shape": [1024, 1024], "pass": FORWARD, "float64": 2.5, "bfloat16": 1.0}
    well |= {"two_threads": 1.7, "memory_allows": 2.0}
    return {
        "device_type": "cpu",
        "build_info": FACTS["build_info"],
        "rows": rows,
        "scaling": [well] if scaling is None else scaling,
        "skipped": {},
        "ops": [],
    }


@pytest.mark.parametrize("instruction_set", ["amx", "avx512", "avx2"])
@pytest.mark.parametrize("target", speed_targets.TARGETS, ids=str)
def test_a_target_is_met_at_what_is_asked_and_not_beyond(
    target: speed_targets.Target, instruction_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_targets, "TARGETS", [target])
    sign = -1 if target.against in speed_targets.AT_MOST else 1
    ask = target.ask if instruction_set != "avx2" or target.without_avx512 is None else target.without_avx512
    there = {"build_info": {"instruction_set": instruction_set}}
    assert speed_targets.shortfalls(result_with([planted(target, ask * (1 + sign * 0.01))]) | there) == []
    (line,) = speed_targets.shortfalls(result_with([planted(target, ask * (1 - sign * 0.1))]) | there)
    assert line.startswith(f"{target.op} {target.shape} {target.pass_}: ")
    assert f"asked {speed_targets.in_words(target, ask)}" in line
    assert speed_targets.in_words(target, ask * (1 - sign * 0.1)) in line


def test_what_was_not_measured_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    target = speed_targets.Target("gae", (128, 4096), FORWARD, "stable-baselines3", 5)
    monkeypatch.setattr(speed_targets, "TARGETS", [target])
    assert "no such row" in speed_targets.shortfalls(result_with([]))[0]
    row = planted(target, 6)
    del row["seconds"]["stable-baselines3"]
    result = result_with([row]) | {"skipped": {"stable-baselines3": "not installed"}}
    assert speed_targets.shortfalls(result) == [
        "gae (128, 4096) forward: not measured against stable-baselines3 (not installed), asked 5× stable-baselines3"
    ]
    row = planted(target, 6) | {"wrong": ["stable-baselines3"], "errors": {"stable-baselines3": 0.5}}
    assert "its result is wrong, error 5.0e-01" in speed_targets.shortfalls(result_with([row]))[0]
    row = planted(target, 6) | {"wrong": ["ours"], "errors": {"ours": 0.5}}
    assert speed_targets.shortfalls(result_with([row])) == ["gae (128, 4096) float32 forward: wrong, error 5.0e-01"]


def test_scaling_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_targets, "TARGETS", [])
    slow = {"op": "gae", "shape": [1024, 1024], "pass": FORWARD, "float64": 2.6, "bfloat16": 2.7}
    slow |= {"two_threads": 1.6, "memory_allows": 1.95}
    expected = [
        "two threads 1.60× one, asked 1.70×",
        "float64 takes 2.60× float32's time, asked at most 2.5×",
        "bfloat16 takes 2.70× float32's time, asked at most 2.5×",
    ]
    assert [line.split(": ")[1] for line in speed_targets.shortfalls(result_with([], [slow]))] == expected
    well = slow | {"two_threads": None, "float64": 1, "bfloat16": 1}
    assert speed_targets.shortfalls(result_with([], [well])) == []
    bound = well | {"two_threads": 1.1, "memory_allows": 1.2}
    assert speed_targets.shortfalls(result_with([], [bound])) == []
    (line,) = speed_targets.shortfalls(result_with([], [bound | {"two_threads": 1.0}]))
    assert line.endswith("two threads 1.00× one, asked 1.08×")
    assert speed_targets.shortfalls(result_with([], [])) == ["two threads, float64 and bfloat16: not measured"]


def test_a_gpu_must_reach_the_predicted_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_targets, "PREDICTED", {("gae", (9, 9)): 7.0, ("entmax15", (9, 9)): 3.0})
    on_gpu = {"device_type": "cuda", "device": "NVIDIA H100 80GB HBM3", "ops": ["gae"]}
    row = {"op": "gae", "shape": [9, 9], "dtype": "float32", "pass": FORWARD, "wrong": [], "failed": {}}

    def missed(microseconds: float, **facts: object) -> list[str]:
        rows = [row | {"graph_seconds": {"ours": microseconds * 1e-6}} | facts]
        return speed_targets.shortfalls(result_with(rows) | on_gpu)

    asked = "asked 10 µs (predicted 7 µs / 0.7)"
    assert missed(9.9) == []
    assert missed(10.1) == [f"gae (9, 9) forward: 10.1 µs, {asked}"]
    assert missed(9.9, dtype="bfloat16") == [f"gae (9, 9) forward: not measured (no such row in this run), {asked}"]
    failed = {"graph_seconds": {}, "failed": {"ours in a CUDA graph": "RuntimeError: no"}}
    assert missed(9.9, **failed) == [f"gae (9, 9) forward: not measured (RuntimeError: no), {asked}"]
    assert len(speed_targets.shortfalls(result_with([]) | on_gpu | {"ops": []})) == 2
    elsewhere = result_with([]) | on_gpu | {"device": "NVIDIA A100-SXM4-40GB"}
    assert speed_targets.shortfalls(elsewhere) == [
        "predicted times: for an H100 or H200, not for NVIDIA A100-SXM4-40GB"
    ]


def test_every_predicted_time_has_a_case() -> None:
    todo = {(case.op, case.shape) for case in cases("meta", CUDA_SHAPES, [torch.float32])}
    assert todo >= set(speed_targets.PREDICTED)


def test_a_gpus_bandwidth_is_shown_beside_the_copys(capsys: pytest.CaptureFixture[str]) -> None:
    facts = FACTS | {"device": "A GPU", "allocator": "warmed"}
    row = planted(EAGER, 20) | {"beyond_cache": True, "bytes": 3_000_000, "copy_gb_per_s": 3100.0}
    for device_type in ("cuda", "cpu"):
        report.show(result_with([row]) | facts | {"device_type": device_type})
        assert ("3000 of 3100" in capsys.readouterr().out) == (device_type == "cuda")


def test_check_names_what_falls_short(capsys: pytest.CaptureFixture[str]) -> None:
    """Most targets have other shapes than the quick ones."""
    assert bench("--no-compile", "--check", "--ops", "gae") == 1
    shown = capsys.readouterr().out
    assert "entmax15" not in shown
    assert "target missed: gae (128, 8) forward: not measured against µs (no such row in this run)" in shown
    assert bench("--no-compile", "--check", "--ops", "td_targets") == 0
    assert "all targets are met (of td_targets)" in capsys.readouterr().out


# ---- the command


def test_in_python_without_tyro_and_rich() -> None:
    """A GPU machine may have torch, numpy and the test tools only."""
    status, out, err = run(
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['rich', 'tyro', 'matplotlib', 'gymnasium', 'entmax']))\n"
        "from automl_ext.bench.command import BenchCommand, bench\n"
        "options = BenchCommand(quick=True, seconds=0.001, compile=False, ops=('gae', 'entmax15'))\n"
        "sys.exit(bench(options))\n"
    )
    assert status == 0, err
    assert "entmax15" in out
    assert "entmax: skipped, not installed" in out


def test_cli(capsys: pytest.CaptureFixture[str]) -> None:
    from automl_ext.cli import main

    assert main(["bench", *SHORT, "--no-compile", "--ops", "td_targets"]) == 0
    assert "td_targets" in capsys.readouterr().out
    for args, word in [
        (["--ops", "gea"], "'gea'"),
        (["--threads", "0"], "--threads: expected at least 1"),
        (["--threads", "2", "--cpu-time"], "--cpu-time: expected one thread on the CPU"),
        (["--threads", "9" * 30], "--threads"),
        (["--device", "gpu"], "'gpu'"),
        (["--seconds", "nan"], "--seconds"),
        (["--table", "nowhere.json"], "nowhere.json"),
        (["--readme", "nowhere.md"], "nowhere.md"),
    ]:
        assert main(["bench", *args]) == 2
        assert word in capsys.readouterr().err


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device 'cuda': .*use cpu or auto"):
        bench("--device", "cuda")


def test_table_and_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_rows = [((1024, 1024), FORWARD), ((4096, 8), FORWARD), ((1024, 1024), TRAINING), ((4096, 8), TRAINING)]
    rows = [planted(replace(EAGER, shape=shape, pass_=pass_), 20) for shape, pass_ in of_rows]
    other = copy.deepcopy(rows[0])
    rows += [other | {"op": "vtrace", "shape": [2, 3]}, other | {"op": "vtrace", "shape": [4, 3]}]
    rows[2] |= {"failed": {"torchrl": "ImportError: built for another torch"}}
    result = result_with(rows) | FACTS | {"skipped": {"entmax": "not installed"}}
    (tmp_path / "bench.json").write_text(json.dumps(result))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    assert bench("--table", tmp_path / "bench.json", "--readme", readme) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[2:] == [
        "| `gumbel_softmax` | (1024, 1024) | 1 µs | eager 20 µs | 20× | 0 % | 20× eager |",
        "| `gumbel_softmax` | (4096, 8) | 1 µs | eager 20 µs | 20× | 0 % | 20× eager |",
        "| `vtrace` | (4, 3) | 1 µs | eager 20 µs | 20× | 0 % | – |",
        "",
        "2026-01-02: A CPU, avx2 kernels, 1 thread; torch 9; medians of interleaved runs, at least 0.5 s per row.",
        "",
        "Not measured: entmax, not installed",
        "",
        "Failed: torchrl for `gumbel_softmax`: ImportError: built for another torch",
    ]
    assert "load average 1.5" in markdown(result | {"load": 1.5})
    assert readme.read_text() == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"
    readme.write_text("no markers")
    with pytest.raises(UserError, match="expected the lines"):
        bench("--table", tmp_path / "bench.json", "--readme", readme)
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(UserError, match="not a result of this command"):
        bench("--table", tmp_path / "bench.json")


def test_a_recorded_result_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed_targets, "TARGETS", [EAGER])
    monkeypatch.setattr(command, "run", lambda options: pytest.fail("it is not measured again"))
    path = tmp_path / "bench.json"
    for value, code, line in [(20, 0, "all targets are met"), (2, 1, "target missed: gumbel_softmax (1024, 1024)")]:
        path.write_text(json.dumps(result_with([planted(EAGER, value)]) | FACTS))
        assert bench("--table", path, "--check") == code
        assert line in capsys.readouterr().out
        assert bench("--table", path) == 0
    path.write_text(
        json.dumps(result_with([planted(EAGER, 20) | {"wrong": ["ours"], "errors": {"ours": 1.0}}]) | FACTS)
    )
    assert bench("--table", path) == 1


def test_the_readme_shows_the_result_beside_it() -> None:
    result = json.loads((ROOT / "benchmarks/results/bench.json").read_text())
    _, _, rest = (ROOT / "README.md").read_text().partition(BEGIN)
    assert rest.partition(END)[0] == "\n" + markdown(result) + "\n"
