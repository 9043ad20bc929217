"""``automl-ext bench``: options, measurement and output."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from automl_ext import __version__, build_info
from automl_ext.bench import speed_targets
from automl_ext.bench.cases import peers
from automl_ext.bench.cases.case import Case
from automl_ext.bench.cases.table import CPU_SHAPES, CUDA_SHAPES, QUICK_SHAPES, cases
from automl_ext.bench.measure import measure
from automl_ext.bench.reports import readme
from automl_ext.bench.reports import terminal as report
from automl_ext.bench.scaling import scaling
from automl_ext.bench.timing import WARM_UP_ELEMENTS, warm_allocator
from automl_ext.training.checks import check_range
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import check_writable, write_atomic
from automl_ext.training.files.reading import read_object
from automl_ext.training.machine.device import choose_device
from automl_ext.training.machine.environment import cpu_name

MOST_THREADS = 4096
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass
class BenchCommand:
    device: str = "cpu"
    """cpu, cuda, cuda:N or auto."""
    ops: tuple[str, ...] = ()
    """Measure these ops only."""
    dtype: tuple[Literal["float32", "float64", "bfloat16"], ...] = ()
    """Default: float32; on cuda also bfloat16."""
    seconds: float = 1.0
    """Minimum time per row."""
    threads: int = 1
    """Number of CPU threads; the targets are set for 1."""
    cpu_time: bool = False
    """Measure the thread's CPU time, where other programs run; --threads 1 on a CPU."""
    quick: bool = False
    """Tiny shapes: a check that everything runs."""
    compile: bool = True
    """Measure torch.compile."""
    check: bool = False
    """List missed targets, and exit with code 1 if there are any; also with --table."""
    out: Path | None = None
    """Folder for bench.json and bench.png (needs the extra plot)."""
    table: Path | None = None
    """Do not measure; print this result, a JSON file, as Markdown, and draw bench.png into --out."""
    readme: Path | None = None
    """Write the Markdown between the markers in this file."""


def bench(options: BenchCommand) -> int:
    """Measure, print and write. Needs torch and NumPy only, except for pictures.

    Returns:
        Exit code 0, or 1 if our results are wrong or, with ``check``, miss a target.

    Raises:
        UserError: an option is wrong, ``table`` is damaged, or ``readme`` has no markers.
        ModuleNotFoundError: matplotlib is missing for ``out``; the JSON has been written.
    """
    try:
        check_range(options, "threads", low=1, high=MOST_THREADS)
        check_range(options, "seconds", above=0)
        if options.cpu_time and (options.threads > 1 or options.device != "cpu"):
            raise ValueError("cpu-time: expected one thread on the CPU")
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if options.table is not None:
        result = read(options.table)
        print(readme.markdown(result), end="")
    else:
        if options.readme is not None and not options.readme.is_file():
            raise UserError(f"--readme: no such file: {options.readme}")
        if options.out is not None:
            check_writable(options.out / "bench.json")
        result = run(options)
        report.show(result)
    falling_short = list(speed_targets.shortfalls(result)) if options.check else []
    for line in falling_short:
        print(f"target missed: {line}")
    if options.check and not falling_short:
        print("all targets are met" + (f" (of {', '.join(result['ops'])})" if result["ops"] else ""))
    if options.readme is not None:
        readme.replace_table(options.readme, result)
    if options.out is not None:
        (write if options.table is None else draw)(result, options.out)
    return 1 if falling_short or any(speed_targets.wrong(result)) else 0


def read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"--table: no such file: {path}")
    try:
        result = read_object(path)
        readme.markdown(result)
        speed_targets.shortfalls(result)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"--table: {path} is not a result of this command: {error!r}") from None
    return result


def write(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "bench.json", as_json(result).encode())
    draw(result, folder)
    print(f"written to {folder}/bench.json and bench.png")


def draw(result: dict[str, Any], folder: Path) -> None:
    from automl_ext.bench.reports import chart

    check_writable(folder / "bench.png")
    chart.draw(result, folder / "bench.png")


def as_json(result: dict[str, Any]) -> str:
    """Convert a result to JSON with one line per fact and per row, so that two results can be compared as text."""
    facts = []
    for key, value in result.items():
        rows = ",\n  ".join(json.dumps(row) for row in value) if key in ("rows", "scaling") else None
        facts.append(f"{json.dumps(key)}: " + (json.dumps(value) if not rows else f"[\n  {rows}\n ]"))
    return "{\n " + ",\n ".join(facts) + "\n}\n"


def show_progress(row: dict[str, Any]) -> None:
    print(f"{row['op']} {row['shape']} {row['dtype']} {row['pass']}", file=sys.stderr, flush=True)


def run(options: BenchCommand, on_row: Callable[[dict[str, Any]], None] = show_progress) -> dict[str, Any]:
    """Return the result; ``on_row`` gets each row when it has been measured."""
    device = choose_device(options.device)
    warm_allocator()
    modules, skipped = peers.load()
    threads_before = torch.get_num_threads()
    clock = time.thread_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(options.threads)
    shapes = QUICK_SHAPES if options.quick else CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES
    dtypes = options.dtype or (["float32", "bfloat16"] if device.type == "cuda" else ["float32"])

    def build(wanted: Sequence[torch.dtype]) -> list[Case]:
        return chosen(cases(str(device), shapes, wanted, modules), options.ops)

    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "device_type": device.type,
        "threads": options.threads,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,  # before the first row
        "versions": {"automl_ext": __version__, "torch": torch.__version__, **peers.versions(modules)},
        "build_info": build_info(),
        "ops": list(options.ops),  # empty: all
        "seconds_per_row": options.seconds,
        "clock": "the thread's CPU time" if options.cpu_time else "wall",
        "allocator": f"freed memory is kept; allocator warmed: {4 * WARM_UP_ELEMENTS // 10**6} MB allocated and freed",
        "skipped": skipped,
        "rows": [],
        "scaling": [],
    }
    try:
        for case in build([DTYPES[name] for name in dtypes]):
            for row in measure(case, device, options.seconds, options.compile, clock):
                result["rows"].append(row)
                on_row(row)
        if device.type == "cpu" and not options.quick and not options.cpu_time:
            result["scaling"] += scaling(build, options.seconds, result["cores"])
    except KeyboardInterrupt:
        print("interrupted: the rows measured so far follow", file=sys.stderr)
    finally:
        torch.set_num_threads(threads_before)
    return result


def chosen(todo: list[Case], ops: Sequence[str]) -> list[Case]:
    names = list(dict.fromkeys(case.op for case in todo))
    for op in ops:
        if op not in names:
            raise UserError(f"--ops: expected some of {', '.join(names)}, got {op!r}")
    return [case for case in todo if not ops or case.op in ops]
