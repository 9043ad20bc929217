"""Plant faults, one at a time, and see whether the tests notice them (mutation testing).

    python tools/mutants.py draw --seed 74 --count 100 --out mutants.jsonl         # of the Python sources
    python tools/mutants.py draw --seed 75 --count 30 --csrc --out kernels.jsonl   # of the portable C++ kernels
    python tools/mutants.py draw --seed 76 --count 50 --mends --out mends.jsonl    # faults that a commit has mended
    python tools/mutants.py run mutants.jsonl                                      # continues where it stopped
    python tools/mutants.py run mutants.jsonl --again   # those that were noticed: are they still, with today's tests?
    python tools/mutants.py report mutants.jsonl

``draw`` takes faults uniformly: of all places that tools/mutations.py can change, or of the commits that changed one
source file and a test, and whose change of the source can still be taken back. A fault is kept as text: the lines as
they stand, and what replaces them; so it can be planted in a later version.

``run`` works on a copy of the tree, and appends a line ``{"id": …, "verdict": …}`` for each fault: noticed, survived,
timeout (a test hangs, which counts as noticed), out of time (counts as survived), gone (the lines have changed), or
invalid (it does not compile, or ends in an error of ``INVALID``). The tests are those of ``make test``: the nearest
files (``nearest``), which have 120 CPU-seconds in all. A test that fails without the fault too is left out. For an
equivalent mutant, append ``{"id": …, "equivalent": "the reason"}`` by hand.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import difflib
import functools
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
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from mutations import changes, differs

ROOT = Path(__file__).parents[1]
PACKAGES = ("automl_ext", "automl_ext_cli")
SECONDS = 120  # CPU-seconds for the tests of one mutant: the verdict does not depend on the load of the machine
WAITS = 5  # seconds on the clock per CPU-second, at most
HANGS = 60  # seconds on the clock for one test, which takes less than two
FILES = 12  # number of test files per mutant
NOTICED = ("noticed", "timeout")
OUT_OF_TIME = (-signal.SIGXCPU, -signal.SIGKILL)
INVALID = r"(?:\w+\.)*(?:NameError|UnboundLocalError|TypeError|ImportError|ModuleNotFoundError|SyntaxError)\b"


def cpp_files(root: Path) -> list[Path]:
    """Return the C++ sources of the portable library."""
    left_out = re.compile("cuda|avx|older_libstdcxx")
    files = (path for ending in ("inc", "cpp", "h") for path in (root / "csrc").rglob(f"*.{ending}"))
    return sorted(path for path in files if not left_out.search(str(path.relative_to(root))))


def python_files(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def git(root: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=root, check=True, capture_output=True, text=True).stdout


def small_changes(root: Path, files: list[Path], random_: random.Random) -> Iterator[dict[str, Any]]:
    """Yield all changes of one place in random order."""
    places = []
    for path in files:
        places += [(path, change) for change in changes(path.read_bytes(), path.suffix)]
    random_.shuffle(places)
    for path, change in places:
        source = path.read_bytes()
        if path.suffix == ".py" and not differs(source, change):
            continue
        first, last = source.rfind(b"\n", 0, change.start) + 1, source.find(b"\n", change.end)
        yield {
            "file": str(path.relative_to(root)),
            "line": source.count(b"\n", 0, change.start) + 1,
            "operator": change.operator,
            "before": source[first:last].decode(),
            "after": (source[first : change.start] + change.new + source[change.end : last]).decode(),
        }


def mends(root: Path, files: list[Path], random_: random.Random) -> Iterator[dict[str, Any]]:
    """Yield, in random order, the commits that changed one of the files and a test, taken back in the file."""
    names = {str(path.relative_to(root)) for path in files}
    log = git(root, "log", "--no-merges", "--no-renames", "--diff-filter=AMD", "--name-status", "--format=%x00%H%x09%s")
    found = []
    for text in log.split("\0")[1:]:
        (commit, subject), *changed = (line.split("\t") for line in text.splitlines() if line)
        sources = [(status, name) for status, name in changed if name.startswith((*PACKAGES, "csrc/"))]
        tests = [name for _, name in changed if name.startswith(("python_tests/", "cpp_tests/"))]
        if tests and len(sources) == 1 and sources[0][0] == "M" and sources[0][1] in names:
            found.append((commit, subject, sources[0][1], tests))
    random_.shuffle(found)
    for commit, subject, file, tests in found:
        taken_back = edits(git(root, "show", "-R", "-U1", "--format=", commit, "--", file))
        source = (root / file).read_text()
        changed_source = replaced(source, taken_back)
        if changed_source is not None and (
            not file.endswith(".py") or parsed(changed_source) not in (None, parsed(source))
        ):
            nearest_tests = [test for test in tests if Path(test).match("test_*.py") and (root / test).exists()]
            record = {"file": file, "line": taken_back[0]["line"], "operator": "mend taken back", "commit": commit[:8]}
            yield record | {"subject": subject, "edits": taken_back, "tests": nearest_tests}


def edits(patch: str) -> list[dict[str, Any]]:
    """Return the hunks of a patch of one file: the number of the first line, the lines before, and those after."""
    found = []
    for hunk in re.split(r"^@@ ", patch, flags=re.MULTILINE)[1:]:
        head, *lines = hunk.splitlines()
        sides = ("\n".join(line[1:] for line in lines if line[:1] in (" ", mark)) for mark in "-+")
        found.append({"line": int(re.findall(r"\d+", head)[0]), **dict(zip(("before", "after"), sides, strict=True))})
    return found


def replaced(source: str, changed: list[dict[str, Any]]) -> str | None:
    """Return the source with the lines ``before`` that are nearest to their ``line`` replaced by ``after``.

    None: some lines are not there.
    """
    lines, places = source.split("\n"), []
    for edit in changed:
        before = edit["before"].split("\n")
        starts = [i for i in range(len(lines)) if lines[i : i + len(before)] == before]
        if not starts:
            return None
        places.append((min(starts, key=lambda i: abs(i + 1 - edit["line"])), len(before), edit["after"].split("\n")))
    for start, length, after in sorted(places, reverse=True):
        lines[start : start + length] = after
    return "\n".join(lines)


def parsed(source: str) -> str | None:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return None


def draw(
    root: Path, seed: int, count: int, faults: Callable[[random.Random], Iterator[dict[str, Any]]], out: Path
) -> None:
    """Write the first faults to a new file."""
    with out.open("x") as lines:
        print(json.dumps({"seed": seed, "commit": git(root, "rev-parse", "HEAD").strip()}), file=lines)
        for number, fault in zip(range(count), faults(random.Random(seed)), strict=False):
            print(json.dumps({"id": number} | fault, ensure_ascii=False), file=lines)


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


def pytest(copy: Path, seconds: float, *arguments: str) -> tuple[int, str]:
    """Run pytest in the copy until a test fails, or hangs."""
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)  # no failing example of the mutant before
    options = ["-x", "-v", "-p", "no:cacheprovider", f"--basetemp={copy}-temp"]
    options += ["-o", f"faulthandler_timeout={HANGS}", "-o", "faulthandler_exit_on_timeout=true"]
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


GONE = "the lines have changed"
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
    changed = replaced(source.decode(), mutant.get("edits") or [mutant])
    reason = GONE if changed is None else ""
    try:
        write(path, source if changed is None else changed.encode())
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
    files = list(dict.fromkeys([*mutant.get("tests", []), *nearest(copy, mutant["file"])]))
    files = [file for file in files if (copy / file).exists()]
    left = float(SECONDS)
    for tests in (files[:1], files[1:]):
        while tests:
            if left < 1:
                return {"verdict": "out of time"}
            unsound = [f"--deselect={test}" for test in sound if not sound[test]]
            with planted(copy, mutant) as reason:
                if reason:
                    return {"verdict": "gone" if reason == GONE else "invalid", "error": reason}
                start = cpu_seconds()
                code, output = pytest(copy, left, "-m", "not slow", *unsound, *tests)
            left -= cpu_seconds() - start
            if code in OUT_OF_TIME:
                return {"verdict": "out of time"}
            found = failure(code, output)
            if not found:
                break
            verdict, test, error = found
            if test and test not in sound and verdict != "invalid":
                sound[test] = pytest(copy, SECONDS, test)[0] == 0
            if sound.get(test, True):
                return {"verdict": verdict, "test": test, "error": error}
    return {"verdict": "survived"}


def run(root: Path, file: Path, again: bool = False) -> None:
    """Judge the faults that have no verdict yet, and append each verdict to the file.

    ``again``: judge those that were noticed, and append the new verdict as ``again``.
    """
    sound: dict[str, bool] = {}
    key = "again" if again else "verdict"
    waiting = [mutant for mutant in read(file)[1].values() if key not in mutant]
    if again:
        waiting = [mutant for mutant in waiting if mutant.get("verdict") in NOTICED]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder, "tree")
        copy_tree(root, copy)
        if any(not mutant["file"].endswith(".py") for mutant in waiting):
            code, output = build(copy)
            if code:
                sys.exit(f"the portable library does not compile: {output[-2000:]}")
        for mutant in waiting:
            start = cpu_seconds()
            judged = judge(copy, mutant, sound)
            verdict = {"id": mutant["id"], key: judged.pop("verdict"), **judged, "cpu": round(cpu_seconds() - start)}
            with file.open("a") as lines:
                print(json.dumps(verdict, ensure_ascii=False), file=lines)
            print(mutant["id"], mutant["file"], mutant["line"], mutant["operator"], verdict[key], flush=True)


def counts(file: Path) -> dict[str, Any]:
    """Return the numbers of faults by verdict. Out of time counts as survived, a timeout of a test as noticed."""
    header, mutants = read(file)
    verdicts = collections.Counter(mutant.get("verdict", "not run") for mutant in mutants.values())
    equivalent = sum("equivalent" in mutant for mutant in mutants.values())
    found = {name: header[name] for name in ("seed", "commit")} | {"drawn": len(mutants), "equivalent": equivalent}
    found |= {name: verdicts[name] for name in ("invalid", "gone", "not run")}
    found["noticed"] = sum(verdicts[name] for name in NOTICED)
    found["survived"] = verdicts["survived"] + verdicts["out of time"] - equivalent
    found["noticed again"] = sum(mutant.get("again") in NOTICED for mutant in mutants.values())
    return found


def report(file: Path) -> str:
    """Return the counts, the faults that survived, and those not noticed again, with what they change."""
    mutants, found = read(file)[1], counts(file)
    lines = [f"{name}: {value}" for name, value in found.items()]
    if judged := found["noticed"] + found["survived"]:
        lines += [f"noticed of those not equivalent: {found['noticed']} of {judged} ({found['noticed'] / judged:.0%})"]
    for mutant in mutants.values():
        verdict = mutant.get("again", mutant.get("verdict"))
        if verdict not in ("survived", "out of time"):
            continue
        remark = f", equivalent: {mutant['equivalent']}" if mutant.get("equivalent") else ""
        remark += ", noticed before" * ("again" in mutant)
        lines += ["", f"{mutant['id']}: {mutant['file']}:{mutant['line']} {mutant['operator']}, {verdict}{remark}"]
        for edit in mutant.get("edits") or [mutant]:
            texts = (edit[name].splitlines() for name in ("before", "after"))
            lines += [line for line in difflib.ndiff(*texts) if not line.startswith("?")]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="draw mutants")
    drawing.add_argument("--seed", type=int, required=True)
    drawing.add_argument("--count", type=int, default=80)
    kinds = drawing.add_mutually_exclusive_group()
    kinds.add_argument("--csrc", action="store_true", help="of the portable C++ kernels, not of Python")
    kinds.add_argument(
        "--mends", action="store_true", help="commits that changed one source file and a test, taken back"
    )
    drawing.add_argument("--out", type=Path, required=True)
    running = commands.add_parser("run", help="run the tests on each fault")
    running.add_argument("--again", action="store_true", help="only on those that were noticed")
    reporting = commands.add_parser("report", help="counts and survivors")
    for command in (running, reporting):
        command.add_argument("file", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # remove the copy
    if options.command == "draw":
        python, cpp = python_files(ROOT), cpp_files(ROOT)
        if options.mends:
            faults = functools.partial(mends, ROOT, python + cpp)
        else:
            faults = functools.partial(small_changes, ROOT, cpp if options.csrc else python)
        draw(ROOT, options.seed, options.count, faults, options.out)
    elif options.command == "run":
        run(ROOT, options.file, options.again)
    else:
        print(report(options.file))


if __name__ == "__main__":
    main()
