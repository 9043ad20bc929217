"""Plant faults of one place, one at a time, and see whether the tests notice them (mutation testing).

    python tools/mutants.py draw --seed 60 --count 80 --out mutants.jsonl          # of the Python sources
    python tools/mutants.py draw --seed 60 --count 20 --csrc --out kernels.jsonl   # of the portable C++ kernels
    python tools/mutants.py run mutants.jsonl                                      # continues where it stopped
    python tools/mutants.py report mutants.jsonl

``draw`` takes mutants uniformly from all places of ``FOLDERS`` that tools/mutations.py can change. ``run`` works on a
copy of the tree, and appends a line ``{"id": …, "verdict": …}`` for each mutant: noticed, survived, timeout (a test
hangs, which counts as noticed), out of time (counts as survived), or invalid (it does not compile, or ends in an error
of ``INVALID``). The nearest tests (``nearest``) have 120 CPU-seconds in all: first those of the nearest file, also the
slow ones, then those of the others that are not marked slow, then the slow ones. A test that fails without the mutant
too is left out. For an equivalent mutant, append ``{"id": …, "equivalent": "the reason"}`` by hand.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import difflib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from mutations import Change, changes, differs

ROOT = Path(__file__).parents[1]
FOLDERS = (
    *("automl_ext/ops", "automl_ext/tune", "automl_ext/tabular", "automl_ext/training/files"),
    *(f"automl_ext/rl/{name}" for name in ("algorithms", "dreamer", "replay", "envs", "loop")),
    *(f"automl_ext/nas/{name}" for name in ("supernets", "strategies", "estimators", "auto")),
)
SECONDS = 120  # CPU-seconds for the tests of one mutant: the verdict does not depend on the load of the machine
WAITS = 5  # seconds on the clock per CPU-second, at most
HANGS = 60  # seconds on the clock for one test that is not marked slow, and so takes less than two
FILES = 12  # number of test files per mutant
OUT_OF_TIME = (-signal.SIGXCPU, -signal.SIGKILL)
INVALID = r"(?:\w+\.)*(?:NameError|UnboundLocalError|TypeError|ImportError|ModuleNotFoundError|SyntaxError)\b"


def cpp_files(root: Path) -> list[Path]:
    """Return the C++ sources of the portable library."""
    left_out = re.compile("cuda|avx|older_libstdcxx")
    files = (path for ending in ("inc", "cpp", "h") for path in (root / "csrc").rglob(f"*.{ending}"))
    return sorted(path for path in files if not left_out.search(str(path.relative_to(root))))


def draw(root: Path, seed: int, count: int, files: list[Path], out: Path) -> None:
    """Draw mutants uniformly from all changes of the files, and write them to a new file."""
    places = []
    for path in files:
        places += [(path, change) for change in changes(path.read_bytes(), path.suffix)]
    random.Random(seed).shuffle(places)
    places_valid = (pair for pair in places if pair[0].suffix != ".py" or differs(pair[0].read_bytes(), pair[1]))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()
    with out.open("x") as lines:
        print(json.dumps({"seed": seed, "places": len(places), "commit": commit}), file=lines)
        for number, (path, change) in zip(range(count), places_valid, strict=False):
            source = path.read_bytes()
            first, last = source.rfind(b"\n", 0, change.start) + 1, source.find(b"\n", change.end)
            record = {
                "id": number,
                "file": str(path.relative_to(root)),
                "line": source.count(b"\n", 0, change.start) + 1,
                "operator": change.operator,
                "start": change.start,
                "old": source[change.start : change.end].decode(),
                "new": change.new.decode(),
                "before": source[first:last].decode(),
                "after": (source[first : change.start] + change.new + source[change.end : last]).decode(),
            }
            print(json.dumps(record, ensure_ascii=False), file=lines)


def read(path: Path) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Return the first line, and by number the mutants, each with the fields of all its lines."""
    header, *lines = map(json.loads, path.read_text().splitlines())
    mutants: dict[int, dict[str, Any]] = {}
    for line in lines:
        mutants.setdefault(line["id"], {}).update(line)
    return header, mutants


def nearest(root: Path, file: str) -> list[str]:
    """Return the test files nearest to a source file, nearest first.

    These are the tests of the same part (python_tests/rl), and those that import the module. Points: 4 if a test is
    named after the module (test_ppo.py), and 2 for each word of the module's name in its own; 3 if it imports the
    module; 2 if it lies in the mirrored folder (python_tests/rl/algorithms); 1 for each public name of the module, and
    each word of its name, that it mentions, at most 3.
    """
    path, tests = Path(file), root / "python_tests"
    stem, folder = path.stem.lstrip("_"), path.parent.parts[1:]
    words, names, imports = set(stem.split("_")), set[str](), "(?!)"
    if path.suffix == ".py":
        definitions = (ast.FunctionDef, ast.ClassDef)
        names = {node.name for node in ast.parse((root / file).read_bytes()).body if isinstance(node, definitions)}
        package = re.escape(".".join(path.parent.parts))
        imports = rf"\b{package}\.{path.stem}\b|from {package} import .*\b{path.stem}\b"
    else:
        family = (
            {"bisect": "entmax", "mixed_op": "mixed", "targets": "returns"}.get(folder[0], folder[0]) if folder else ""
        )
        words |= {family, "conformance", "backward", "native"}
        folder = ("rl", "replay") if family == "replay" else ("ops", family)
    points = dict[str, int]()
    for test in sorted(tests.rglob("test_*.py")):
        text, parts = test.read_text(), test.relative_to(tests).parts
        imported = bool(re.search(imports, text))
        if imported or parts[0] == (folder or parts)[0]:
            name, mentioned = test.stem.removeprefix("test_"), (names | words) & set(re.findall(r"\w+", text))
            near = 4 * (name == stem) + 2 * len(words & set(name.split("_"))) + 3 * imported
            points[str(test.relative_to(root))] = near + 2 * (parts[:-1] == folder) + min(3, len(mentioned))
    return sorted(points, key=lambda test: -points[test])[:FILES]


def copy_tree(root: Path, to: Path) -> None:
    """Copy the files that git knows, as they are now, and the compiled libraries."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    libraries = [path for path in root.glob("*/*") if path.name.endswith(tuple(EXTENSION_SUFFIXES))]
    for path in {*map(root.joinpath, listed.split("\0")[:-1]), *libraries, *root.glob("*/_build.py")}:
        if path.exists():
            (to / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to / path.relative_to(root))


def call(command: list[str], copy: Path, seconds: int, **variables: str) -> tuple[int, str]:
    """Run a command in the copy: its exit code, one of OUT_OF_TIME if the CPU-seconds were not enough, and its output.

    Its child processes end with it.
    """
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "500", **os.environ, **variables}
    environment["PYTHONPATH"] = str(copy)  # before an editable installation of the checkout
    command = ["sh", "-c", f'ulimit -t {seconds}; exec "$@"', "sh", *command]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            command, cwd=copy, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WAITS * seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        return process.returncode, out.read()


def cpu_seconds() -> float:
    """Return the CPU-seconds of the commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def pytest(copy: Path, seconds: float, *arguments: str, hangs: int = HANGS) -> tuple[int, str]:
    """Run pytest in the copy until a test fails, or hangs."""
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)  # no failing example of the mutant before
    options = ["-x", "-v", "-p", "no:cacheprovider", f"--basetemp={copy}-temp"]
    options += ["-o", f"faulthandler_timeout={hangs}", "-o", "faulthandler_exit_on_timeout=true"]
    return call([sys.executable, "-m", "pytest", *options, *arguments], copy, math.ceil(seconds))


def failure(code: int, output: str) -> tuple[str, str, str] | None:
    """Return verdict, test and error of a run of pytest in which a test failed, hung or crashed."""
    if code in (0, 5, *OUT_OF_TIME):  # passed, no test selected
        return None
    summary = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - (.*))?$", output, re.MULTILINE)
    if not summary:
        started = re.findall(r"^(python_tests/.+?)(?: Timeout| Fatal Python|$)", output, re.MULTILINE)
        hangs, test = "Timeout (" in output, started[-1].strip() if started else ""
        return ("timeout", test, f"more than {HANGS} s") if hangs else ("noticed", test, output[-300:])
    test, error = summary[1], summary[2] or ""
    # In the test itself, or at the end of a traceback that a command has printed.
    invalid = re.match(INVALID, error) or re.search(f"^{INVALID}: ", output, re.MULTILINE)
    return "invalid" if invalid else "noticed", test, error[:300]


BUILD = {"AUTOML_EXT_CUDA": "0", "AUTOML_EXT_CXXFLAGS": "-O1 -DAUTOML_EXT_PORTABLE", "MAX_JOBS": "1"}


def libraries(copy: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in copy.glob("*/*") if path.name.endswith(tuple(EXTENSION_SUFFIXES))}


def build(copy: Path) -> tuple[int, str]:
    return call([sys.executable, "setup.py", "build_ext", "--inplace"], copy, 3600, **BUILD)


@contextlib.contextmanager
def planted(copy: Path, mutant: dict[str, Any]) -> Iterator[str]:
    """Change the source in the copy, build if it is C++, and restore both; yield why the mutant is invalid, or ""."""
    path = copy / mutant["file"]
    source, before = path.read_bytes(), libraries(copy)
    old = mutant["old"].encode()
    change = Change("", mutant["start"], mutant["start"] + len(old), mutant["new"].encode())
    reason = "" if source[change.start : change.end] == old else "the source has changed since the draw"
    try:
        write(path, source if reason else change.apply(source))
        if path.suffix != ".py" and not reason:
            code, output = build(copy)
            same = libraries(copy) == before
            reason = f"it does not compile: {output[-300:]}" if code else "the library is the same" if same else ""
        yield reason
    finally:
        write(path, source)
        for library, content in before.items():
            library.write_bytes(content)


def write(path: Path, content: bytes) -> None:
    """Write a source and forget its byte code, whose date has whole seconds only."""
    path.write_bytes(content)
    for cached in path.parent.glob(f"__pycache__/{path.stem}.*"):
        cached.unlink()


def judge(copy: Path, mutant: dict[str, Any], sound: dict[str, bool]) -> dict[str, Any]:
    """Return the verdict on one mutant.

    Args:
        copy: the tree to change.
        mutant: a line of ``draw``.
        sound: whether a test passes without a mutant, for those tried; extended here.
    """
    files, left = nearest(copy, mutant["file"]), float(SECONDS)
    rounds = [(mark, chosen) for chosen in (files[:1], files[1:]) for mark in ("not slow", "slow")]
    for mark, tests in rounds:
        if mark == "slow":
            tests = [file for file in tests if "mark.slow" in (copy / file).read_text()]
        while tests:
            if left < 1:
                return {"verdict": "out of time", "tests": tests}
            unsound = [f"--deselect={test}" for test in sound if not sound[test]]
            tests = [test for test in tests if sound.get(test, True)]
            with planted(copy, mutant) as reason:
                if reason:
                    return {"verdict": "invalid", "error": reason}
                start = cpu_seconds()
                hangs = HANGS if mark == "not slow" else 0
                code, output = pytest(copy, left, "-m", mark, *unsound, *tests, hangs=hangs)
            left -= cpu_seconds() - start
            found = failure(code, output)
            if code in OUT_OF_TIME:
                return {"verdict": "out of time", "tests": tests}
            if not found:
                break
            verdict, test, error = found
            if test and test not in sound and verdict != "invalid":
                sound[test] = pytest(copy, SECONDS, test)[0] == 0
            if sound.get(test, True):
                return {"verdict": verdict, "test": test, "error": error}
    return {"verdict": "survived", "tests": files}


def run(root: Path, file: Path) -> None:
    """Judge the mutants that have no verdict yet, and append each verdict to the file."""
    sound: dict[str, bool] = {}
    waiting = [mutant for mutant in read(file)[1].values() if "verdict" not in mutant]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder, "tree")
        copy_tree(root, copy)
        if any(not mutant["file"].endswith(".py") for mutant in waiting):
            code, output = build(copy)
            if code:
                sys.exit(f"the portable library does not compile: {output[-2000:]}")
        for mutant in waiting:
            start = cpu_seconds()
            verdict = {"id": mutant["id"], **judge(copy, mutant, sound), "cpu": round(cpu_seconds() - start)}
            with file.open("a") as lines:
                print(json.dumps(verdict, ensure_ascii=False), file=lines)
            print(mutant["id"], mutant["file"], mutant["line"], mutant["operator"], verdict["verdict"], flush=True)


def counts(file: Path) -> dict[str, Any]:
    """Return the numbers of mutants by verdict. Out of time counts as survived, a timeout of a test as noticed."""
    header, mutants = read(file)
    verdicts = collections.Counter(mutant.get("verdict", "not run") for mutant in mutants.values())
    found = {name: header[name] for name in ("seed", "places", "commit")} | {"drawn": len(mutants)}
    found |= {"invalid": verdicts["invalid"], "noticed": verdicts["noticed"] + verdicts["timeout"]}
    equivalent = sum("equivalent" in mutant for mutant in mutants.values())
    survived = verdicts["survived"] + verdicts["out of time"] - equivalent
    return found | {"equivalent": equivalent, "survived": survived, "not run": verdicts["not run"]}


def report(file: Path) -> str:
    """Return the counts, and the mutants that survived, with what they change."""
    mutants, found = read(file)[1], counts(file)
    survivors = [mutant for mutant in mutants.values() if mutant.get("verdict") in ("survived", "out of time")]
    lines = [f"{name}: {value}" for name, value in found.items()]
    if judged := found["noticed"] + found["survived"]:
        lines += [f"noticed of those not equivalent: {found['noticed']} of {judged} ({found['noticed'] / judged:.0%})"]
    for mutant in survivors:
        remark = f", equivalent: {mutant['equivalent']}" if mutant.get("equivalent") else ""
        place = f"{mutant['file']}:{mutant['line']}"
        lines += ["", f"{mutant['id']}: {place} {mutant['operator']}, {mutant['verdict']}{remark}"]
        texts = (mutant[name].splitlines() for name in ("before", "after"))
        lines += [line for line in difflib.ndiff(*texts) if not line.startswith("?")]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="draw mutants")
    drawing.add_argument("--seed", type=int, required=True)
    drawing.add_argument("--count", type=int, default=80)
    drawing.add_argument("--csrc", action="store_true", help="of the portable C++ kernels, not of Python")
    drawing.add_argument("--out", type=Path, required=True)
    for name, text in (("run", "run the tests on each mutant"), ("report", "counts and survivors")):
        commands.add_parser(name, help=text).add_argument("file", type=Path)
    commands.choices["report"].add_argument("--out", type=Path, help="add the counts to this JSON file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # remove the copy
    if options.command == "draw":
        python = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
        draw(ROOT, options.seed, options.count, cpp_files(ROOT) if options.csrc else python, options.out)
    elif options.command == "run":
        run(ROOT, options.file)
    else:
        print(report(options.file))
        if options.out:
            rows = json.loads(options.out.read_text()) if options.out.exists() else []
            rows.append(counts(options.file))
            options.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
