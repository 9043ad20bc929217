"""Parts of `make cuda-test` that are not tests; each runs on its own, with torch and numpy only.

    python tools/cuda_day.py once            run every kernel once, for compute-sanitizer
    python tools/cuda_day.py times OUT       times of our ops from captured graphs, as OUT/times.json
    python tools/cuda_day.py bench OUT       the benchmark with its targets, as OUT/bench.json

AUTOML_EXT_TEST_GPU=cpu rehearses `once` and `times` on the CPU, with few rows and without graphs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "python_tests/helpers")]

from cuda_cases import CASES, EPISODES_IN_TILES, SIZED  # noqa: E402
from gpu import GPU, REHEARSAL  # noqa: E402

import automl_ext as a  # noqa: E402

CALLS, TURNS = 20, 7  # calls in a graph; replays
SEED = 7


def once() -> int:
    """Run each case forward and backward; of the sizes, float32 and bfloat16."""
    cases = [*CASES, *(c for c in (*SIZED, *EPISODES_IN_TILES) if c.dtype != torch.float16)]
    for case in cases[:: 20 if REHEARSAL else 1]:
        case.outputs_and_gradients(case.tensors(GPU))
    if not REHEARSAL:
        torch.cuda.synchronize()
    print(f"ran {len(cases)} cases once")
    return 0


Timed = tuple[Callable[[], object], int]  # a call, and the bytes that it must read and write


def rows(op: Callable[[Tensor], object], *shape: int) -> Timed:
    x = torch.randn(min(shape[0], 64) if REHEARSAL else shape[0], *shape[1:], device=GPU)
    return lambda: op(x), 2 * x.nbytes


def episode(steps: int, columns: int) -> Timed:
    reward, value, following = torch.randn(3, steps, columns, device=GPU)
    done = torch.zeros(steps, columns, dtype=torch.bool, device=GPU)
    moved = 5 * reward.nbytes + 2 * done.nbytes
    return lambda: a.gae(reward, value, following, done, done, 0.99, 0.95), moved


def timed_cases() -> dict[str, Timed]:
    tau = 0.7
    seed = torch.tensor(SEED, device=GPU)

    def gumbel(x: Tensor) -> object:
        return a.gumbel_softmax(x, tau, seed=seed)

    named = {f"entmax15 {shape}": rows(a.entmax15, *shape) for shape in ((64, 32000), (1024, 1024), (262144, 8))}
    named |= {f"sparsemax {shape}": rows(a.sparsemax, *shape) for shape in ((1024, 1024), (262144, 8))}
    named |= {f"gumbel_softmax {shape}": rows(gumbel, *shape) for shape in ((1024, 1024), (262144, 8))}
    named |= {f"gae {shape}": episode(*shape) for shape in ((1024, 8), (128, 4096))}
    return named


def seconds_per_call(call: Callable[[], object]) -> float:
    """Return the median time of a call, of CALLS in a graph, so that Python's dispatch does not count."""
    if REHEARSAL:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    times = []
    for _ in range(TURNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / CALLS)
    return statistics.median(times[1:])


def times(out: Path) -> int:
    device = "CPU (rehearsal)" if REHEARSAL else torch.cuda.get_device_name()
    result = {}
    for name, (call, moved) in timed_cases().items():
        seconds = seconds_per_call(call)
        microseconds, rate = round(seconds * 1e6, 2), round(moved / seconds / 1e9, 1)
        result[name] = {"microseconds": microseconds, "gigabytes_per_second": rate}
        print(f"{name:32} {microseconds:10.2f} µs {rate:8.1f} GB/s")
    out.mkdir(parents=True, exist_ok=True)
    facts = {"device": device, "torch": torch.__version__, "what": "data may stay in the L2 cache between calls"}
    (out / "times.json").write_text(json.dumps(facts | {"times": result}, indent=1) + "\n")
    return 0


def bench(out: Path) -> int:
    from automl_ext.bench import command, targets

    result = command.run(command.BenchCommand(device="cuda", seconds=0.15, compile=False))
    command.report.show(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(command.as_json(result))  # command.write also draws, with matplotlib
    missed = list(targets.shortfalls(result))
    print("\n".join(f"target missed: {line}" for line in missed) or "all targets are met")
    return 1 if missed or any(targets.wrong(result)) else 0


if __name__ == "__main__":
    part, *out = sys.argv[1:]
    sys.exit({"once": once, "times": times, "bench": bench}[part](*map(Path, out)))
