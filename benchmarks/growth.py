"""Measure how the time of each family of ops grows with the rows and the columns, beside eager PyTorch and a copy.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/growth.py --json benchmarks/results/growth.json [--only OP ...]
    python benchmarks/growth.py --json benchmarks/results/growth.json --picture docs/images/growth.png

A panel of the picture is one op and one direction; the time per element should fall while the call costs most, and then
be constant. Points above it are listed: those at which our op takes more than 1.5 times what its neighbours' line says.
Series that the file has are not repeated. Contenders take turns, with the same tensors.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from automl_ext.bench.cases.case import FORWARD, TRAINING, Case
from automl_ext.bench.cases.returns import returns_cases
from automl_ext.bench.cases.rows import mixed_cases, row_cases
from automl_ext.bench.measure import measure_pass
from automl_ext.bench.timing import warm_allocator
from automl_ext.training.machine.environment import cpu_name

POWERS = [4**k for k in range(9)]  # 1 to 65,536
STEPS = POWERS[:7]  # eager PyTorch takes a loop
# (op, what grows): the shapes. Rows × columns, inputs × elements, or steps × environments.
SERIES = {
    ("gumbel_softmax", "rows"): [(n, 64) for n in POWERS],
    ("gumbel_softmax", "columns"): [(64, n) for n in POWERS[1:]],
    ("entmax15", "rows"): [(n, 64) for n in POWERS],
    ("entmax15", "columns"): [(64, n) for n in POWERS[1:]],
    ("mixed_op", "inputs"): [(n, 16_384) for n in (1, 2, 4, 8, 16, 32, 64, 128)],
    ("mixed_op", "elements"): [(8, 16 * n) for n in POWERS],
    ("gae", "steps"): [(n, 64) for n in STEPS],
    ("gae", "environments"): [(64, n) for n in POWERS],
    ("lambda_returns", "steps"): [(n, 64) for n in STEPS],
    ("lambda_returns", "environments"): [(64, n) for n in POWERS],
    ("n_step_returns", "steps"): [(n, 64) for n in STEPS],
    ("n_step_returns", "environments"): [(64, n) for n in POWERS],
}
SHOWN = {"ours": "C0", "eager": "C1", "softmax": "C2", "copy": "C3"}
ABOVE = 1.5  # a point this far above the line between its neighbours is listed


def case_of(op: str, shape: tuple[int, ...]) -> Case:
    family = mixed_cases if op == "mixed_op" else row_cases if op in ("gumbel_softmax", "entmax15") else returns_cases
    return next(case for case in family(shape, torch.float32, "cpu", {}) if case.op == op)


def measure(op: str, grows: str, seconds: float) -> list[dict[str, Any]]:
    """Return a row per shape and pass: seconds per call of each contender, the lesser of two rounds.

    Rounds go over the whole series, so that a slow phase of the machine does not make a point stand out.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _, shape in itertools.product(range(2), SERIES[op, grows]):
        case = case_of(op, shape)
        for pass_ in (FORWARD, TRAINING):
            torch.manual_seed(0)
            found = measure_pass(case, pass_, torch.device("cpu"), seconds, compiled=False)
            assert "ours" not in found["wrong"], found
            times = {name: times["median"] for name, times in found["seconds"].items() if name in SHOWN}
            times["copy"] *= found["bytes"] / found["copied_bytes"]
            row = {"op": op, "grows": grows, "shape": list(shape), "pass": pass_, "seconds": times}
            least = rows.setdefault((shape, pass_), row)["seconds"]
            least.update({name: min(time, least[name]) for name, time in times.items()})
    return list(rows.values())


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the file, one line per row."""
    rows = ",\n".join(json.dumps(row) for row in result["rows"])
    path.write_text(f'{{"device": {json.dumps(result["device"])}, "rows": [\n{rows}\n]}}\n')


def series_of(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["op"], row["grows"], row["pass"]), []).append(row)
    return found


def above_line(times: Sequence[float]) -> list[float]:
    """Return the factor by which each inner time is above the straight line, in logarithms, between its neighbours."""
    return [time / math.sqrt(a * b) for a, time, b in zip(times, times[1:], times[2:], strict=False)]


def outliers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line per point at which our op is above the line; where eager PyTorch is too, the machine was slow."""
    lines = []
    for (op, grows, pass_), points in series_of(rows).items():
        ours, eager = (above_line([row["seconds"][name] for row in points]) for name in ("ours", "eager"))
        lines += [
            f"{op} {tuple(row['shape'])} {pass_}, by {grows}: {factor:.2f} times the line, eager PyTorch {other:.2f}"
            for factor, other, row in zip(ours, eager, points[1:-1], strict=True)
            if factor > ABOVE
        ]
    return lines


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the time per element of every series, forward (solid) and with the gradient (dashed)."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row["op"], row["grows"]) for row in rows))
    figure = Figure(figsize=(13, 2.6 * math.ceil(len(panels) / 4)), layout="constrained")
    for at, (op, grows) in enumerate(panels):
        axes = figure.add_subplot(math.ceil(len(panels) / 4), 4, at + 1)
        for pass_, style in ((FORWARD, "-"), (TRAINING, "--")):
            points = [row for row in rows if (row["op"], row["grows"], row["pass"]) == (op, grows, pass_)]
            varying = 1 if grows in ("columns", "elements", "environments") else 0
            sizes = [row["shape"][varying] for row in points]
            for name, color in SHOWN.items():
                if all(name in row["seconds"] for row in points):
                    per_element = [1e9 * row["seconds"][name] / math.prod(row["shape"]) for row in points]
                    label = name if style == "-" else None
                    axes.plot(sizes, per_element, style, color=color, marker=".", label=label, linewidth=1.2)
        fixed = points[0]["shape"][1 - varying]
        axes.set(
            xscale="log",
            yscale="log",
            title=f"{op}, {grows} × {fixed:,}" if not varying else f"{op}, {fixed:,} × {grows}",
        )
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
        if at % 4 == 0:
            axes.set_ylabel("ns per element")
        if at == 0:
            axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=85)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file of the rows; its series are not repeated")
    parser.add_argument("--only", nargs="*", help="ops to measure, if not all")
    parser.add_argument("--seconds", type=float, default=0.05, help="seconds of each contender at each point")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warm_allocator()
    result = json.loads(args.json.read_text()) if args.json.exists() else {"device": cpu_name(), "rows": []}
    for op, grows in SERIES:
        if any((row["op"], row["grows"]) == (op, grows) for row in result["rows"]):
            continue
        if not args.only or op in args.only:
            result["rows"] += measure(op, grows, args.seconds)
            write(args.json, result)
    print("\n".join(outliers(result["rows"])) or "no point lies above the line of its neighbours")
    if args.picture:
        draw(result["rows"], args.picture)


if __name__ == "__main__":
    main()
