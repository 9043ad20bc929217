"""What to run first on a machine with a GPU, in this order; the files in OUT grow while it runs.

    python tools/cuda_day.py OUT                       all parts
    python tools/cuda_day.py OUT device import once    some parts; OUT is extended
    python tools/cuda_day.py OUT --objects FOLDER      with libraries built elsewhere: a folder or tar that has
                                                       automl_ext's *.so files and _build.py

The environment needs torch, NumPy, pytest, pytest-xdist and pytest-timeout. Without --objects and without a CUDA build
in automl_ext/, the library is built first, with nvcc, which takes minutes, and many minutes without ninja.

OUT/rows.jsonl has a JSON line per measurement and per part, OUT/logs.tar the output of each process that has ended.
Each part has a time limit; one that fails or hangs ends alone, but nothing runs without a device or a library. The exit
code is 1 if a part failed. AUTOML_EXT_TEST_GPU=cpu rehearses all this on the CPU, with small shapes and few tests.

This file imports only the standard library; tools/cuda_parts.py has what needs torch.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REHEARSAL = os.environ.get("AUTOML_EXT_TEST_GPU") == "cpu"
LIBRARY = ("*.so", "_build.py")  # of automl_ext/
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
SANITIZED_SECONDS = 120
LARGE = "python_tests/cuda/test_cuda_large.py"
AT_ONCE = 8  # processes of single ops
TO_END = 10  # seconds between an interrupt and the end of a process
LIMITS = 5 if REHEARSAL else 1  # times the limits of processes: a rehearsal may share its cores
RESULT = re.compile(r"^\[gw\d+\] (?:\[ *\d+%\] )?(PASSED|FAILED|ERROR|SKIPPED) (.+?) *$", re.MULTILINE)
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python_tests/helpers")]),
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTEST_ADDOPTS": "",
}
# Each prints what it found, as JSON in one line.
DEVICE = """
import json, sys, torch
facts = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}
if not REHEARSAL:
    found = torch.cuda.get_device_properties(0)
    facts |= {"device": found.name, "capability": [found.major, found.minor], "count": torch.cuda.device_count()}
    facts |= {"multiprocessors": found.multi_processor_count, "memory": found.total_memory, "l2": found.L2_cache_size}
assert torch.ones(1000, device="cpu" if REHEARSAL else "cuda").sum().item() == 1000
print(json.dumps(facts))
"""
IMPORT = """
import json, sys, automl_ext
facts = automl_ext.build_info()
print(json.dumps(facts))
sys.exit(not (REHEARSAL or facts.get("cuda")))
"""


class Day:
    """The results in a folder, and the processes that write them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.lock = threading.Lock()
        out.mkdir(parents=True, exist_ok=True)

    def record(self, row: dict[str, object]) -> None:
        with self.lock, (self.out / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row | ({"rehearsal": True} if REHEARSAL else {})) + "\n")

    def rows(self, part: str) -> list[dict]:
        path = self.out / "rows.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [row for row in map(json.loads, lines) if row["part"] == part]

    def run(self, name: str, command: list[object], limit: float, **environment: str) -> tuple[str, str]:
        """Run a command and put its output into the tar of logs. At its limit, it is interrupted, then killed.

        Returns:
            "passed", "exit status N" or "out of time"; the output.
        """
        log = self.out / f"{name}.log"
        with log.open("wb") as file, ended(self.start(command, file, environment)) as process:
            try:
                code = process.wait(LIMITS * limit)
                status = "passed" if code == 0 else f"exit status {code}"
            except subprocess.TimeoutExpired:
                status = "out of time"
        text = log.read_text(errors="replace")
        with self.lock:
            with tarfile.open(self.out / "logs.tar", "a") as tar:
                tar.add(log, log.name)
            log.unlink()
        return status, text

    @staticmethod
    def start(command: list[object], file: object, environment: dict[str, str]) -> subprocess.Popen:
        return subprocess.Popen(
            [str(word) for word in command],
            stdout=file,  # type: ignore[arg-type]
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | environment,
            start_new_session=True,  # its own process group: children end with it
        )

    def part(self, name: str, *arguments: object) -> list[object]:
        """Return the command of a part of cuda_parts.py."""
        return [sys.executable, ROOT / "tools/cuda_parts.py", name, self.out / "rows.jsonl", *arguments]

    def report(self, part: str, status: str, text: str = "", **facts: object) -> bool:
        """Record the end of a part and print it, with the end of the output. Returns whether it passed."""
        self.record({"part": part, "status": status} | facts)
        lines = text.rstrip().splitlines()
        print(*lines[-3 if status == "passed" else -20 :], f"== {part}: {status}", sep="\n", flush=True)
        return status == "passed"


@contextlib.contextmanager
def ended(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """Interrupt the process group at the end of the block if the process still runs; kill what is left of it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(TO_END)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def facts(name: str, code: str) -> Callable[[Day], bool]:
    """Return a part that runs code and records what it prints."""

    def part(day: Day) -> bool:
        status, text = day.run(name, [sys.executable, "-c", f"REHEARSAL = {REHEARSAL}\n{code}"], 120)
        found = [line for line in text.splitlines() if line.startswith("{")] if status == "passed" else ["{}"]
        return day.report(name, status, text, **json.loads(found[-1]))

    return part


def bench(day: Day) -> bool:
    return day.report("bench", *day.run("bench", day.part("bench"), 420))


def once(day: Day) -> bool:
    """Run each op once, forward and backward, in a process of its own."""
    status, text = day.run("once-names", day.part("names"), 60)
    if status != "passed":
        return day.report("once", status, text)

    def one(name: str) -> str:
        begin = time.perf_counter()
        status, text = day.run(f"once-{name}", day.part("case", name), 60)
        last = text.rstrip().splitlines()[-1:] if status != "passed" else []
        seconds = round(time.perf_counter() - begin, 1)
        day.record({"part": "once", "case": name, "status": status, "seconds": seconds, "last_line": last})
        return "" if status == "passed" else f"{name}: {status}"

    names = text.split()
    with ThreadPoolExecutor(1 if REHEARSAL else AT_ONCE) as pool:
        failed = [line for line in pool.map(one, names) if line]
    return day.report("once", f"{len(failed)} failed" if failed else "passed", "\n".join(failed), cases=len(names))


def times(day: Day) -> bool:
    """Measure all rows. If a process ends early, the row that it was measuring fails, and another measures the rest."""
    before, end = len(day.rows("times")), time.monotonic() + 300
    while True:
        done = len(day.rows("times")) - before
        status, text = day.run(f"times-{done}", day.part("times", done), max(1, end - time.monotonic()))
        started = re.findall(r"^measuring (.*)", text, re.MULTILINE)
        if status == "passed" or status == "out of time" or not started:
            break
        day.record({"part": "times", "row": started[-1], "failed": status})
    failed = [row["row"] for row in day.rows("times")[before:] if "failed" in row]
    return day.report("times", f"failed: {', '.join(failed)}" if failed and status == "passed" else status, text)


def pytest(name: str, limit: float, workers: int, seconds: int, *arguments: str) -> Callable[[Day], bool]:
    """Return a part that runs tests marked cuda. A test that hangs or breaks its context ends its worker."""

    def part(day: Day) -> bool:
        options = ["-v", "-m", "cuda", "-p", "no:cacheprovider", "-p", "fresh_worker", "--max-worker-restart", "100"]
        limits = ["--timeout", seconds, "--timeout-method", "thread", "-n", 2 if REHEARSAL else workers]
        few = ["-k", "33"] if REHEARSAL else []  # tests of rows of 33
        command = [sys.executable, "-m", "pytest", *options, *limits, *few, *arguments]
        status, text = day.run(name, command, limit, OMP_NUM_THREADS="1")
        results = dict((test, result) for result, test in RESULT.findall(text))
        if REHEARSAL and status == "exit status 5":
            status = "passed"  # none of these tests can be rehearsed
        counts = collections.Counter(results.values())
        failed = [test for test, result in results.items() if result in ("FAILED", "ERROR")]
        return day.report(name, status, text, counts=counts, failed=failed)

    return part


def sanitizers(day: Day) -> bool:
    """Run compute-sanitizer's tools beside each other. Without torch's cache, each tensor is its own allocation."""
    found = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
    if found is None and not REHEARSAL:
        return day.report("sanitizers", "no compute-sanitizer found")

    def one(tool: str) -> bool:
        wrapper: list[object] = [found, "--tool", tool, "--launch-timeout", 120, "--error-exitcode", 1]
        wrapper += ["--kernel-name", "kernel_substring=automl_ext"]
        command = day.part("all_cases", time.time() + SANITIZED_SECONDS - 25)  # its summary still fits the limit
        command = command if REHEARSAL else [*wrapper, *command]
        status, text = day.run(tool, command, SANITIZED_SECONDS, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", text)
        ran = re.findall(r"ran (\d+) of (\d+) cases", text)
        return day.report(tool, status, text, summary=summary, ran=ran)

    with ThreadPoolExecutor(1 if REHEARSAL else len(SANITIZERS)) as pool:
        return all(list(pool.map(one, SANITIZERS)))


PARTS: dict[str, Callable[[Day], bool]] = {
    "device": facts("device", DEVICE),
    "import": facts("import", IMPORT),
    "once": once,
    "times": times,
    "tests": pytest("tests", 480, 10, 60, "python_tests/cuda", "python_tests/ops", f"--ignore={LARGE}"),
    "large": pytest("large", 240, 1, 120, LARGE),
    "sanitizers": sanitizers,
    "bench": bench,
}
REQUIRED = ("device", "import")  # without these, the others would only fail


def take_objects(source: Path) -> None:
    """Copy the compiled libraries and _build.py from a folder or a tar to automl_ext/."""
    package = ROOT / "automl_ext"
    if source.is_dir():
        for pattern in LIBRARY:
            for path in source.rglob(pattern):
                shutil.copy(path, package / path.name)
        return
    with tarfile.open(source) as tar:
        for member in tar.getmembers():
            name = Path(member.name).name
            if member.isfile() and any(Path(name).match(pattern) for pattern in LIBRARY):
                with tar.extractfile(member) as data:  # type: ignore[union-attr]
                    (package / name).write_bytes(data.read())


def has_cuda() -> bool:
    facts = ROOT / "automl_ext/_build.py"
    return facts.exists() and runpy.run_path(str(facts))["CUDA_VERSION"] is not None


def build(day: Day) -> bool:
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    return day.report("build", *day.run("build", command, 1800, AUTOML_EXT_CUDA="1"))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="What to run first on a machine with a GPU.")
    parser.add_argument("out", type=lambda text: Path(text).resolve(), help="folder of the results")
    parser.add_argument("parts", nargs="*", help=f"default: all; of {', '.join(PARTS)}")
    parser.add_argument("--objects", type=Path, help="folder or tar with libraries built elsewhere")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    if options.objects is not None and not options.objects.exists():
        parser.error(f"--objects: no such file or folder: {options.objects}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no child is left behind
    day = Day(options.out)
    if options.objects is not None:
        take_objects(options.objects)
    failed: list[str] = []
    if not (REHEARSAL or has_cuda() or build(day)):
        return 1
    for name in options.parts or PARTS:
        begin = time.perf_counter()
        try:
            passed = PARTS[name](day)
        except Exception as error:  # of this script: the other parts still run
            passed = day.report(name, repr(error))
        if not passed:
            failed.append(name)
        day.record({"part": name, "seconds_of_part": round(time.perf_counter() - begin, 1)})
        if name in failed and name in REQUIRED:
            break
    print(f"failed: {', '.join(failed)}" if failed else "all parts passed", f"results: {options.out}", sep="; ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
