"""docs/development/extending*.md: what the pages add is added to a copy of the repository, or installed with pip.

The op is built and tested; the strategy, the algorithm and the space run as commands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fresh_python
import pytest
from paths import ROOT

from automl_ext.nas.spaces.registry import space
from automl_ext.training.errors import UserError

SUITES = "python_tests/ops/test_conformance.py", "python_tests/ops/test_op_calls.py"
OPS_PAGE, NAS_PAGE, RL_PAGE = (ROOT / f"docs/development/extending{topic}.md" for topic in ("", "-nas", "-rl"))
OP_FILES = 10
Runner = Callable[..., subprocess.CompletedProcess[str]]
# A line that names a file and where the block goes, and the block below it.
BLOCK = re.compile(
    r"^`(?P<file>[\w./]+)`(?:, (?P<how>after|in place of) `(?P<text>[^\n]+)`)?:\n\n```\w+\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path, heading: str) -> list[dict[str, str]]:
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert section, heading
    return [match.groupdict() for match in BLOCK.finditer(section[1])]


def apply(block: dict[str, str], root: Path) -> None:
    """Do with a block what the page says."""
    path = root / block["file"]
    if block["how"] is None:
        assert not path.exists(), f"{path} exists already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["code"])
        return
    before = path.read_text()
    assert before.count(block["text"]) == 1, f"{path}: {block['text']!r} must occur once"
    if block["how"] == "in place of":
        path.write_text(before.replace(block["text"], block["code"].strip()))
        return
    end = before.index("\n", before.index(block["text"])) + 1
    path.write_text(before[:end] + block["code"] + before[end:])


def test_the_blocks_of_the_op_fit_the_repository(tmp_path: Path) -> None:
    found = blocks(OPS_PAGE, "An op")
    files = {block["file"] for block in found}
    assert len(files) == OP_FILES  # as the page says
    for name in files:
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for block in found:
        apply(block, tmp_path)


@pytest.mark.slow  # it compiles what the op changes
def test_the_op_is_built_and_conforms(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for name in ("automl_ext", "csrc", "python_tests", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "_build.py"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, root)
    found = blocks(OPS_PAGE, "An op")
    for block in found:
        apply(block, root)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"AUTOML_EXT_CUDA": "0", "PYTHONPATH": str(root), "AUTOML_EXT_BACKEND": "native"}
    environment["AUTOML_EXT_CXXFLAGS"] = "-O0 -DAUTOML_EXT_PORTABLE"  # a tenth of the compile time
    for command in (
        ["setup.py", "--quiet", "build_ext", "--inplace"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES, "-k", "scale"],
    ):
        done = subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert re.search(r"\d\d passed", done.stdout), done.stdout
    for name in ("avx2", "avx512"):
        compiler, flags = os.environ.get("CXX", "c++"), ["-std=c++17", "-fsyntax-only"]
        subprocess.run([compiler, *flags, root / f"build/units/scale_{name}.cpp"], check=True)


@pytest.mark.slow
def test_the_strategy_searches(tmp_path: Path) -> None:
    block, _ = blocks(NAS_PAGE, "A search strategy")
    apply(block, tmp_path)
    run = f"import os, runpy; os.chdir({str(tmp_path)!r}); runpy.run_path({block['file']!r}, run_name='__main__')"
    status, printed, error = fresh_python.run(run)
    assert status == 0, error
    assert re.search(r"^\|\w+~0\|", printed, re.MULTILINE), printed
    assert (tmp_path / "runs/hill/result.json").is_file()


def script(folder: Path, path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the console script in a folder, with another one first on PYTHONPATH."""
    return subprocess.run(
        [Path(sys.executable).with_name("automl-ext"), *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )


def forked(folder: Path, path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command as :func:`script` does, with the package in ``path``, in a process that has torch loaded."""
    start = f"import os, sys; os.chdir({str(folder)!r}); from automl_ext_cli.entry import main; "
    return subprocess.CompletedProcess(argv, *fresh_python.run(f"{start}sys.exit(main({list(argv)!r}))", path))


def check_commands(folder: Path, path: Path, *space: str, run: Runner = script) -> None:
    """Check that the commands of the pages are listed and run; ``space`` is for the search."""
    small = ["--evaluations", "2", "--epochs", "1", "--channels", "4", "--subset", "200", *space]
    listed = run(folder, path, "--help")
    assert listed.returncode == 0, listed.stderr
    assert "  search hill-climbing        search by hill climbing\n" in listed.stdout
    assert "  train random-search         train a linear policy by random search\n" in listed.stdout
    for argv in (
        ["search", "hill-climbing", *small, "--out", "hill"],
        ["train", "random-search", "--total-steps", "500", "--final-episodes", "2", "--out", "agent"],
    ):
        done = run(folder, path, *argv)
        assert done.returncode == 0, done.stderr
        environment = json.loads((folder / argv[-1] / "environment.json").read_text())
        assert environment["algorithm"] == argv[1]
        assert (folder / argv[-1] / "result.json").is_file()


@pytest.mark.slow
def test_the_strategy_and_the_algorithm_are_commands_after_one_file_and_one_entry(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for name in ("automl_ext", "automl_ext_cli"):
        shutil.copytree(ROOT / name, root / name)
    strategy, *entries = blocks(NAS_PAGE, "A search strategy")
    for block in ({**strategy, "file": "automl_ext/nas/strategies/hill_climbing.py"}, *entries):
        apply(block, root)
    for block in blocks(RL_PAGE, "An algorithm"):
        apply(block, root)
    check_commands(tmp_path, root, run=forked)


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    """The distribution of the page, installed into a folder."""
    source, target = tmp_path / "source", tmp_path / "installed"
    for block in blocks(OPS_PAGE, "A distribution of your own"):
        apply(block, source)
    apply(blocks(NAS_PAGE, "A search space")[0], source)
    apply(blocks(NAS_PAGE, "A search strategy")[0], source)
    apply({**blocks(RL_PAGE, "An algorithm")[0], "file": "random_search.py"}, source)
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
def test_another_distribution_adds_a_strategy_an_algorithm_and_a_space(
    distribution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_commands(tmp_path, distribution, "--space", "chain")
    genotype = json.loads((tmp_path / "hill/result.json").read_text())["genotype"]
    assert genotype.count("-") == 3  # of the space chain
    code = (
        "import contextlib, io, sys\n"
        "from automl_ext_cli.entry import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    main(['--help'])\n"
        "print('hill-climbing' in out.getvalue(), 'my_commands' in sys.modules, 'torch' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(distribution), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "True True False\n", done.stderr
    monkeypatch.syspath_prepend(str(distribution))
    with pytest.raises(
        UserError, match="expected one of nb201, darts, darts-frc, renas, convnet, chain, or MODULE:CLASS"
    ):
        space("chian")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import absent\n", "ModuleNotFoundError: No module named 'absent'"),
        ("COMMANDS = ['search x']\n", "TypeError: expected a dict of automl_ext_cli.Command by name, got list"),
        (
            "from automl_ext_cli import Command\nCOMMANDS = {'train ppo': Command('agent', 'mine')}\n",
            "ValueError: there is a command 'train ppo' already",
        ),
        (
            "from automl_ext_cli import Command\nCOMMANDS = {'train x': Command('agnet', 'mine')}\n",
            "ValueError: kind: expected one of supernet, strategy, agent, run, alias, other, got 'agnet'",
        ),
    ],
)
def test_commands_that_cannot_be_used_are_left_out(module: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(module)
    facts = tmp_path / "broken-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[automl_ext.commands]\nbroken = broken:COMMANDS\n")
    listed = script(tmp_path, tmp_path, "--help")
    assert listed.returncode == 0
    assert "  train ppo " in listed.stdout
    start = "warning: the commands of broken:COMMANDS (group automl_ext.commands) are left out: "
    assert listed.stderr == f"{start}{reason}\n"
