"""Output of commands: the summary of a run, JSON, help texts, and scripts for completion."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from automl_ext.cli import EvalCommand, main
from automl_ext.completion import print_script
from automl_ext.multi_seed import print_seeds
from automl_ext.rl.algorithms.dqn import DQNConfig
from automl_ext.summary import duration, formatted, network_rows, only_json, report_ablation
from automl_ext.training import progress
from automl_ext_cli import Command as TableCommand
from automl_ext_cli import load
from automl_ext_cli.table import COMMANDS, LEARNERS, RUNS

IMAGES = shlex.split("--subset 200 --epochs 1 --channels 4 --device cpu")
GENOTYPE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
TRAIN = shlex.split("--total-steps 60 --eval-every 30 --eval-episodes 2 --final-episodes 2 --hidden 4")
Command = Callable[..., tuple[str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str, str]]) -> Command:
    """Return a function that runs a command in tmp_path and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(progress, "PAUSE", 0)

    def run(*args: str) -> tuple[str, str]:
        code, out, err = command(*args)
        assert code == 0, err
        return re.sub(" +$", "", out, flags=re.MULTILINE), err

    return run


def following(out: str) -> list[list[str]]:
    """Return the command lines that a summary proposes."""
    return [shlex.split(line)[1:] for line in out.partition("next:")[2].splitlines() if line.strip()]


def test_json_on_standard_output_is_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with only_json(True):
        os.write(1, b"a child process\n")
        print("an environment")
    os.write(1, b"{}")
    assert capfd.readouterr() == ("{}", "a child process\nan environment\n")


def test_summary_of_a_training_and_the_commands_that_follow(command: Command) -> None:
    out, err = command("train", "a2c", *TRAIN, "--out", "it's")
    assert "automl-ext train a2c: finished" in out
    assert re.search(r"^environment +CartPole-v1$", out, re.MULTILINE)
    assert re.search(r"^return, last policy +[\d.]+ ± [\d.]+ \(mean ± std of 2 new episodes\)$", out, re.MULTILINE)
    assert re.search(r"^return, best policy +[\d.]+ \(the policy of step \d+\)$", out, re.MULTILINE)
    assert re.search(r"^steps +\d\d in [\d.]+ s, [\d,]+ steps/s; CPU time [\d.]+ s$", out, re.MULTILINE)
    assert re.search(r"^written to +it's/result\.json$", out, re.MULTILINE)
    assert [re.sub(r" \d+", " N", line.split(":")[0]) for line in err.splitlines()] == ["a2c N/60, N s"] * 2
    assert "{" not in out
    assert [words[:2] for words in following(out)] == [["plot", "it's"], ["eval", "it's"]]
    for words in following(out):
        out, _ = command(*words)
    assert re.search(r"^policy +best, of step \d+$", out, re.MULTILINE)
    assert re.search(r"^episodes +100, 0 of them cut at the limit of steps$", out, re.MULTILINE)
    assert re.search(r"^return +[\d.]+ ± [\d.]+ \(mean ± std\)$", out, re.MULTILINE)


@pytest.mark.slow
def test_summary_of_networks_and_the_commands_that_follow(command: Command) -> None:
    out, err = command("search", "random", *IMAGES, "--evaluations", "5", "--out", "found")
    assert re.search(r"^architecture +\|", out, re.MULTILINE)
    assert re.search(r"^score, validation accuracy +\d+\.\d\d %$", out, re.MULTILINE)
    assert re.search(r"^parameters +\d{1,3}(,\d{3})*$", out, re.MULTILINE)
    assert re.search(r"^finalists, trained again +\d+\.\d\d % \(in the search \d+\.\d\d %\)$", out, re.MULTILINE)
    lines = [line.split(",")[0] for line in err.splitlines()]
    assert (lines[0], lines[-1]) == ("random 1/4", "final trainings 5/5")
    plot, retrain = following(out)
    assert plot == ["plot", "found"]
    command(*plot)
    out, _ = command(*retrain, *IMAGES)
    assert re.search(r"^test accuracy +\d+\.\d\d %$", out, re.MULTILINE)
    plot, export = following(out)
    assert export == ["export", "found-retrained", "--out", "found-retrained/network"]


def test_a_network_within_limits_keeps_its_size(command: Command) -> None:
    size = ["--channels", "2", "--cells", "1", "--max-parameters", "100000"]
    out, _ = command("search", "random", *IMAGES, "--evaluations", "2", *size, "--out", "found")
    (found,) = re.findall(r"^parameters +([\d,]+)$", out, re.MULTILINE)
    retrain = following(out)[-1]
    out, _ = command(*retrain, "--epochs", "1", "--subset", "150")
    assert re.findall(r"^parameters +([\d,]+)$", out, re.MULTILINE) == [found]


def test_json_is_all_that_standard_output_holds(command: Command, tmp_path: Path) -> None:
    flags = ["retrain", *IMAGES, "--genotype", GENOTYPE, "--epochs", "2", "--out", "run", "--json"]
    out, err = command(*flags, "--stop-after", "1")
    assert (json.loads(out), "--resume auto" in err) == (None, True)
    out, _ = command(*flags, "--resume", "auto")
    assert json.loads(out) == json.loads((tmp_path / "run/result.json").read_text())
    out, _ = command("train", "a2c", *TRAIN, "--json", "--out", "a2c")
    assert json.loads(out) == json.loads((tmp_path / "a2c/result.json").read_text())
    out, _ = command("train", "a2c", *TRAIN, "--out", "with space", "--stop-after", "1")
    assert "stopped; continue with: automl-ext train a2c --out 'with space' --resume auto" in out
    assert json.loads(command("eval", "a2c", "--episodes", "2", "--json")[0])["episodes"] == 2


def test_values_have_units() -> None:
    assert formatted("test_accuracy", 0.98765) == "98.77 %"
    assert formatted("score", 91.5) == "91.50 %"
    assert formatted("test_log_loss", 0.5) == "0.5000 nats"
    assert formatted("parameters", 12345) == formatted("mean_parameters", 12345.4) == "12,345"
    assert formatted("random_std", None) == formatted("score", float("-inf")) == "–"
    assert [duration(s) for s in (1.25, 61, 3600 * 5 + 120)] == ["1.2 s", "1 min 1 s", "5 h 2 min"]
    result = {
        "greedy": {"test_accuracy": 0.5, "votes": [1, 2]},
        "network": {"channels": 3},
        "times": {"search_cpu_seconds": 2.0},
    }
    assert list(network_rows(result)) == [
        ("greedy: test accuracy", "50.00 %"),
        ("search CPU time", "2.0 s"),
    ]


def test_a_column_of_the_table_of_seeds_has_one_format(capsys: pytest.CaptureFixture[str]) -> None:
    values = [230_070.0, 514_555.0]
    summary = {"parameters": {"values": values, "mean": 372_312.5, "ci95": values}}
    print_seeds("automl-ext retrain", Path("out"), {"seeds": [0, 1], "summary": summary}, ())
    shown = capsys.readouterr().out
    assert re.findall(r"[\d,.e+]{5,}", shown) == ["230,070", "514,555", "372,312", "230,070", "514,555"]


def test_a_command_has_what_its_kind_says_unless_it_says_otherwise() -> None:
    command, ppo = TableCommand("agent", "", next=("plot",)), RUNS["train ppo"]
    assert (command.metric, command.report, command.next) == (ppo.metric, ppo.report, ("plot",))
    with pytest.raises(TypeError, match="no attribute 'metrics'"):
        TableCommand("agent", "", metrics=("score",))
    with pytest.raises(ValueError, match=r"kind: expected one of supernet, .*, got 'agents'"):
        TableCommand("agents", "")


def test_what_the_table_names_is_there() -> None:
    for command in (RUNS | LEARNERS).values():
        config, function = command.load()
        assert dataclasses.is_dataclass(config)
        assert callable(function)
        assert callable(load(command.report))
        assert {*command.next} <= COMMANDS.keys()


def test_summary_of_an_ablation(capsys: pytest.CaptureFixture[str]) -> None:
    report_ablation(
        "automl-ext train dqn",
        Path("out"),
        DQNConfig(),
        {"rainbow": [{"eval_return_mean": 1}], "dqn": [{"eval_return_mean": 3}, {"eval_return_mean": 4}]},
    )
    out = capsys.readouterr().out
    assert re.search(r"^rainbow +return of the last policy 1\.00 *$", out, re.MULTILINE)
    assert re.search(r"^dqn +return of the last policy 3\.50 *$", out, re.MULTILINE)
    assert re.search(r"^written to +out/ablation.json and ablation.png *$", out, re.MULTILINE)
    assert "next:" not in out


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shell") / "automl-ext"
    with path.open("w") as script, contextlib.redirect_stdout(script):
        assert main(["--print-completion", "bash"]) == 0
    return path


@pytest.fixture(scope="module")
def options(bash_script: Path) -> dict[str, dict[str, str]]:
    """Return command -> option -> help text, from the table in the completion script."""
    line = next(line for line in bash_script.read_text().splitlines() if line.startswith("COMPLETION_SPEC = "))
    found: dict[str, dict[str, str]] = {}

    def add(name: str, spec: dict[str, Any]) -> None:
        for option in spec["options"]:  # "INT • Help text. (default: 3)"
            text = option["description"].partition(" • ")[2] or option["description"]
            found.setdefault(name, {})[option["flags"][0]] = re.sub(r"^\([^()]*\)$", "", text)
        for word, inner in spec["subcommands"].items():
            add(f"{name} {word}".strip(), inner)

    add("", ast.literal_eval(line.removeprefix("COMPLETION_SPEC = ")))
    return found


def without_help(options: dict[str, str]) -> list[str]:
    return [name for name, text in options.items() if len(re.sub(r"\([^()]*\)$", "", text).strip()) < 5]


def fields(kind: Any) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(hint):
            yield from fields(hint)
        else:
            yield f"--{field.name.replace('_', '-')}"


@pytest.mark.parametrize("name", RUNS)
def test_every_option_of_a_run_has_a_help_text(name: str, options: dict[str, dict[str, str]]) -> None:
    expected = {*fields(load(RUNS[name].flags)), *fields(load(RUNS[name].options))}
    assert expected <= options[name].keys()
    assert without_help(options[name]) == []


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - RUNS.keys() - {"tune"}))
def test_every_option_of_a_command_has_a_help_text(name: str, options: dict[str, dict[str, str]]) -> None:
    assert len(options[name]) >= 2
    assert without_help(options[name]) == []


def test_every_option_of_tuning_has_a_help_text(options: dict[str, dict[str, str]]) -> None:
    for name in ("tune train ppo", "tune search rea", "tune retrain", "tune fit"):
        assert {"--trials", "--sampler", "--workers", "--seed"} <= options[name].keys()
        assert without_help(options[name]) == []


def test_groups_of_options_have_titles(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main(["train", "dqn", "--help"])
    titles = ["options", "Run options", "Algorithm options", "Environment options", "Extras options"]
    assert re.findall(r"^\W+((?:\w+ )?options)\W+$", capsys.readouterr().out, re.MULTILINE) == titles


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"train", "search", "eval", "nas-bench", "doctor", "bench"}),
        ("train dqn --en", {"--env-id"}),
        ("train dqn --vectorization ", {"auto", "sync", "async", "vector_entry_point"}),
        ("tune train pp", {"ppo"}),
    ],
)
def test_completion_in_bash(bash_script: Path, line: str, expected: set[str]) -> None:
    words = ["automl-ext", *line.split(" ")]
    code = (
        f"source {shlex.quote(str(bash_script))}\n"
        f"COMP_WORDS=({' '.join(shlex.quote(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        "$(complete -p automl-ext | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert expected <= found, done.stderr
    assert all(word.startswith(words[-1]) for word in found)


@pytest.mark.parametrize("args", [[], ["tcsh"], ["bash", "zsh"]])
def test_completion_for_an_unknown_shell(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --print-completion: expected one of bash, zsh, fish, got ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_for_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_script([shell], {"search successive-halving": ("halve", EvalCommand)})
    script = capsys.readouterr().out
    assert "successive-halving" in script
    assert "--eval-max-steps" in script
