"""The command line, run in this process."""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fresh_python
import pytest
import torch

import automl_ext as package
from automl_ext import __version__, _native, build_info, cli
from automl_ext.doctor import names_of_ops
from automl_ext_cli.table import RUNS

TRAININGS = [name.removeprefix("train ") for name in RUNS if name.startswith("train ")]
SMALL = ["--subset", "200", "--epochs", "2", "--channels", "4", "--retrain-epochs", "1", "--retrain-channels", "4"]
GENOTYPE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def automl_ext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str, str]]) -> Run:
    """Return a function that runs a command in tmp_path, in this process: torch takes seconds to import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> Done:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            code, out, err = command(*args)
        return Done(code, out, err + "".join(f"{w.message}\n" for w in caught))

    return run


def refused(process: Done, *words: str) -> None:
    """Check for exit code 2 and one error line with all the words, without a traceback."""
    assert process.returncode == 2, process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_no_command_prints_the_usage(automl_ext: Run) -> None:
    nothing = automl_ext()
    assert nothing.returncode == 2
    assert "search gdas" in nothing.stderr
    assert automl_ext("--help") == Done(0, nothing.stderr, "")
    assert automl_ext("--version").stdout.strip() == __version__
    group = automl_ext("search", "--help")
    assert group.returncode == 0
    assert "search darts" in group.stdout
    assert "train a2c" not in group.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["serach"], "unknown command 'serach'; did you mean 'search'?"),
        (["evl", "run"], "unknown command 'evl'; did you mean 'eval'?"),
        (["train-dqn"], "unknown command 'train-dqn'; did you mean 'train dqn'?"),
        (["a\nb"], "unknown command 'a\\nb'"),
        (["train", "rainbw"], f"expected one of {', '.join(TRAININGS)}, got 'rainbw'; did you mean"),
        (["train"], f"train: expected one of {', '.join(TRAININGS)}, got nothing"),
        (["search", "foo"], "search: expected one of gdas, entmax-gdas, darts,"),
        (["train a2c"], "unknown command 'train a2c'; did you mean train a2c, without quotes?"),
        (["tune", "train a2c"], "tune: unknown command 'train a2c'; did you mean train a2c, without quotes?"),
        (["x" * 5000], f"unknown command '{'x' * 197}...'"),
        (["--version", "x"], "--version: expected no argument, got 'x'"),
    ],
)
def test_an_unknown_command_names_the_nearest(automl_ext: Run, arguments: list[str], error: str) -> None:
    refused(automl_ext(*arguments), error)


def test_help_and_version_do_not_load_torch() -> None:
    code = (
        "import contextlib, io, json, sys\n"
        "from automl_ext_cli.entry import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    codes = [main(words) for words in (['--help'], ['--version'], ['serach'], [])]\n"
        "print(json.dumps([codes, sorted({'torch', 'automl_ext'} & sys.modules.keys())]))\n"
    )
    out, err = fresh_python.start(code).communicate()
    assert json.loads(out) == [[0, 0, 2, 2], []], err


def test_the_package_loads_torch_and_its_ops_only() -> None:
    code = (
        "import json, sys\n"
        "import automl_ext\n"
        "rooms = ['nas', 'rl', 'training', 'data', 'parallel', 'bench', 'cli', 'run_options']\n"
        "unwanted = ['gymnasium', 'tyro', 'rich', 'sklearn', 'matplotlib', *(f'automl_ext.{r}' for r in rooms)]\n"
        "print(json.dumps([name for name in unwanted if name in sys.modules]))\n"
    )
    assert fresh_python.facts(code) == []


@pytest.mark.slow
def test_search_retrain_and_plot(automl_ext: Run, tmp_path: Path) -> None:
    process = automl_ext("search", "gdas", *SMALL, "--out", "run")
    assert process.returncode == 0, process.stderr
    run = tmp_path / "run"
    result = json.loads((run / "result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 1
    assert json.loads((run / "config.json").read_text())["epochs"] == 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2 + 1  # search, training
    assert json.loads((run / "environment.json").read_text())["threads"] == torch.get_num_threads()

    plot = automl_ext("plot", "run")
    assert plot.returncode == 0, plot.stderr
    for name in ("curves.png", "cell.png", "cell.svg"):
        assert (run / name).stat().st_size > 2000

    retrain = automl_ext("retrain", "--genotype", result["genotype"], "--subset", 200, "--epochs", 1, "--out", "again")
    assert retrain.returncode == 0, retrain.stderr
    assert json.loads((tmp_path / "again/result.json").read_text())["genotype"] == result["genotype"]


def test_searches_have_the_options_that_they_use(automl_ext: Run, tmp_path: Path) -> None:
    for name, option in (("darts", "--tau-max"), ("darts", "--form"), ("entmax-gdas", "--form")):
        process = automl_ext("search", name, option, 1)
        assert process.returncode == 2
        assert option in process.stderr
    process = automl_ext("search", "entmax-gdas", *SMALL, "--tau-max", 0.5, "--stop-after", 1, "--out", "run")
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "run/config.json").read_text())["tau_max"] == 0.5


def test_ensemble(automl_ext: Run, tmp_path: Path) -> None:
    small = ["--subset", 200, "--epochs", 1, "--channels", 4, "--out", "run"]
    process = automl_ext("ensemble", "--members", GENOTYPE, GENOTYPE, "--random-cells", 1, *small)
    assert process.returncode == 0, process.stderr
    assert len(json.loads((tmp_path / "run/result.json").read_text())["members"]) == 3
    refused(automl_ext("ensemble", "--out", "none"), "--genotype", "--members", "--random-cells")
    refused(automl_ext("ensemble", "--members", "|sep_conv_3x3~0|", "--out", "none"), "sep_conv_3x3")


@pytest.mark.parametrize("name", ["train a2c", "tune", "fit", "doctor"])
def test_advice_after_an_interruption(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str, args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_call", interrupted)
    assert cli.main(name.split()) == 130
    assert ("--resume auto" in capsys.readouterr().err) == (name in ("train a2c", "tune"))


def test_toml_gives_defaults_and_flags_override_them(automl_ext: Run, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(
        "subset = 200\nepochs = 1\nchannels = 4\nretrain_epochs = 1\nretrain_channels = 4\nseed = 7\n"
    )
    process = automl_ext("search", "gdas", "--config", "small.toml", "--seed", 3, "--out", "run")
    assert process.returncode == 0, process.stderr
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["epochs"], config["channels"], config["seed"]) == (1, 4, 3)
    (tmp_path / "bad.toml").write_text("epoch = 1\n")
    refused(automl_ext("search", "gdas", "--config=bad.toml"), "epoch", "epochs")
    refused(automl_ext("search", "gdas", "--config", "none.toml"), "none.toml")
    # The last one counts.
    refused(automl_ext("search", "gdas", "--config=bad.toml", "--config", "none.toml"), "none.toml")
    refused(automl_ext("search", "gdas", "--config", "none.toml", "--config=bad.toml"), "epoch", "epochs")


def test_what_a_user_gets_wrong_is_one_line_and_exit_code_2(automl_ext: Run, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    refused(automl_ext("search", "gdas", *SMALL, "--out", "full"), "full")
    assert (full / "mine.txt").read_text() == "keep"
    refused(automl_ext("retrain", "--genotype", "|sep_conv_3x3~0|", "--out", "r"), "sep_conv_3x3")
    refused(automl_ext("retrain", "--genotype", GENOTYPE, "--data", "mnist", "--out", "r"), "mnist")
    for flags, word in ((["--epochs", 0], "epochs"), (["--stop-after", 0], "stop_after"), (["--epoch", 1], "--epoch")):
        parsed = automl_ext("search", "gdas", *flags)  # tyro's own message, in a box
        assert parsed.returncode == 2
        assert word in parsed.stderr
        assert "Traceback" not in parsed.stderr
    refused(automl_ext("plot", "nowhere"), "nowhere")
    refused(automl_ext("plot"), "--genotype")
    refused(automl_ext("search", "auto", "--dry-run", "--json"), "--dry-run", "--json")


def test_plot_of_damaged_files(automl_ext: Run, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    process = automl_ext("plot", ".")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "curves.png").stat().st_size > 2000
    refused(automl_ext("plot", ".", "--out", "pictures"), "--out is for --genotype")
    refused(automl_ext("plot", ".", "--space", "darts"), "--space is that of --genotype")
    (tmp_path / "result.json").write_text('{"genotype": ')
    refused(automl_ext("plot", "."), "result.json")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lo\n{"step": 2, "loss": 2.0}\n')
    refused(automl_ext("plot", "."), "metrics.jsonl", "line 1")
    refused(automl_ext("plot", "--genotype", GENOTYPE, "--out", "result.json"), "--out result.json")


def test_a_full_disk_and_a_missing_kernel_are_one_line(
    automl_ext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("automl_ext.training.files.checkpoint.fsync_path", full)
        small = ["--subset", 200, "--epochs", 1, "--channels", 4]
        refused(automl_ext("retrain", "--genotype", GENOTYPE, *small, "--out", "run"), "No space left on device")
    monkeypatch.setattr(_native, "_backend", "native")
    monkeypatch.setattr(_native, "_devices", frozenset())
    refused(automl_ext("doctor"), "native")


def test_doctor_finds_every_op_well(automl_ext: Run) -> None:
    process = automl_ext("doctor")
    assert process.returncode == 0, process.stdout
    assert len(names_of_ops()) > 10
    for name in (*names_of_ops(), "torch (running)"):
        assert name in process.stdout
    assert "WRONG" not in process.stdout
    assert "not checked" not in process.stdout
    words = " ".join(process.stdout.split())
    assert "backend on cpu" in words
    assert "backend on cuda" in words
    if _native.is_loaded() and build_info()["cuda"] is None:
        assert "AUTOML_EXT_CUDA=1" in words


@pytest.mark.skipif(not _native.is_loaded(), reason="the native library is not built")
def test_doctor_names_an_instruction_set_that_is_ignored(automl_ext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_EXT_CPU", "AVX2")
    found = automl_ext("doctor").stdout
    assert "AUTOML_EXT_CPU: expected an instruction set of this processor, got 'AVX2': ignored" in found
    monkeypatch.setenv("AUTOML_EXT_CPU", str(build_info().get("instruction_set")))
    assert "AUTOML_EXT_CPU" not in automl_ext("doctor").stdout


@pytest.mark.parametrize(
    "wrong",
    [lambda y: 2 * y, lambda y: y.detach() + 2 * (y - y.detach()), torch.Tensor.detach],
    ids=["forward", "backward", "no gradient"],
)
def test_doctor_finds_a_broken_op(
    automl_ext: Run, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    sparsemax = package.sparsemax

    def broken(x: torch.Tensor) -> torch.Tensor:
        y = sparsemax(x)
        return y if _native.current_backend() == "reference" else wrong(y)

    monkeypatch.setattr(package, "sparsemax", broken)
    found = automl_ext("doctor")
    assert found.returncode == 1
    assert [line for line in found.stdout.splitlines() if "WRONG" in line and "sparsemax" in line]
    assert found.stdout.count("WRONG") == 1
