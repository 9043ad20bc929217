"""What can be wrong around a run directory, command by command: one line, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")
pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("rich", reason="the command line needs rich")
import nas_search_world as world
import torch
from test_refused import HOSTILE, full_disk
from test_weights import replace_state

from automl_ext.cli import main
from automl_ext.training.files.lock import Lock
from automl_ext.training.files.weights import read_tensors, write_tensors

GENOTYPE = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|none~2|"
NET = ["--subset", 120, "--epochs", 2, "--channels", 2]
COMMANDS: dict[str, list[Any]] = {
    "search gdas": [*NET, "--retrain-epochs", 1, "--retrain-channels", 2],
    "search random": [*NET, "--evaluator", "train", "--evaluations", 2],
    "search renas": [*NET, "--evaluator", "supernet", "--evaluations", 2],
    "retrain": [*NET, "--genotype", GENOTYPE],
    "compare": [*NET, "--random-cells", 1],
    "ensemble": [*NET, "--random-cells", 1],
    "nas-bench": ["--table", "table.csv", "--runs", 2, "--workers", 1, "--algorithms", "random"],
    "train a2c": ["--total-steps", 60, "--eval-every", 30, "--eval-episodes", 1, "--final-episodes", 1],
}


def command(*args: object) -> int:
    return main([str(arg) for arg in args])


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command in tmp_path, which must end in one line and exit code 2; returns the line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> str:
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert command(*args) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert len(lines[0]) < 1500
        return lines[0]

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, ``policy`` and ``network``; copy them before changing them."""
    folder = tmp_path_factory.mktemp("runs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = [*COMMANDS["train a2c"], "--checkpoint-every", 30]
        assert command("train", "a2c", *flags, "--out", folder / "policy") == 0
        assert command("retrain", *COMMANDS["retrain"], "--out", folder / "network") == 0
    return folder


@pytest.fixture
def policy(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "policy", tmp_path / "policy"))


@pytest.fixture
def network(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "network", tmp_path / "network"))


def table(name: str, folder: Path) -> None:
    if name == "nas-bench":
        world.write(folder / "table.csv", world.rows())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_locked_directory_a_full_disk_and_a_file_in_the_way(name: str, tmp_path: Path, refused: Refused) -> None:
    table(name, tmp_path)
    flags = [*name.split(), *COMMANDS[name]]
    (tmp_path / "locked").mkdir()
    lock = Lock(tmp_path / "locked")
    for resume in ([], ["--resume", "auto"]):
        assert f"locked is in use by process {os.getpid()}" in refused(*flags, "--out", "locked", *resume)
    lock.release()
    with full_disk(100):
        assert "File too large" in refused(*flags, "--out", "run/full")
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    assert "file" in refused(*flags, "--out", "file")
    assert "Not a directory" in refused(*flags, "--out", "file/below")


def test_demo_is_locked_by_its_parts(tmp_path: Path, refused: Refused) -> None:
    threads = torch.get_num_threads()
    (tmp_path / "demo/search").mkdir(parents=True)
    lock = Lock(tmp_path / "demo/search")
    try:
        assert "in use by process" in refused("demo", "--out", "demo")
        lock.release()
        with full_disk(100):
            assert "File too large" in refused("demo", "--out", "demo")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["train a2c", "retrain"])
def test_a_disk_that_fills_keeps_the_last_checkpoint(
    name: str, tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*name.split(), *COMMANDS[name], "--out", "run"]
    assert command(*flags, "--stop-after", 1) == 0
    before = sorted((tmp_path / "run/checkpoints").iterdir())
    size = (before[-1] / "state.pt").stat().st_size
    with full_disk(size // 2):
        assert "File too large" in refused(*flags, "--resume", "auto")
    assert sorted((tmp_path / "run/checkpoints").iterdir()) == before
    assert command(*flags, "--resume", "auto") == 0
    assert (tmp_path / "run/result.json").is_file()


def test_other_commands_on_a_full_disk(tmp_path: Path, refused: Refused, policy: Path, network: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("PIL")
    (policy / "curves.png").write_bytes(b"before")
    with full_disk(100):
        assert "curves.png" in refused("plot", policy)
        assert "cell.png" in refused("plot", "--genotype", GENOTYPE, "--out", "new")
        assert "cell.py" in refused("export", network, "--out", "made/cell.py")
    assert (policy / "curves.png").read_bytes() == b"before"
    assert not list((tmp_path / "made").iterdir())
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    for path in ("file/a.gif", "/proc/a.gif"):
        assert path.rpartition("/")[0] in refused("eval", policy, "--episodes", 1, "--gif", path)
    assert "/proc" in refused("export", network, "--out", "/proc/cell.py")
    assert "bench" in refused("bench", "--quick", "--out", "file/bench")
    assert "file" in refused("plot", "--genotype", GENOTYPE, "--out", "file/below")


def test_standard_output_on_a_full_disk(refused: Refused, monkeypatch: pytest.MonkeyPatch, network: Path) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert "No space left on device" in refused("export", network, "--out", "cell.py")
        print("Python flushes again when it ends", flush=True)
        monkeypatch.undo()


def test_a_table_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    from automl_ext.nas.benchmarks import nats_files

    monkeypatch.setattr(nats_files, "_cells", lambda source: iter([("|cell|", {})]))
    monkeypatch.setattr(nats_files, "_row", lambda arch, cell: (1.0,) * 6)
    with full_disk(10):
        assert "t.csv" in refused("nas-table", "source", "--out", "new/t.csv")
    assert not (tmp_path / "new/t.csv").exists()
    assert command("nas-table", "source", "--out", "new/t.csv") == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_seed_out_of_range_names_the_option(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    try:
        code = command(*name.split(), *COMMANDS[name], "--seed", -1, "--out", "run")
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    err = capsys.readouterr().err
    assert "seed" in err
    assert "-1" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_of_an_evaluation_out_of_range(seed: int, refused: Refused, policy: Path) -> None:
    assert f"--seed: expected an int in [0, 2**32), got {seed}" in refused("eval", policy, "--seed", seed)


def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path, refused: Refused) -> None:
    assert "Nope" in refused("train", "a2c", "--env-id", "Nope-v0", "--out", "runs/a")
    assert "nowhere" in refused("retrain", *COMMANDS["retrain"], "--data", "npz:nowhere.npz", "--out", "runs/a")
    assert "table" in refused("nas-bench", "--table", "none.csv", "--out", "runs/a")
    assert "no checkpoint" in refused("retrain", *COMMANDS["retrain"], "--resume", "none", "--out", "runs/a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("file", ["config.json", "environment.json", "result.json", "metrics.jsonl"])
def test_damaged_files_of_a_run(file: str, content: bytes, refused: Refused, policy: Path, network: Path) -> None:
    pytest.importorskip("matplotlib")
    for run in (policy, network):
        (run / file).write_bytes(content)
    calls = {
        "config.json": [("eval", policy), ("plot", policy)],
        "environment.json": [("eval", policy)],
        "result.json": [("export", network, "--out", "cell.py"), ("plot", network)],
        "metrics.jsonl": [("plot", policy), ("plot", network)],
    }
    for call in calls[file]:
        refused(*call)


LINES = [
    '{"step": 1, "loss": "x"}',
    '{"step": "1"}',
    '{"loss": 1.0}',
    '{"step": 1, "loss": 1e999}',
    '{"step": 1, "a": [1]}',
    '{"step": 1, "loss": NaN}',
    '{"step": true}',
    '{"step": ' + "9" * 400 + ', "loss": 1.0}',
    "3",
    "null",
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_metrics_of_wrong_types(line: str, refused: Refused, policy: Path) -> None:
    pytest.importorskip("matplotlib")
    (policy / "metrics.jsonl").write_text(line + "\n" + '{"step": 2, "loss": 1.0}\n')
    assert "line 1" in refused("plot", policy)


def test_names_that_matplotlib_would_read_as_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Path
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (policy / "metrics.jsonl").write_text('{"step": 1, "$\\\\bad{$": 1.0, "eval_return": 1.0}\n')
    other = Path(shutil.copytree(policy, tmp_path / "other"))
    for run, name in ((policy, "$\\frac$"), (other, "a/../\u0000b")):
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | {"env_id": name}))
    assert command("plot", policy, other, "--out", "both") == 0
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == [
        "learning---frac-.png",
        "learning-a-..--b.png",
    ]


def test_a_best_policy_that_is_damaged_or_of_another_agent(refused: Refused, policy: Path) -> None:
    path = policy / "best.pt"
    intact, best = path.read_bytes(), read_tensors(path)
    name = next(iter(best["policy"]))
    for changed, words in (
        ({**best, "policy": {**best["policy"], name: torch.zeros(7)}}, f"{name}: expected float32"),
        ({**best, "policy": {k: v for k, v in best["policy"].items() if k != name}}, f"{name} is missing"),
        ({**best, "step": "x"}, "does not fit"),
        ([best], "does not fit"),
        ({**best, "policy": None}, "does not fit"),
    ):
        write_tensors(path, changed)
        line = refused("eval", policy, "--episodes", 1)
        assert "best.pt" in line
        assert words in line
    changed_bytes = bytearray(intact)
    changed_bytes[intact.index(best["policy"][name].numpy().tobytes())] ^= 1
    for data in (bytes(changed_bytes), intact[: len(intact) // 2], b""):
        path.write_bytes(data)
        assert "damaged" in refused("eval", policy, "--episodes", 1)
    torch.save(best, path)  # as before there were checksums
    assert command("eval", policy, "--episodes", 1) == 0


def without_times(path: Path) -> dict[str, Any]:
    changing = ("times", "seconds", "cpu_seconds", "steps_per_second", "updates_per_second")

    def strip(value: Any) -> Any:
        if isinstance(value, list):
            return [strip(item) for item in value]
        return {k: strip(v) for k, v in value.items() if k not in changing} if isinstance(value, dict) else value

    return strip(json.loads((path / "result.json").read_text()))


def spoil(state: dict[str, Any]) -> bool:
    """Give the first matrix another shape; tells whether there was one."""
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.ndim > 1:
            state[key] = torch.zeros(9)
            return True
        if isinstance(value, dict) and spoil(value):
            return True
    return False


@pytest.mark.parametrize("name", ["search gdas", "search renas", "retrain", "compare", "ensemble", "train a2c"])
def test_resume_auto_steps_over_a_checkpoint_of_another_shape(name: str, tmp_path: Path) -> None:
    flags = [*name.split(), *COMMANDS[name], "--out", tmp_path / "run"]
    few = ["--stop-after", 20 if name == "train a2c" else 1]
    assert command(*flags, *few) == 0
    assert command(*flags, *few, "--resume", "auto") == 0
    whole = Path(shutil.copytree(tmp_path / "run", tmp_path / "whole"))
    _, newest = sorted((tmp_path / "run/checkpoints").iterdir())
    state = torch.load(newest / "state.pt", weights_only=True)
    assert spoil(state)
    replace_state(newest, state)
    with pytest.warns(UserWarning, match=rf"{newest.name}: state\.pt does not fit"):
        assert command(*flags, "--resume", "auto") == 0
    assert command(*flags[:-1], whole, "--resume", "auto") == 0
    assert without_times(tmp_path / "run") == without_times(whole)


def test_a_search_stops_where_its_supernet_is_trained(tmp_path: Path) -> None:
    flags = ["search", "renas", *COMMANDS["search renas"], "--out", tmp_path / "run"]
    assert command(*flags, "--stop-after", 2) == 0
    assert command(*flags, "--resume", "auto") == 0


def test_an_exported_network_checks_its_weights(tmp_path: Path, network: Path) -> None:
    from automl_ext.nas.export.export import load_module

    assert command("export", network, "--out", tmp_path / "cell.py") == 0
    path = tmp_path / "cell.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cell\.pt is damaged"):
        load_module(tmp_path / "cell.py")


TOML = {
    "deep arrays": b"a = " + b"[" * 20_000,
    "deep tables": b"[" + b".".join([b"a"] * 5000) + b"]\n",
    "inline tables": b"a = " + b"{a=" * 5000,
    "not UTF-8": b"seed = 1 # \xff",
    "huge int": b"seed = " + b"9" * 5000,
    "huge hexadecimal": b"seed = 0x" + b"f" * 9000,
    "float overflow": b"lr = " + b"9" * 400,
    "float as hexadecimal": b"lr = 0x" + b"f" * 9000,
    "long string": b"seed = '" + b"x" * 100_000 + b"'",
    "date": b"seed = 1979-05-27",
    "nul": b"seed\x00 = 1",
    "table": b"[seed]\na = 1",
    "array of tables": b"[[seed]]\na = 1",
}


@pytest.mark.parametrize("name", TOML)
def test_a_configuration_of_any_kind(name: str, tmp_path: Path, refused: Refused) -> None:
    pytest.importorskip("tomllib")
    (tmp_path / "c.toml").write_bytes(TOML[name])
    assert "c.toml" in refused("retrain", "--config", "c.toml", "--out", "run")
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_is_no_file(tmp_path: Path, refused: Refused) -> None:
    pytest.importorskip("tomllib")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 33)
    for path in ("pipe", "huge", ".", "/dev/zero", "none", "pipe/below"):
        assert path in refused("retrain", "--config", path)


def test_odd_paths_to_resume(tmp_path: Path, refused: Refused, network: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "step-1")
    pipe = network / "checkpoints/step-00000009"
    pipe.mkdir()
    os.mkfifo(pipe / "manifest.json")
    flags = ["retrain", *COMMANDS["retrain"], "--out", network, "--resume"]
    for path in ("", "loop", "step-1", "/dev/null", "x" * 300, pipe, "step-²", "~", network / "metrics.jsonl"):
        refused(*flags, path)
    shutil.rmtree(pipe)
    assert command(*flags, "auto") == 0


def test_too_little_memory_is_one_line(refused: Refused, monkeypatch: pytest.MonkeyPatch, policy: Path) -> None:
    def evaluate_run(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("automl_ext.rl.reports.evaluate_run.evaluate_run", evaluate_run)
    assert "not enough memory" in refused("eval", policy)
