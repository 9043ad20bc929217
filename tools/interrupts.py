"""Check that Ctrl-C ends a command at any moment: with exit code 130 or by the signal, without a traceback.

    python tools/interrupts.py --moments 300

Commands are started as a terminal starts them, and interrupted at random moments: imports, parsing, training, the end.
Half of the interrupts go to all processes of the command, as those of a terminal do, the others to the first process.
A moment is the CPU time that the first process has used, which is the time since its start on an idle machine.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fuzzing.process import group_ends

FIRST, LAST = 0.05, 3.0  # CPU seconds until the interrupt
WAITS = 20.0  # seconds after which it is sent in any case, for commands that wait for their workers
LIMIT = 60.0  # seconds within which all processes of a command must end
ENDED = "ended before the interrupt"
SCRIPT = str(Path(sys.executable).with_name("automl-ext"))
COMMANDS = (
    "train a2c --total-steps 1000000",
    "train a3c --total-steps 1000000",
    "train dqn --total-steps 1000000",
    "train a2c --total-steps 1000000 --n-envs 2 --vectorization async",
    "train a2c --total-steps 1000000 --seeds 0:2 --seed-workers 2",
    "search gdas --epochs 1000",
    "search rea --evaluations 1000",
    "tune train a2c --trials 1000",
    "fit table.csv --target y",
    "doctor",
    "demo",
)


def interrupted(command: str, moment: float, group: bool, folder: Path) -> tuple[str, bool]:
    """Run a command and interrupt it.

    Args:
        command: the arguments of ``automl-ext``.
        moment: CPU seconds of the first process after which it is interrupted.
        group: interrupt all processes of the command, not only the first one.
        folder: the current directory of the command.

    Returns:
        How it ended, and whether that is right.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [SCRIPT, *command.split()],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's & ignores it
        )
        end = time.monotonic() + WAITS
        while process.poll() is None and time.monotonic() < end and cpu_seconds(process.pid) < moment:
            time.sleep(0.001)
        early = process.poll() is not None
        if not early:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        left = not group_ends(process.pid, LIMIT)
        process.wait()
        output.seek(0)
        text = output.read()
    if "Traceback" in text or "Exception ignored" in text:
        return f"exit code {code} with a traceback: {text[-1500:]}", False
    if left:
        return f"exit code {code}, processes are left", False
    if code == -signal.SIGINT:
        return "killed by SIGINT", True
    if early:
        return ENDED, code == 0
    return f"exit code {code}" + (f": {text[-500:]}" if code != 130 else ""), code == 130


def cpu_seconds(process: int) -> float:
    """Return the CPU time that a process has used; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Interrupt commands at random moments. Return 1 if one did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moments", type=int, default=len(COMMANDS), help="number of interrupts of running commands")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--commands", nargs="+", default=COMMANDS, help="the commands, each as one argument")
    options = parser.parse_args(argv)
    rng = random.Random(options.seed)
    ends: collections.Counter[str] = collections.Counter()
    faults = number = 0
    while number - ends[ENDED] < options.moments:
        command = options.commands[number % len(options.commands)]
        number += 1
        moment, group = rng.uniform(FIRST, LAST), rng.random() < 0.5
        with tempfile.TemporaryDirectory() as name:
            Path(name, "table.csv").write_text("x,y\n" + "".join(f"{i * i % 17},{i % 2}\n" for i in range(200)))
            end, right = interrupted(command, moment, group, Path(name))
        ends[end if right else "fault"] += 1
        print(f"\r{number - ends[ENDED]} of {options.moments}", end="", file=sys.stderr, flush=True)
        if not right:
            faults += 1
            to = "all processes" if group else "the first process"
            print(f"{command}, SIGINT to {to} after {moment:.2f} s: {end}", flush=True)
    print(file=sys.stderr)
    print(", ".join(f"{count} × {end}" for end, count in ends.most_common()))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
