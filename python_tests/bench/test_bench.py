"""`automl-ext bench` measures every op and detects wrong results."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from automl_ext.bench import command, speed_targets, timing
from automl_ext.bench import measure as measuring
from automl_ext.bench.cases import peers, replay_peers
from automl_ext.bench.cases import replay as replay_cases
from automl_ext.bench.cases.case import FORWARD, TRAINING, Case, as_list, plain
from automl_ext.bench.cases.table import CPU_SHAPES, CUDA_SHAPES, QUICK_SHAPES, cases
from automl_ext.bench.contenders import contenders, first_results, timed
from automl_ext.bench.measure import copy_call, graph_seconds, measure, measure_pass
from automl_ext.bench.reports.terminal import SCALING
from automl_ext.bench.scaling import scaling
from automl_ext.bench.timing import interleaved, summary

CPU = torch.device("cpu")
OPS = {"entmax15", "sparsemax", "entmax_bisect", "gumbel_softmax", "gumbel_softmax_hard", "gumbel_entmax15"}
ATTENTION = {"entmax15_attention", "entmax15_attention_causal"}  # on the CPU alone
OPS |= {"gumbel_argmax", "mixed_op"}
OPS |= {"cell_aggregate", "gae", "lambda_returns", "discounted_returns", "n_step_returns", "vtrace", "retrace"}
OPS |= {"categorical_projection", "td_targets"}
REPLAY = {"prioritized_replay", "prioritized_replay_3_steps"}  # on the CPU alone
NETWORKS = {"mlp_tanh", "mlp_tanh_twin", "mlp_relu", "mlp_relu_twin", "mlp_elu", "gru_cell"}  # on the CPU alone
OPS |= REPLAY | NETWORKS | ATTENTION | {"token_log_probs", "token_log_probs_entropy"}
SHORT = ["--quick", "--seconds", "0.001"]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TURN", 1e-5)


def bench(*args: object) -> int:
    from automl_ext_cli.options import parse_options

    return command.bench(parse_options(command.BenchCommand, "bench", [*SHORT, *(str(arg) for arg in args)]))


def case_of(op: str, dtype: torch.dtype = torch.float32) -> Case:
    """Return the op's last quick shape of two sizes."""
    return next(c for c in reversed(cases("cpu", QUICK_SHAPES | {"attention": []}, [dtype], {})) if c.op == op)


def rows_of(case: Case) -> list[dict[str, Any]]:
    return list(measure(case, CPU, 1e-3, False))


@pytest.mark.slow
def test_every_op_json_and_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = bench("--no-compile", "--out", tmp_path)
    shown = capsys.readouterr().out
    assert status == 0, shown
    result = json.loads((tmp_path / "bench.json").read_text())
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert result["threads"] == 1
    assert result["device"] in shown
    assert result["versions"]["torch"] == torch.__version__
    assert "30 MB" in result["allocator"]
    assert set(result["skipped"]) | set(result["versions"]) >= {"entmax", "stable-baselines3", "torchrl"}
    assert {row["op"] for row in result["rows"]} == OPS
    for row in result["rows"]:
        assert row["wrong"] == [], row
        assert {"ours", "eager", "copy"} <= set(row["seconds"])
        for times in row["seconds"].values():
            assert 0 < times["low"] <= times["median"] <= times["high"]
            assert times["turns"] >= 5
        assert min(row["ratio"], row["of_copy"], row["copy_gb_per_s"], row["bytes"]) > 0
        assert (row["of_softmax"] is not None) == ("max" in row["op"])
        assert row["op"] in shown
    both = {row["op"] for row in result["rows"] if row["pass"] == TRAINING}
    assert both == OPS - {"gumbel_argmax", "vtrace", "retrace", "categorical_projection", "td_targets", *REPLAY}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes_are_right(dtype: torch.dtype) -> None:
    for case in cases("cpu", QUICK_SHAPES, [dtype], {}):
        for row in rows_of(case):
            assert "ours" not in row["wrong"], row


def test_tables_hold_the_shapes_of_the_targets() -> None:
    places = {(c.op, c.shape) for c in cases("cpu", CPU_SHAPES, [torch.float32], {})}
    assert {(t.op, t.shape) for t in speed_targets.TARGETS} <= places
    assert {c.op for c in cases("cuda", CUDA_SHAPES, [torch.float32], {})} == OPS - REPLAY - NETWORKS - ATTENTION


def test_bytes_that_must_move() -> None:
    n = 4 * 60 * 300
    assert [row["bytes"] for row in rows_of(case_of("entmax15"))] == [2 * n, 5 * n]  # x, p; then g, p again, and dx
    n, flags = 4 * 6 * 70, 2 * 6 * 70
    assert [row["bytes"] for row in rows_of(case_of("gae"))] == [5 * n + flags, 10 * n + 2 * flags]


# ---- wrong results


def spoil(y: Tensor) -> Tensor:
    wrong = y.clone()
    wrong.view(-1)[-1] += 1
    return wrong


@pytest.mark.parametrize("who", ["ours", "eager"])
@pytest.mark.parametrize("op", ["sparsemax", "mixed_op", "gae", "n_step_returns"])
def test_a_wrong_result_is_noticed(op: str, who: str) -> None:
    """One op is wrong in one row of the forward pass, another only in the gradient."""
    case = case_of(op)
    right = getattr(case, who)

    def wrong_value(*tensors: Tensor) -> tuple[Tensor, ...]:
        *others, last = as_list(right(*tensors))
        return (*others, spoil(last))

    def wrong_gradient(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(y.detach() + 1.01 * (y - y.detach()) if y.requires_grad else y for y in as_list(right(*tensors)))

    def wrong_with(function: Any) -> list[list[str]]:
        # The reference is what `seeded` says, so that a spoilt `ours` is not compared with itself.
        changed = dataclasses.replace(case, **{who: function}, seeded=case.ours)
        return [row["wrong"] for row in rows_of(changed)]

    assert wrong_with(wrong_value)[0] == [who]
    assert wrong_with(wrong_gradient) == [[], [who]]
    assert wrong_with(right) == [[], []]


def test_a_wrong_contender_is_no_competitor() -> None:
    case = dataclasses.replace(case_of("td_targets"), eager=lambda r, q, terminated: r)
    row = rows_of(case)[0]
    assert row["wrong"] == ["eager"]
    assert row["best"] is None
    assert row["ratio"] is None


def no_noise(x: Tensor) -> Tensor:
    return x.softmax(-1)


def half_the_noise(x: Tensor) -> Tensor:
    return (x - torch.empty_like(x).exponential_().log() / 2).softmax(-1)


def wrong_temperature(x: Tensor) -> Tensor:
    y = torch.nn.functional.gumbel_softmax(x)
    return y.detach() + 1.01 * (y - y.detach())


@pytest.mark.parametrize(
    ("op", "sampler", "passes"),
    [
        ("gumbel_softmax", no_noise, [FORWARD, TRAINING]),
        ("gumbel_softmax", half_the_noise, [FORWARD, TRAINING]),
        ("gumbel_softmax", wrong_temperature, [TRAINING]),
        ("gumbel_softmax_hard", lambda x: torch.nn.functional.gumbel_softmax(x), [FORWARD, TRAINING]),
        ("gumbel_argmax", lambda x: x.argmax(-1), [FORWARD]),
        ("gumbel_argmax", lambda x: torch.randint(x.shape[-1], x.shape[:-1]), [FORWARD]),
    ],
)
@pytest.mark.parametrize("who", ["ours", "eager"])
def test_samples_of_another_distribution_are_noticed(op: str, sampler: Any, passes: list[str], who: str) -> None:
    case = dataclasses.replace(case_of(op), **{who: sampler}, make=lambda: [torch.randn(5000, 20)], count=5000)
    assert [row["pass"] for row in rows_of(case) if who in row["wrong"]] == passes


@pytest.mark.parametrize("who", ["ours", "eager"])
def test_a_wrong_replay_is_noticed(who: str) -> None:
    """Faults: draws that ignore priorities or use alpha = 1, weights without beta, and a torn row."""
    (case, *_) = cases(
        "cpu", {**{family: [] for family in QUICK_SHAPES}, "replay": [(4096, 1000)]}, [torch.float32], {}
    )
    right = getattr(case, who)

    def wrong_with(change: Any) -> list[str]:
        def bind(tensors: Any) -> Any:
            call = right(tensors)
            return lambda: change(tensors[0], *map(torch.as_tensor, call()))

        return measure_pass(dataclasses.replace(case, **{who: bind}), FORWARD, CPU, 1e-3, False)["wrong"]

    def drawn_by(p: Tensor, td_errors: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.multinomial(p, 1000, replacement=True)
        mine = (td_errors.double() + replay_cases.EPS)[index] ** replay_cases.ALPHA
        return (index[:, None] + torch.arange(4)).float(), (mine.min() / mine) ** replay_cases.BETA

    assert wrong_with(lambda errors, obs, weights: (obs, weights)) == []
    assert wrong_with(lambda errors, obs, weights: drawn_by(errors**0.6, errors)) == []
    assert wrong_with(lambda errors, obs, weights: drawn_by(torch.ones_like(errors), errors)) == [who]
    assert wrong_with(lambda errors, obs, weights: drawn_by(errors, errors)) == [who]
    assert wrong_with(lambda errors, obs, weights: (obs, torch.ones_like(weights))) == [who]
    assert wrong_with(lambda errors, obs, weights: (obs, weights**1.001)) == [who]
    assert wrong_with(lambda errors, obs, weights: (obs.roll(1, 0).where(torch.arange(4) == 3, obs), weights)) == [who]
    assert wrong_with(lambda errors, obs, weights: (obs - 4096, weights)) == [who]


def test_one_that_fails_is_named_with_the_reason() -> None:
    def broken(*tensors: Tensor) -> Tensor:
        raise RuntimeError("no compiler found\nand more")

    case = dataclasses.replace(case_of("mixed_op"), eager=broken)
    row = rows_of(case)[0]
    assert row["failed"]["eager"] == "RuntimeError: no compiler found"
    assert "eager" not in row["seconds"]


def test_torchrl_without_its_extension_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own message points to a warning that the import has printed."""
    monkeypatch.setitem(sys.modules, "torchrl", types.ModuleType("torchrl"))
    monkeypatch.setitem(sys.modules, "torchrl._torchrl", None)
    with pytest.raises(ImportError, match="was built for another torch than"):
        replay_peers.torchrl(None, np.zeros((3, 4)), torch.zeros(2), torch.zeros(1), 0.6, 0.4)


def test_ours_wrong_is_an_error_exit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = dataclasses.replace(case_of("td_targets"), ours=lambda r, q, t: r, seeded=case_of("td_targets").ours)
    monkeypatch.setattr(command, "cases", lambda *_: [case])
    assert bench("--no-compile") == 1
    assert "WRONG: ours, td_targets" in capsys.readouterr().out


# ---- contenders


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_is_measured(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    row = measure_pass(case_of("mixed_op"), FORWARD, CPU, 1e-3, compiled=True)
    assert row["wrong"] == []
    why = row["failed"].get("compiled")
    if why is not None:
        pytest.skip(f"torch.compile does not work here: {why}")
    assert row["seconds"]["compiled"]["median"] > 0


def test_a_loop_over_time_is_not_compiled() -> None:
    bound, skipped = contenders(case_of("gae"), FORWARD, True)
    assert "compiled" not in bound
    assert "minutes" in skipped["compiled"]


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("entmax", "entmax15"),
        ("entmax", "sparsemax"),
        ("entmax", "entmax_bisect"),
        ("stable-baselines3", "gae"),
        ("torchrl", "gae"),
    ]
    + [("tianshou", op) for op in sorted(REPLAY)],
)
def test_peers_agree(name: str, op: str) -> None:
    modules, skipped = peers.load()
    if name not in modules:
        pytest.skip(skipped[name])
    case = next(c for c in cases("cpu", QUICK_SHAPES, [torch.float32], modules) if c.op == op)
    row = measure_pass(case, FORWARD, CPU, 1e-3, False)
    assert name in row["seconds"]
    assert row["wrong"] == []


def test_a_missing_peer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PACKAGES", {"nowhere": "no_such_package.part"})
    assert peers.load() == ({}, {"nowhere": f"not installed (no module 'no_such_package'): {peers.INSTALL}"})


def test_results_of_the_first_call() -> None:
    case = case_of("n_step_returns")
    tensors = case.make()
    results, failed = first_results({"ours": plain(case.ours)}, tensors, case.trained, torch.ones(case.shape))
    assert [y.shape for y in results["ours"]] == [case.shape] * 5  # three outputs, two gradients
    assert failed == {}


def test_interleaved_times(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    times = interleaved(CPU, {name: lambda name=name: order.append(name) for name in "ab"}, 1e-9)
    assert times["a"]["turns"] == times["b"]["turns"] == timing.FEWEST_TURNS
    turns = [name for i, name in enumerate(order) if i == 0 or name != order[i - 1]]
    assert turns == list("ab") * (1 + timing.FEWEST_TURNS)
    assert summary([4.0, 1.0, 2.0, 3.0, 5.0]) == {"median": 3, "low": 2, "high": 4, "turns": 5}


def test_another_clock() -> None:
    """A clock that a call advances by half a second."""
    spent = [0.0]

    def run() -> None:
        spent[0] += 0.5

    times = interleaved(CPU, {"a": run}, 1e-9, clock=lambda: spent[0])
    assert times["a"] == {"median": 0.5, "low": 0.5, "high": 0.5, "turns": timing.FEWEST_TURNS}


@pytest.mark.parametrize(
    ("op", "sets", "beyond"), [("gumbel_softmax", 9, True), ("gae", 64, True), ("mixed_op", 64, False)]
)
def test_inputs_rotate_on_a_gpu(op: str, sets: int, beyond: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsed on the CPU: on a GPU only the clock and the device of the copy differ."""
    case, made, cuda = case_of(op), [], torch.device("cuda")

    def make() -> list[Tensor]:
        made.append(case.make())
        return made[-1]

    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 300_000)
    monkeypatch.setattr(measuring, "copy_call", lambda size, device: copy_call(size // 1000, CPU))
    monkeypatch.setattr(
        measuring, "interleaved", lambda device, calls, seconds, clock: interleaved(CPU, calls, seconds, clock)
    )
    for pass_ in case.passes:
        made.clear()
        row = measure_pass(dataclasses.replace(case, make=make), pass_, cuda, 1e-3, False)
        assert row["wrong"] == []
        assert row["copied_bytes"] == measuring.CUDA_COPY_BYTES
        assert row["beyond_cache"] == beyond
        assert len(made) == sets


def test_sets_take_turns() -> None:
    used: list[int] = []
    run = timed(plain(lambda x: used.append(int(x))), [[torch.tensor(i)] for i in range(3)], 0, None)
    for _ in range(7):
        run()
    assert used == [0, 1, 2, 0, 1, 2, 0]


def test_scaling_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_ext.bench.scaling.LARGE", 1000)

    def build(dtypes: Any) -> list[Case]:
        return [c for c in cases("cpu", QUICK_SHAPES, dtypes, {}) if c.op in ("entmax15", "td_targets")]

    monkeypatch.setattr("automl_ext.bench.scaling.SETTLE", 1e-3)
    before = torch.get_num_threads()
    rows = list(scaling(build, 1e-3, cores=2))
    assert torch.get_num_threads() == before
    assert [(row["op"], row["pass"]) for row in rows] == [("entmax15", FORWARD), ("entmax15", TRAINING)]
    for row in rows:
        assert min(row[key] for key in SCALING) > 0


@pytest.mark.parametrize("trained", [False, True])
def test_calls_of_a_graph_are_rehearsed_on_the_cpu(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sets are used, and what cannot be captured is named."""
    (case,) = (c for c in cases("cpu", QUICK_SHAPES, [torch.float32]) if (c.op, c.shape) == ("gumbel_softmax", (14, 8)))
    op, sets, used = case.seeded, [case.make() for _ in range(3)], set()
    assert op is not None

    def seeded(x: Tensor) -> Tensor:
        used.add(x.data_ptr())
        return op(x)

    case = dataclasses.replace(case, seeded=seeded)
    grads = [torch.ones_like(x) for (x,) in sets] if trained else None
    failed: dict[str, str] = {}
    times = graph_seconds(case, torch.device("cpu"), sets, grads, failed)
    assert not failed
    assert set(times) == {"ours", "softmax"}
    assert min(times.values()) > 0
    assert used == {x.data_ptr() for (x,) in sets}
    refused = RuntimeError("operation not permitted when stream is capturing\nmore")
    monkeypatch.setattr(measuring, "on_device", lambda device, calls: (_ for _ in ()).throw(refused))
    assert graph_seconds(case, torch.device("cpu"), sets, grads, failed) == {}
    assert failed["ours in a CUDA graph"] == "RuntimeError: operation not permitted when stream is capturing"
