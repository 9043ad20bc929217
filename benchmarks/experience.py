"""Judge portfolios and samplers on the data sets of ``benchmarks/tabular.py``.

    python benchmarks/experience.py table        # evaluate random points of both learners on all data sets
    python benchmarks/experience.py tpe          # add runs of TPE, ten trials on every data set
    python benchmarks/experience.py judge        # from the table: portfolio, random search and TPE at 10 trials
    python benchmarks/experience.py samplers     # random, TPE, GP, CMA-ES and experience at 50 trials, live
    python benchmarks/experience.py portfolios   # from the table: the portfolios that the package contains

Each part writes its file in ``benchmarks/results/``. ``table``, ``tpe`` and ``samplers`` continue where they were
stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PARTS = Path(__file__).with_name("tabular_parts")
sys.path.insert(0, str(PARTS))
import clock  # noqa: E402
from data_sets import SETS, load  # noqa: E402
from judging import judge, summary  # noqa: E402
from learners import SPACES  # noqa: E402
from objective import DEADLINE, Objective, random_points  # noqa: E402
from portfolios import SIZE, past_studies  # noqa: E402
from sampler_runs import compared, run_samplers, sampler_summary  # noqa: E402
from tabular import libraries  # noqa: E402
from tpe_runs import add_tpe  # noqa: E402

from automl_ext.training.machine.environment import cpu_name  # noqa: E402
from automl_ext.tune.portfolio import FOLDER, file_name  # noqa: E402
from automl_ext.tune.portfolio_building import build_portfolio  # noqa: E402

RESULTS = Path(__file__).with_name("results")
POINTS = 40  # per learner: the defaults and 39 random points
ROWS = 4000  # most rows of a data set: three quarters to train on, one quarter to validate


def build_table(path: Path, names: Sequence[str], learners: Sequence[str]) -> None:
    """Evaluate the points of learners on data sets; finished pairs of both are in the file and are not repeated."""
    table = json.loads(path.read_text()) if path.is_file() else {}
    table |= {
        "command": "python benchmarks/experience.py table",
        "machine": f"1 thread of {cpu_name()}",
        "libraries": libraries(),
        "rows": ROWS,
        "seconds_limit": DEADLINE,
        "points": table.get("points") or {learner: random_points(learner, POINTS, seed=1) for learner in SPACES},
    }
    data_sets = table.setdefault("data_sets", {})
    clock.use_cpu_clock()
    for name in names:
        whole = load(name, seed=0)
        data = data_sets.setdefault(name, {"metric": whole.metric, "losses": {}})
        for learner in learners:
            if learner in data["losses"]:
                continue
            objective, started = Objective(name, ROWS), time.process_time()
            losses = [float(f"{objective(learner, point):.6g}") for point in table["points"][learner]]
            data["losses"][learner] = losses
            write_table(path, table)
            print(f"{name} {learner}: {time.process_time() - started:.0f} CPU seconds, best {min(losses)}", flush=True)


def add_runs(path: Path, learners: Sequence[str]) -> None:
    """Add runs of TPE on the data sets in the table."""
    table = json.loads(path.read_text())
    clock.use_cpu_clock()
    for line in add_tpe(table, learners, ROWS):
        write_table(path, table)
        print(f"{line}, {time.process_time():.0f} CPU seconds so far", flush=True)


def write_table(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table).replace('"data_sets"', '\n"data_sets"').replace("}}, ", "}},\n") + "\n")


def write_portfolios(table: dict[str, Any], folder: Path) -> None:
    """Write the portfolio of each learner, built from all data sets."""
    for learner in table["points"]:
        studies = past_studies(table, learner)
        source = f"benchmarks/results/experience_table.json, {len(studies)} data sets"
        built = build_portfolio(studies, SIZE, source)
        path = folder / file_name(built.command)
        path.write_text(json.dumps(built.as_dict(), indent=1) + "\n")
        print(f"{path}: {len(built.points)} points from {len(studies)} data sets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["table", "tpe", "judge", "samplers", "portfolios"])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), metavar="SET")
    parser.add_argument("--learners", nargs="+", choices=list(SPACES), default=list(SPACES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", type=Path, default=RESULTS / "experience_table.json", help="file of the table")
    args = parser.parse_args()
    path = args.table
    if args.part == "table":
        build_table(path, args.sets or list(SETS), args.learners)
    elif args.part == "tpe":
        add_runs(path, args.learners)
    elif args.part == "portfolios":
        write_portfolios(json.loads(path.read_text()), FOLDER)
    elif args.part == "judge":
        content = judge(json.loads(path.read_text()))
        (RESULTS / "experience.json").write_text(json.dumps(content).replace('{"set"', '\n{"set"') + "\n")
        print(summary(content))
    else:
        names = args.sets or ["churn", "credit", "deliveries", "star"]
        run_samplers(RESULTS / "samplers.json", json.loads(path.read_text()), names, args.seeds)
        rows = compared(json.loads((RESULTS / "samplers.json").read_text()))
        (RESULTS / "samplers_summary.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
        print(sampler_summary(rows))


if __name__ == "__main__":
    main()
