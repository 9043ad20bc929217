"""Train the toy agent in a process, kill it with SIGKILL at random times and resume: ``rl_killed.py FOLDER KILLS``.

The run in FOLDER/whole is not killed. The runs are forked after the imports, so that a start takes milliseconds.
"""

import contextlib
import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from rl_worlds import Toy, ToyConfig

from automl_ext.rl.loop import loop

with contextlib.suppress(ImportError):
    importlib.import_module("torch.utils.tensorboard")

CONFIG = ToyConfig(total_steps=600, checkpoint_every=30)


def start(out: Path) -> int:
    pid = os.fork()
    if not pid:
        loop.train(Toy, CONFIG, out, resume="auto")
        os._exit(0)
    return pid


def main(folder: Path, kills: int) -> None:
    began = time.perf_counter()
    assert os.waitpid(start(folder / "whole"), 0)[1] == 0
    whole = time.perf_counter() - began
    rng = random.Random(0)
    done = 0
    while done < kills:
        pid = start(folder / "killed")
        time.sleep(rng.uniform(0.1, 0.7) * whole)
        os.kill(pid, signal.SIGKILL)
        done += os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert os.waitpid(start(folder / "killed"), 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
