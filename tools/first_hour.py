"""The first hour of a new user: install as README says, in a fresh environment, and run every command as it stands.

    python tools/first_hour.py                 # README's install lines build the package: minutes
    python tools/first_hour.py --wheel FILE    # the same, but a built wheel replaces the sources
    python tools/first_hour.py README.md --wheel FILE   # README alone: what CI runs; `make docs` runs the tutorials
    python tools/first_hour.py --json FILE     # also record the seconds of each command
    python tools/first_hour.py --pages 2       # run two pages at a time
    python tools/first_hour.py --folder NEW    # keep the environment and all outputs in this new folder

The environment is a new virtual environment in a temporary folder. Its packages come from the lines of README's section
"Install", and pip's cache is used. Then the `sh` and Python blocks of README and of the tutorials run in their order,
with their own options, each page in a folder of its own. The `make …` lines of README are left out, because CI runs
them separately. Tutorial cells that the reader does not see are left out. A build starts from a copy of the tracked
files, so that no object file of an earlier build is used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TUTORIALS = [ROOT / "docs/start.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python|\{code-cell\} ipython3)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SOURCES = re.compile(r"""(?<=\s)(["']?)\.(\[[\w,]+\])?\1(?=\s|$)""")  # the argument `.` or `".[extras]"` of pip
NOT_HERE = ("make", "pip install")  # CI runs `make` itself; the packages are installed first
OWN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_REQUIRE_VIRTUALENV")


class Block(NamedTuple):
    language: str  # "sh": one command per line; "cell": one bash script; "python"
    code: str


class Timed(NamedTuple):
    page: str
    command: str
    seconds: float
    cpu_seconds: float


def blocks(page: str) -> Iterator[Block]:
    """Return the blocks of a page that a reader types, in order."""
    for language, body in BLOCK.findall(page):
        if language != "{code-cell} ipython3":
            yield Block(language, body)
        elif re.match(r":tags: \[.*remove-(cell|input)", body) is None:
            body = re.sub(r"\A(:.*\n)+\n*", "", body)
            magic, _, rest = body.partition("\n")
            yield Block("cell", rest) if magic == "%%bash" else Block("python", body)


def section(page: str, title: str) -> str:
    """Return the text of a page from the heading ``title`` to the next one of its level."""
    return re.split(r"^## ", page.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def commands(code: str) -> list[str]:
    """Return the commands of a shell block, one per line; a line that ends with a backslash continues."""
    lines = code.replace("\\\n", "").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def install_commands(readme: str, wheel: Path | None) -> list[str]:
    """Return README's `pip install` lines, with the argument that names the sources replaced by ``wheel``."""
    lines = [line for block in blocks(section(readme, "Install")) for line in commands(block.code)]
    lines = [line for line in lines if line.startswith("pip install")]
    if wheel is None:
        return lines
    return [SOURCES.sub(lambda m: f"'{wheel}{m[2] or ''}'", line) for line in lines]


def steps(page: str) -> list[Block]:
    """Return what to run after the installation: single shell commands, and complete Python blocks."""
    found = []
    for block in blocks(page):
        if block.language == "sh":
            lines = [line for line in commands(block.code) if not line.startswith(NOT_HERE)]
            found += [Block("cell", line) for line in lines]
        else:
            found.append(block)
    return found


def script(page: str) -> str:
    """Return a page as one Python script, whose blocks share their names as in a notebook. It prints the seconds."""
    return "\n".join(
        [
            "import json, os, subprocess",
            "def _now():",
            "    return os.times().elapsed, sum(os.times()[:4])",
            "def _timed(what, start):",
            "    print('TIMED ' + json.dumps([what, *(b - a for a, b in zip(start, _now()))]), flush=True)",
            *(_step(i, block) for i, block in enumerate(steps(page))),
        ]
    )


def _step(i: int, block: Block) -> str:
    name = f"Python block {i + 1}" if block.language == "python" else block.code.strip().splitlines()[0]
    run = block.code if block.language == "python" else f"subprocess.run(['bash', '-ec', {block.code!r}], check=True)\n"
    return f"_start = _now()\n{run}\n_timed({name!r}, _start)"


def environment(venv: Path) -> dict[str, str]:
    """Return the environment variables of a user who has activated ``venv``, without PYTHONPATH and our variables."""
    own = {n: v for n, v in os.environ.items() if n not in OWN_VARIABLES and not n.startswith("AUTOML_EXT_")}
    return own | {"VIRTUAL_ENV": str(venv), "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def now() -> tuple[float, float]:
    """Return wall-clock seconds, and the CPU seconds of this process and of its finished children."""
    times = os.times()
    return times.elapsed, sum(times[:4])


def run(command: Sequence[str], folder: Path, env: dict[str, str], log: Path) -> str:
    """Run a command. Return its output; it is also written to ``log``. Exit with its last lines if it fails."""
    with log.open("w+") as file:
        done = subprocess.run(command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT, check=False)
        file.seek(0)
        text = file.read()
    if done.returncode:
        sys.exit(f"{text[-4000:]}\nfailed with exit code {done.returncode}: {' '.join(command)[:300]}")
    return text


def install(folder: Path, wheel: Path | None) -> Iterator[Timed]:
    """Make the environment in ``folder``/venv, and run README's install lines from the sources or with ``wheel``."""
    env = environment(folder / "venv")
    start = now()
    run([sys.executable, "-m", "venv", str(folder / "venv")], folder, os.environ.copy(), folder / "venv.log")
    yield Timed("install", "python -m venv", *(b - a for a, b in zip(start, now(), strict=True)))
    sources = folder / "sources"
    sources.mkdir()
    if wheel is None:
        copy_tracked(sources)
    for i, line in enumerate(install_commands(README.read_text(), wheel)):
        start = now()
        run(["bash", "-ec", line], sources, env, folder / f"install{i}.log")
        yield Timed("install", line, *(b - a for a, b in zip(start, now(), strict=True)))


def copy_tracked(target: Path) -> None:
    """Copy the files that git tracks, or would track, to ``target``."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_page(path: Path, folder: Path, env: dict[str, str]) -> Iterator[Timed]:
    """Run a page in the new folder ``folder``."""
    folder.mkdir()
    (folder / "page.py").write_text(script(path.read_text()))
    text = run([str(Path(env["VIRTUAL_ENV"]) / "bin/python"), "page.py"], folder, env, folder / "page.log")
    for line in text.splitlines():
        if line.startswith("TIMED "):
            yield Timed(path.name, *json.loads(line.removeprefix("TIMED ")))


def existing_path(text: str) -> Path:
    return Path(text).resolve(strict=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="*", type=existing_path, default=[README, *TUTORIALS])
    parser.add_argument("--wheel", type=existing_path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--pages", type=int, default=1, metavar="N", help="run N pages at a time")
    options = parser.parse_args(argv)
    timed: list[Timed] = []
    with tempfile.TemporaryDirectory(prefix="first_hour_") as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=options.folder is None)
        env = environment(folder / "venv")
        for result in install(folder, options.wheel):
            print(show(result), flush=True)
            timed.append(result)
        with ThreadPoolExecutor(options.pages) as pool:
            for results in pool.map(lambda page: list(run_page(page, folder / page.stem, env)), options.page):
                print(*map(show, results), sep="\n", flush=True)
                timed += results
    print(show(Timed("in all", "", *(sum(row[i] for row in timed) for i in (2, 3)))))
    if options.json:
        options.json.write_text(json.dumps(record(timed, options.wheel is None), indent=1, ensure_ascii=False) + "\n")
    return 0


def show(row: Timed) -> str:
    return f"{row.seconds:7.1f} s  {row.cpu_seconds:7.1f} CPU-s  {row.page}: {row.command}"


def record(timed: Sequence[Timed], built: bool) -> dict[str, object]:
    """Return the contents of the JSON file: the machine, and the seconds of each command."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    return {
        "command": "python tools/first_hour.py --json FILE",
        "machine": f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}",
        "load": round(os.getloadavg()[2], 1),  # over the last 15 minutes
        "python": platform.python_version(),
        "built": built,
        "columns": Timed._fields,
        "commands": [[page, what, *(round(x, 1) for x in costs)] for page, what, *costs in timed],
    }


if __name__ == "__main__":
    sys.exit(main())
