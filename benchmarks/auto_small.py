"""Run ``search auto`` on small image sets that are hard, beside plain networks with two heads, for equal CPU time.

    python benchmarks/auto_small.py --fashion-mnist FOLDER --cifar CIFAR --out runs/small \\
        --json benchmarks/results/auto_small.json
    python benchmarks/auto_small.py --cifar CIFAR --sets cifar10-10000 --minutes 5 --version after ...

Every set has up to 1,200 images for training and validation, and 1,000 others for the test; ``small_images.py`` makes
three of them. A plain network (32, 64 and 128 channels) whose classifier reads averages, and one that reads maxima, are
trained for the whole budget with the recipe that the search found. Rows that are in the file are not repeated, and
interrupted runs are resumed; `make docs-tables` makes the table. The set "cifar10-10000" has no such networks: it
compares two versions of the package, and --version names the one that runs. CIFAR is a folder, or a zip file, with one
folder of images per class.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import small_images
import torch
from auto_search import read_rows, row_of

from automl_ext.data.images import ImageData, draw_stratified, load_images
from automl_ext.nas.auto import auto as auto_module
from automl_ext.nas.auto.auto import auto
from automl_ext.nas.auto.plan import AutoConfig, NetworkSpec

TEST = 1000
MADE = {"objects": 1000, "textures": 600, "counting": 1200}
FILES = {"fashion": 1000, "cifar10": 1000}
LARGE = "cifar10-10000"
PLAIN = [NetworkSpec(f"plain CNN, {head}", "convnet", f"plain-s1-2-2-2{end}", 32) for head, end in
         (("average", ""), ("max", "-max"))]  # fmt: skip
KEY = ("name", "seed", "minutes", "version")


def made(name: str, variant: int = 0) -> ImageData:
    """Make a set and its test images."""
    make = getattr(small_images, name)
    parts = make(MADE[name], 1000 + variant, variant), make(TEST, 2000 + variant, variant)
    arrays = [array for images, labels in parts for array in (images.transpose(0, 3, 1, 2), labels)]
    images, labels, *test = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return ImageData(name, images, labels, tuple("abcdef"), *test)


def read(name: str, spec: str) -> ImageData:
    """Read a set of files; of one without a test part, draw the test images."""
    if name == LARGE:
        return load_images(spec, subset=10_000)
    data = load_images(spec, subset=5 * TEST)
    if data.test_images is not None:
        chosen = draw_stratified(data.labels, FILES[name], torch.Generator().manual_seed(0))
        return ImageData(
            name, data.images[chosen], data.labels[chosen], data.classes, data.test_images, data.test_labels
        )
    drawn = draw_stratified(data.labels, FILES[name] + TEST, torch.Generator().manual_seed(0))
    test = draw_stratified(data.labels[drawn], TEST, torch.Generator().manual_seed(1))
    rest = torch.ones(len(drawn), dtype=torch.bool)
    rest[test] = False
    chosen, test = drawn[rest], drawn[test]
    parts = [part[index] for index in (chosen, test) for part in (data.images, data.labels)]
    return ImageData(name, parts[0], parts[1], data.classes, *parts[2:])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=[*MADE, *FILES], choices=[*MADE, *FILES, LARGE])
    parser.add_argument("--fashion-mnist", help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--cifar", help="folder or zip file with the images of CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run directories")
    parser.add_argument("--json", type=Path, required=True, help="file of the rows; its rows are not repeated")
    parser.add_argument("--minutes", type=float, default=1.5, help="CPU-minutes of a search, and of each plain network")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--variant", type=int, default=0, help="of the made images: 0 was never used to choose anything"
    )
    parser.add_argument("--version", default="", help="of the package, for the rows; default: the present one")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    specs = {"fashion": f"fashion-mnist:{args.fashion_mnist}"}
    for seed in args.seeds:
        for name in args.sets:
            key = {"name": name, "seed": seed, "minutes": args.minutes, "version": args.version}
            if any(all(row[part] == key[part] for part in KEY) for row in read_rows(args.json)):
                continue
            data = made(name, args.variant) if name in MADE else read(name, specs.get(name, f"folder:{args.cifar}"))
            config = AutoConfig(seed=seed, device="cpu", minutes=args.minutes, bfloat16=False, baselines=name != LARGE)
            folder = args.out / "-".join(filter(None, [name, args.version, f"seed-{seed}"]))
            with mock.patch.object(auto_module, "baselines_of", return_value=PLAIN):
                result = auto(config, folder, resume="auto", data=data)
            assert result is not None
            row = row_of(key, result) | {"race_decided": result.get("race_decided")}
            rows = sorted([*read_rows(args.json), row], key=lambda row: [str(row[part]) for part in KEY])
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
