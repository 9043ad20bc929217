"""Speed targets of the kernels, and the measurements that miss them.

Targets are ratios of times of one run; gae at (128, 8) has a target in microseconds. For compute-bound ops, the ratio
is to torch.softmax of the same shape, because the times of eager PyTorch vary more. The targets are looser than the
measurements on machines with and without AVX-512, so a missed target usually means a regression. On a GPU, an op may
take its predicted time divided by 0.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from automl_ext.bench.cases.case import FORWARD, TRAINING
from automl_ext.bench.predicted import PREDICTED

TWO_THREADS = 1.7  # speedup over one thread, for inputs of at least a million elements
OF_MEMORY = 0.9  # enough, relative to the speedup with which two threads copy the bytes in that time
OTHER_DTYPES = 2.5  # maximum time, relative to float32
OF_PREDICTED = 0.7  # minimum speed, relative to the predicted one
PREDICTED_FOR = ("H100", "H200")


@dataclass(frozen=True)
class Target:
    """A target for float32 on one thread.

    Attributes:
        ask: required value, whose meaning depends on ``against``. A contender: minimum speed relative to it.
            "softmax": maximum time relative to PyTorch's softmax of the same rows, or to its fused attention of the
            same shape. "µs": maximum time. "copy": minimum bandwidth relative to it.
        without_avx512: the required value on processors without AVX-512, if it is another.
    """

    op: str
    shape: tuple[int, ...]
    pass_: str
    against: str
    ask: float
    without_avx512: float | None = None


TARGETS = [
    Target("gumbel_softmax", (1024, 1024), FORWARD, "softmax", 1.8, 2.6),
    Target("gumbel_softmax", (1024, 1024), TRAINING, "softmax", 1.5, 1.9),
    Target("gumbel_softmax", (4096, 8), FORWARD, "softmax", 1.6),
    Target("gumbel_softmax", (14, 8), FORWARD, "eager", 1.5),
    Target("gumbel_softmax", (14, 8), TRAINING, "eager", 1.3),
    Target("entmax15", (1024, 1024), FORWARD, "softmax", 0.5, 0.6),
    Target("entmax15", (1024, 1024), TRAINING, "softmax", 0.7),
    Target("entmax15", (1024, 1024), TRAINING, "entmax", 40),
    Target("entmax15", (4096, 8), FORWARD, "softmax", 0.8),
    Target("entmax15", (4096, 8), TRAINING, "entmax", 8),
    Target("entmax15", (4096, 32), FORWARD, "softmax", 1.2),
    Target("entmax15", (64, 32_000), FORWARD, "softmax", 0.7),
    Target("entmax15", (14, 8), FORWARD, "softmax", 2.0),
    Target("entmax15", (14, 8), TRAINING, "entmax", 3),
    Target("entmax15", (8, 8, 256, 256), FORWARD, "softmax", 1.0),
    Target("entmax15", (8, 8, 256, 256), TRAINING, "softmax", 1.2),
    Target("entmax15_attention", (8, 8, 256, 32), FORWARD, "softmax", 0.75),
    Target("entmax15_attention", (8, 8, 256, 32), TRAINING, "softmax", 0.5),
    Target("entmax15_attention", (4, 8, 1024, 64), FORWARD, "softmax", 0.5),
    Target("entmax15_attention", (4, 8, 1024, 64), TRAINING, "softmax", 0.25),
    Target("entmax15_attention_causal", (4, 8, 1024, 64), FORWARD, "softmax", 0.5),
    Target("entmax15_attention_causal", (4, 8, 1024, 64), TRAINING, "softmax", 0.25),
    Target("mixed_op", (8, 64, 16, 32, 32), FORWARD, "eager", 2.2),
    Target("mixed_op", (8, 64, 16, 32, 32), FORWARD, "copy", 0.9),
    Target("gae", (128, 8), FORWARD, "µs", 10),
    Target("gae", (128, 4096), FORWARD, "copy", 0.7),
    Target("gae", (1024, 1024), FORWARD, "copy", 0.8),
    Target("gae", (128, 4096), FORWARD, "stable-baselines3", 4),
    Target("gae", (1024, 1024), FORWARD, "stable-baselines3", 5),
    Target("prioritized_replay", (1_000_000, 256), FORWARD, "tianshou", 1.5),
    Target("prioritized_replay_3_steps", (1_000_000, 256), FORWARD, "tianshou", 1.3),
]
AT_MOST = ("softmax", "µs")


def measured(target: Target, row: dict[str, Any]) -> float | None:
    """Return the measured value; None if the contender was not measured or is wrong."""
    if target.against == "copy":
        return row["of_copy"]
    if target.against == "softmax":
        return row["of_softmax"]
    seconds = row["seconds"]
    if target.against == "µs":
        return 1e6 * seconds["ours"]["median"]
    if target.against not in seconds or target.against in row["wrong"]:
        return None
    return seconds[target.against]["median"] / seconds["ours"]["median"]


def met(target: Target, value: float, bound: float) -> bool:
    return value <= bound if target.against in AT_MOST else value >= bound


def in_words(target: Target, value: float) -> str:
    forms = {"µs": "{:.3g} µs", "softmax": "{:.3g}× softmax's time", "copy": "{:.0%} of a copy"}
    return forms.get(target.against, "{:.3g}× " + target.against).format(value)


def asked_of(target: Target, result: dict[str, Any]) -> float:
    """Return the required value on the processor of a result."""
    narrow = result["build_info"].get("instruction_set") not in ("avx512", "amx")
    return target.without_avx512 if narrow and target.without_avx512 is not None else target.ask


def shortfalls(result: dict[str, Any]) -> list[str]:
    """Return a line for each target that is missed or was not measured, and for each wrong result.

    If only some ops were measured, only their targets count.
    """
    if result["device_type"] == "cuda":
        return [*wrong(result), *cuda_shortfalls(result)]
    return [*wrong(result), *cpu_shortfalls(result), *scaling_shortfalls(result)]


def where(row: dict[str, Any]) -> str:
    return f"{row['op']} {tuple(row['shape'])} {row.get('dtype', '')} {row['pass']}".replace("  ", " ")


def wrong(result: dict[str, Any]) -> Iterator[str]:
    for row in result["rows"]:
        if "ours" in row["wrong"]:
            yield f"{where(row)}: wrong, error {row['errors']['ours']:.1e}"


def cpu_shortfalls(result: dict[str, Any]) -> Iterator[str]:
    rows = {(r["op"], tuple(r["shape"]), r["pass"]): r for r in result["rows"] if r["dtype"] == "float32"}
    for target in TARGETS:
        if result["ops"] and target.op not in result["ops"]:
            continue
        ask = asked_of(target, result)
        row = rows.get((target.op, target.shape, target.pass_))
        name = f"{target.op} {target.shape} {target.pass_}"
        asked = f"asked {in_words(target, ask)}"
        value = None if row is None else measured(target, row)
        if value is None:
            why = reason(target.against, row, result)
            yield f"{name}: not measured against {target.against} ({why}), {asked}"
        elif not met(target, value, ask):
            yield f"{name}: {in_words(target, value)}, {asked}"


def reason(against: str, row: dict[str, Any] | None, result: dict[str, Any]) -> str:
    if row is None:
        return "no such row in this run"
    if against in row["wrong"]:
        return f"its result is wrong, error {row['errors'][against]:.1e}"
    why = {**result["skipped"], **row["skipped"], **row["failed"]}
    return why.get(against, "left out")


def scaling_shortfalls(result: dict[str, Any]) -> Iterator[str]:
    if not result["scaling"] and not result["ops"]:
        yield "two threads, float64 and bfloat16: not measured"
    for row in result["scaling"]:
        if row["two_threads"] is not None:
            ask = min(TWO_THREADS, OF_MEMORY * row["memory_allows"])
            if row["two_threads"] < ask:
                yield f"{where(row)}: two threads {row['two_threads']:.2f}× one, asked {ask:.2f}×"
        for dtype in ("float64", "bfloat16"):
            if row[dtype] > OTHER_DTYPES:
                what = f"{dtype} takes {row[dtype]:.2f}× float32's time, asked at most {OTHER_DTYPES}×"
                yield f"{where(row)}: {what}"


def cuda_shortfalls(result: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each op that takes more than its predicted time allows, in a CUDA graph, or was not measured."""
    if not any(name in result["device"] for name in PREDICTED_FOR):
        yield f"predicted times: for an {' or '.join(PREDICTED_FOR)}, not for {result['device']}"
        return
    rows = {(r["op"], tuple(r["shape"])): r for r in result["rows"] if (r["dtype"], r["pass"]) == ("float32", FORWARD)}
    for (op, shape), predicted in PREDICTED.items():
        if result["ops"] and op not in result["ops"]:
            continue
        row = rows.get((op, shape))
        asked = f"asked {predicted / OF_PREDICTED:.3g} µs (predicted {predicted:g} µs / {OF_PREDICTED})"
        if row is None or "ours" not in row["graph_seconds"]:
            why = "no such row in this run" if row is None else row["failed"].get("ours in a CUDA graph", "left out")
            yield f"{op} {shape} {FORWARD}: not measured ({why}), {asked}"
        elif 1e6 * row["graph_seconds"]["ours"] * OF_PREDICTED > predicted:
            yield f"{op} {shape} {FORWARD}: {1e6 * row['graph_seconds']['ours']:.3g} µs, {asked}"
