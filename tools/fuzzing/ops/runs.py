"""Make op calls in a forked child. Each is logged before it is made, so that a crash or a hang names its call."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fuzzing.case import Finding, rng_of
from fuzzing.process import PAGE, end_group, poll

LIMIT = 120.0  # seconds for one call, which normally takes milliseconds
MEMORY = 4 << 30


def one(seed: int, index: int) -> Finding:
    """Make call ``index`` in this process."""
    from fuzzing.ops import calls as op_calls
    from fuzzing.ops import check as op_check

    rng = rng_of(seed, "ops", index)
    return op_check.check(op_calls.call(rng), with_gradient=rng.random() < 0.4)


def many(seed: int, indices: list[int]) -> Iterator[tuple[int, Finding]]:
    """Make the calls in child processes. If a call ends its child, a new child continues after that call."""
    while indices:
        ended = 0
        for index, finding in _in_child(seed, indices):
            ended += 1
            yield index, finding
        indices = indices[ended:]


def _in_child(seed: int, indices: list[int]) -> Iterator[tuple[int, Finding]]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _child(seed, indices, writing)
    os.close(writing)
    running: int | None = indices[0]
    data, timed_out = b"", False
    try:
        while True:
            if not select.select([reading], [], [], LIMIT)[0]:
                timed_out = True
                break
            block = os.read(reading, 1 << 16)
            if not block:
                break
            *lines, data = (data + block).split(b"\n")
            for line in lines:
                message = json.loads(line)
                running = message["index"]
                if "finding" in message:
                    yield message["index"], Finding(**message["finding"])
                    running = None
    finally:
        os.close(reading)
        status = poll(pid, 0.0 if timed_out else 10.0)
        if status is None:
            end_group(pid)
            _, status = os.waitpid(pid, 0)
    if running is None:
        return
    if timed_out:
        yield running, Finding("see --only", "hang", "hang: an op call does not end")
    else:
        name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
        yield running, Finding("see --only", "crash", f"crash: {name} in an op call")


def _child(seed: int, indices: list[int], writing: int) -> None:
    try:
        os.setpgid(0, 0)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        with os.fdopen(writing, "wb") as file:
            for index in indices:
                _write(file, {"index": index})  # first, because the call may end this process
                _write(file, {"index": index, "finding": dataclasses.asdict(one(seed, index))})
        os._exit(0)
    except BaseException:
        traceback.print_exc()  # a fault of this tool
    finally:
        os._exit(1)


def _write(file: IO[bytes], message: dict[str, Any]) -> None:
    file.write(json.dumps(message).encode() + b"\n")
    file.flush()
