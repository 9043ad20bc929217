"""Measure what freed memory costs a script: forward and backward of ops with and without ``keep_freed_memory``.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/page_faults.py [--json FILE]

Every case is a fresh process, since the setting holds until a process ends, and the cases of an op take turns. The
kernels are those of the machine's instruction set, and of AVX2 as well on a machine with AVX-512.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import automl_ext
from automl_ext.training.machine.environment import cpu_name

SHAPE = (1024, 1024)
OPS: dict[str, Callable[[Tensor], Tensor]] = {
    "gumbel_softmax": automl_ext.gumbel_softmax,
    "eager gumbel": F.gumbel_softmax,
    "entmax15": automl_ext.entmax15,
    "softmax": lambda x: torch.softmax(x, -1),
}
ROUNDS, CALLS = 3, 40


def measure(name: str, kept: bool) -> dict[str, float]:
    """Return the median of milliseconds and the mean of page faults per call, forward and backward."""
    if kept:
        automl_ext.keep_freed_memory()
    x, grad = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    times: list[float] = []
    for call in range(CALLS + 5):
        if call == 5:  # warm
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        begin = time.perf_counter()
        torch.autograd.grad(OPS[name](x), x, grad)
        times.append(time.perf_counter() - begin)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"ms": 1e3 * statistics.median(times[5:]), "faults": faults / CALLS}


def in_process(name: str, kept: bool, instruction_set: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", name, *(["--kept"] if kept else [])]
    out = subprocess.run(
        command, env=os.environ | {"AUTOML_EXT_CPU": instruction_set}, check=True, capture_output=True, text=True
    )
    return json.loads(out.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--case", choices=OPS, help="measure this op in this process")
    parser.add_argument("--kept", action="store_true", help="keep freed memory, for --case")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case, args.kept)))
        return
    best = automl_ext.build_info()["instruction_set"]
    rows = []
    for name in OPS:
        ours = name in automl_ext.__all__
        for instruction_set in dict.fromkeys((best, "avx2") if ours and best in ("avx512", "amx") else (best,)):
            runs = [[in_process(name, kept, instruction_set) for kept in (False, True)] for _ in range(ROUNDS)]
            row: dict[str, object] = {"op": name, "instruction_set": instruction_set if ours else None}
            for kind, case in zip(("default", "kept"), zip(*runs, strict=True), strict=True):
                row |= {f"{kind}_{key}": round(statistics.median(r[key] for r in case), 3) for key in ("ms", "faults")}
            rows.append(row)
            print(row)
    if args.json:
        about = {"device": cpu_name(), "date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "shape": SHAPE}
        args.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
