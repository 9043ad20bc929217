"""The parts of tools/cuda_day.py that need torch; it starts each in a process of its own.

python tools/cuda_parts.py PART ROWS [ARGUMENT]    ROWS: the file that gets a JSON line per measurement
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from cuda_cases import CASES, EPISODES_IN_TILES, SIZED, Case, case
from docs_tables.cuda import estimates, predicted
from gpu import GPU, REHEARSAL
from torch import Tensor

import automl_ext as a
from automl_ext.bench import command, speed_targets
from automl_ext.bench.cases import case as bench_case
from automl_ext.bench.cases.table import CUDA_SHAPES, cases
from automl_ext.bench.contenders import calls_on
from automl_ext.bench.measure import CUDA_COPY_BYTES, copy_call, moved_bytes, rotation
from automl_ext.bench.timing import Call, on_device

DEVICE = torch.device(GPU)
HANG = 300 if REHEARSAL else 50  # seconds for a case or row; then the process prints where it is, and ends
MOST = 40 if REHEARSAL else None  # the largest size of a dim
COPIED_BYTES = 2**20 if REHEARSAL else CUDA_COPY_BYTES


def record(rows: Path, row: dict[str, object]) -> None:
    with rows.open("a") as file:
        file.write(json.dumps(row | ({"rehearsal": True} if REHEARSAL else {})) + "\n")


def synchronize() -> None:
    if not REHEARSAL:
        torch.cuda.synchronize()


def names(rows: Path) -> int:
    print(*(c.name for c in CASES), sep="\n")
    return 0


def run_case(rows: Path, name: str) -> int:
    """Run a case forward and backward; NaN in its results is an error."""
    faulthandler.dump_traceback_later(HANG, exit=True)
    c = case(name)
    results = c.outputs_and_gradients(c.tensors(GPU))
    synchronize()
    return int(any(y.isnan().any() for y in results if y.is_floating_point()))


def all_cases(rows: Path, until: str) -> int:
    """Run each case forward and backward, until a time of the clock; of the sizes, float32 and bfloat16."""
    every = [*CASES, *(c for c in (*SIZED, *EPISODES_IN_TILES) if c.dtype != torch.float16)]
    todo: list[Case] = every[:: 20 if REHEARSAL else 1]
    ran, failed = 0, 0
    for c in todo:
        if time.time() > float(until):
            break
        try:
            c.outputs_and_gradients(c.tensors(GPU))
            synchronize()
        except RuntimeError as error:
            failed += 1
            print(f"failed: {c.name}: {error}", flush=True)
        ran += 1
        print(c.name, flush=True)
    print(f"ran {ran} of {len(todo)} cases", flush=True)
    return int(failed > 0)


# ---- times

# A call for each of several sets of inputs, which together exceed the L2 cache; the same with softmax; the bytes that
# one call must read and write.
Timed = tuple[Sequence[Call], Sequence[Call], int]


def shape_of(name: str) -> tuple[int, ...]:
    """Return the shape in a row's name, "op (4, 5), dim 1, backward"."""
    shape = tuple(int(n) for n in name[name.index("(") + 1 : name.index(")")].split(","))
    return tuple(min(n, MOST) for n in shape) if MOST else shape


def bench_row(name: str) -> bench_case.Case:
    op, shape = name.split(" ")[0], shape_of(name)
    shapes = {family: [shape] for family in ("rows", "logits", "mixed", "returns", "atoms", "actions")}
    family = {
        "token_log_probs": "logits",
        "mixed_op": "mixed",
        "gae": "returns",
        "categorical_projection": "atoms",
        "td_targets": "actions",
    }
    only = dict.fromkeys(CUDA_SHAPES, ()) | {family.get(op, "rows"): shapes[family.get(op, "rows")]}
    return next(c for c in cases(GPU, only, [torch.float32]) if c.op == op)


def forward(name: str) -> Timed:
    c = bench_row(name)
    function, softmax = c.seeded or c.ours, c.softmax
    if "dim 1" in name:
        function = {
            "entmax15": lambda x: a.entmax15(x, 1),
            "gumbel_softmax": lambda x: a.gumbel_softmax(x, dim=1, seed=seed),
        }[c.op]
        seed = torch.tensor(7, device=DEVICE)
        softmax = lambda x: x.softmax(1)  # noqa: E731
    sets = rotation(c, DEVICE)
    size = moved_bytes(c, bench_case.FORWARD, sets[0], bench_case.as_list(function(*sets[0])))

    def calls(f: bench_case.Function) -> Sequence[Call]:
        return calls_on(bench_case.plain(f), sets, 0, None)

    return calls(function), calls(softmax) if softmax else (), size


def entmax_backward(name: str) -> Timed:
    forms: list[tuple[Tensor, Tensor]] = []
    for (x,) in rotation(bench_row(name), DEVICE):
        forms.append((torch.randn_like(x), a.entmax15(x, 1)))
    softmax = [lambda g=g, y=y: torch._softmax_backward_data(g, y, 1, y.dtype) for g, y in forms]
    backward = torch.ops.automl_ext._entmax15_backward
    return [lambda g=g, y=y: backward(g, y, 1) for g, y in forms], softmax, 3 * forms[0][0].nbytes


def mixed_backward(name: str) -> Timed:
    backward = torch.ops.automl_ext._mixed_op_backward
    sets = [(torch.randn_like(xs[0]), xs[:-1], xs[-1]) for xs in rotation(bench_row(name), DEVICE)]
    at = list(range(len(sets[0][1])))
    calls = [lambda g=g, xs=xs, w=w: backward(g, xs, w, at, [True] * len(at)) for g, xs, w in sets]
    return calls, (), (2 * len(at) + 1) * sets[0][0].nbytes


def timed(name: str) -> Timed:
    if not name.endswith("backward"):
        return forward(name)
    return (entmax_backward if name.startswith("entmax") else mixed_backward)(name)


def times(rows: Path, skip: str) -> int:
    """Measure the rows of docs/development/cuda.md, beside predictions, softmax, and a copy of as many bytes."""
    copied = on_device(DEVICE, [copy_call(COPIED_BYTES, DEVICE) for _ in range(3)])
    per_byte = copied / COPIED_BYTES
    read = {f"{op} {shape}": microseconds for (op, shape), microseconds in speed_targets.PREDICTED.items()}
    todo = list(estimates().items())[int(skip) :]
    for name, estimate in todo:
        print(f"measuring {name}", flush=True)
        faulthandler.dump_traceback_later(HANG, exit=True)
        row: dict[str, object] = {"part": "times", "row": name}
        try:
            row |= measured(name, per_byte)
        except (RuntimeError, TypeError) as error:
            synchronize()  # an error that breaks the context ends the process
            row["failed"] = str(error).splitlines()[0]
        row |= {"read": read.get(name), "predicted": [round(t, 1) for t in predicted(*estimate)]}
        record(rows, row)
        print(row, flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 0


def measured(name: str, per_byte: float) -> dict[str, object]:
    calls, softmax, size = timed(name)
    ours = on_device(DEVICE, calls)
    facts: dict[str, object] = {"microseconds": round(1e6 * ours, 2), "copy": round(1e6 * size * per_byte, 2)}
    facts |= {"gb_per_s": round(size / ours / 1e9, 1), "sets": len(calls)}
    return facts | ({"softmax": round(1e6 * on_device(DEVICE, softmax), 2)} if softmax else {})


# ---- the benchmark


def bench(rows: Path) -> int:
    def on_row(row: dict) -> None:
        record(rows, {"part": "bench"} | row)
        command.show_progress(row)

    options = command.BenchCommand(device=GPU, seconds=0.15, compile=False)
    if REHEARSAL:  # the replay of the CPU's shapes needs gymnasium
        ops = dict.fromkeys(case.op for case in cases(GPU, CUDA_SHAPES, [torch.float32]))
        options = replace(options, seconds=0.001, quick=True, ops=tuple(ops))
    result = command.run(options, on_row)
    command.report.show(result)
    record(rows, {"part": "bench", "result": {key: value for key, value in result.items() if key != "rows"}})
    missed = speed_targets.shortfalls(result) if not REHEARSAL else [*speed_targets.wrong(result)]
    print(*(f"target missed: {line}" for line in missed), sep="\n")
    return int(bool(missed))


PARTS: dict[str, Callable[..., int]] = {
    "names": names,
    "case": run_case,
    "all_cases": all_cases,
    "times": times,
    "bench": bench,
}

if __name__ == "__main__":
    part, out, *arguments = sys.argv[1:]
    sys.exit(PARTS[part](Path(out), *arguments))
