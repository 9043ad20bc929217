"""Run ``search auto`` beside one network trained for the same CPU time: the three baselines of ``--baselines``.

    python benchmarks/auto_search.py --name cifar10 --data folder:CIFAR --subset 10000 --minutes 5 --out runs/auto \\
        --json benchmarks/results/auto_search.json
    python benchmarks/auto_search.py --name shapes --minutes 1 ...
    python benchmarks/auto_search.py --name digits --data digits --minutes 0.5 ...

Every row of the JSON is one run with the default options; with --bfloat16, rows in the other dtype do not count. Rows
that are in the file are not repeated, and interrupted runs are resumed; `make docs-tables` makes the table. The images
"shapes" are made here: 600 pictures of circles, squares and triangles. CIFAR is a folder, or a zip file, with one
folder of images per class.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automl_ext.nas.auto.auto import auto
from automl_ext.nas.auto.plan import AutoConfig
from automl_ext.training.machine.environment import cpu_name

KEY = ("name", "seed", "minutes", "subset")


def shapes(count: int = 600, side: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make pictures of circles, squares and triangles of random sizes, places, angles and colors, with noise."""
    rng = np.random.default_rng(seed)
    images, labels = np.empty((count, side, side, 3), np.uint8), np.arange(count) % 3
    y, x = np.mgrid[:side, :side].astype(float)
    for i, label in enumerate(labels):
        radius, angle = rng.uniform(5.5, 10), rng.uniform(0, 2 * np.pi)
        dx, dy = x - rng.uniform(radius, side - radius), y - rng.uniform(radius, side - radius)
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        if label == 0:
            inside = u**2 + v**2 < radius**2
        elif label == 1:
            inside = np.maximum(abs(u), abs(v)) < 0.85 * radius
        else:
            inside = (v > -0.6 * radius) & (1.7 * abs(u) + v < 1.1 * radius)
        ground, color = rng.uniform(0, 170, 3), rng.uniform(85, 255, 3)
        picture = np.where(inside[..., None], color, ground) + rng.normal(0, 25, (side, side, 3))
        images[i] = picture.clip(0, 255)
    return images, labels


def row_of(key: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a finished run."""
    facts = {name: result[name] for name in ("network_name", "genotype", "recipe", "stages", "trajectory", "race")}
    rows = [{k: v for k, v in entry.items() if k != "members"} for entry in result["rows"]]
    return {**key, "processor": cpu_name(), **facts, "rows": rows}


def read_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="name of the data set, for the rows; shapes: made here")
    parser.add_argument("--data", default="digits", help="digits, fashion-mnist:PATH or folder:PATH")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows; its rows are not repeated")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU-minutes of a search, and of each baseline")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--subset", type=int, help="number of images")
    parser.add_argument("--bfloat16", choices=("True", "False"), help="the option of search auto")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = shapes() if args.name == "shapes" else None
    bfloat16 = {"True": True, "False": False}.get(args.bfloat16)
    for seed in args.seeds:
        key = {"name": args.name, "seed": seed, "minutes": args.minutes, "subset": args.subset}
        rows = read_rows(args.json)
        done = [row for row in rows if all(row[name] == key[name] for name in KEY)]
        if any(bfloat16 in (None, row["recipe"].get("bfloat16", False)) for row in done):
            continue
        folder = args.out / f"{args.name}-{args.minutes:g}m-seed-{seed}"
        config = AutoConfig(
            data=args.data,
            subset=args.subset,
            seed=seed,
            device="cpu",
            minutes=args.minutes,
            bfloat16=bfloat16,
            baselines=True,
        )
        result = auto(config, folder, resume="auto", data=data)
        assert result is not None
        rows = sorted([*read_rows(args.json), row_of(key, result)], key=lambda row: [str(row[name]) for name in KEY])
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
