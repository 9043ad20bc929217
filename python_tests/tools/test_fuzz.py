"""tools/fuzz.py works, and it notices planted faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from automl_ext_cli.table import COMMANDS

slow = pytest.mark.slow
TOOLS = ROOT / "tools"
FAST = """
import json, pathlib, sys
import fuzz
out = pathlib.Path(sys.argv[1])

def run(name, *argv):
    code = fuzz.main([*argv, "--out", str(out / f"{name}.json")])
    (out / f"{name}.code").write_text(str(code))

for kind, count in (("commands", "5"), ("inputs", "8")):
    run(kind, kind, "--count", count)
fuzz.main(["all", "--only", "commands:3"])
"""
# Faults, each of which the fuzzer must find.
PLANTED = """
import os
from automl_ext_cli.table import COMMANDS, Command
from fuzzing import command_lines

def unnamed(prog, args):
    print("error: something\\nand more", file=sys.stderr)
    return 2

def leaves(prog, args):
    os.mkdir("run")
    print("error: something is wrong", file=sys.stderr)
    return 2

def fails(prog, args):
    return {}["x"]

commands = [function.__name__ for function in (unnamed, leaves, fails)]
COMMANDS.update({name: Command("other", "", run=f"__main__:{name}") for name in commands})
command_lines.line = lambda rng: command_lines.Line([rng.choice(commands)], {})
run("planted-commands", "commands", "--count", "15")
"""


def fuzz(*argv: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TOOLS), str(TOOLS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of a short run of each fast kind, and of one with planted faults, all by one process."""
    out = tmp_path_factory.mktemp("fuzz")
    done = fuzz("-c", FAST + PLANTED, str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    (out / "stdout").write_text(done.stdout)
    return out


def report(out: Path, name: str) -> list[dict]:
    """The cases of a report; none failed because of the tool, and the exit code says whether there is a violation."""
    lines = json.loads((out / f"{name}.json").read_text())
    assert [line for line in lines if line["outcome"] == "tool"] == []
    assert int((out / f"{name}.code").read_text()) == any(line["violation"] for line in lines)
    return lines


def test_every_command_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from fuzzing.command_lines import options_of, small
    from fuzzing.command_tables import SMALL

    from automl_ext.tune_command import TUNABLE

    assert set(SMALL) == {*COMMANDS, "tune fit"}
    for command in (*COMMANDS.keys() - {"tune"}, *(f"tune {name}" for name in TUNABLE)):
        known = {word.partition("=")[0] for word in small(command) if word.startswith("--")}
        assert known <= {"--" + name.replace("_", "-") for name in options_of(command)}, command


@slow
def test_command_lines(fast: Path) -> None:
    outcomes = [line["outcome"] for line in report(fast, "commands")]
    assert len(outcomes) == 5
    assert "exit 2" in outcomes


@slow
def test_hostile_inputs(fast: Path) -> None:
    lines = report(fast, "inputs")
    assert [line["case"] for line in lines] == [f"inputs:{i}" for i in range(8)]
    assert sum(line["outcome"] == "exit 2" for line in lines) >= 4


@slow
def test_planted_faults_are_found(fast: Path) -> None:
    commands = {line["what"]: line["violation"] for line in report(fast, "planted-commands")}
    assert "error of 2 lines" in commands["['unnamed']"]
    assert "left a run directory" in commands["['leaves']"]
    assert "KeyError" in commands["['fails']"]


@slow
def test_the_same_case_again(fast: Path) -> None:
    """A case is drawn from its seed, kind and index alone, so --only shows the case of the longer run."""
    first = report(fast, "commands")[3]
    assert first["case"] == "commands:3"
    assert first["what"] in (fast / "stdout").read_text().splitlines()


@slow
@pytest.mark.parametrize("kind", ["checkpoints", "kills"])
def test_damaged_checkpoints_and_kills(kind: str, tmp_path: Path) -> None:
    done = fuzz(str(TOOLS / "fuzz.py"), kind, "--count", "2", "--out", str(tmp_path / f"{kind}.json"))
    (tmp_path / f"{kind}.code").write_text(str(done.returncode))
    lines = report(tmp_path, kind)
    assert len(lines) == 2
    if kind == "kills":
        assert {line["outcome"].split(",")[0] for line in lines} & {"a2c", "async"}  # the first kinds of runs
