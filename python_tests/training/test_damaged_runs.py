"""Damaged files of a run directory, command by command: one line, exit code 2."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_commands import COMMANDS, Refused, command
from test_refused import HOSTILE
from test_weights import replace_state

from automl_ext.training.files import checkpoint
from automl_ext.training.files.weights import read_tensors, write_tensors


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("file", ["config.json", "environment.json", "result.json", "metrics.jsonl"])
def test_damaged_files_of_a_run(file: str, content: bytes, refused: Refused, policy: Path, network: Path) -> None:
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
    (policy / "metrics.jsonl").write_text(line + "\n" + '{"step": 2, "loss": 1.0}\n')
    assert "line 1" in refused("plot", policy)


def test_names_that_matplotlib_would_read_as_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Path
) -> None:
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
    """Give the first matrix another shape. Return whether there was one."""
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


def test_states_of_wrong_types(refused: Refused, network: Path) -> None:
    """The SHA-256 is right, so only the values can be refused."""
    newest = max((network / "checkpoints").iterdir())
    intact = torch.load(newest / "state.pt", weights_only=True)
    for changes in (
        {"epoch": []},
        {"epoch": -1},
        {"epoch": 10**9},
        {"epoch": 1.0},
        {"wall": "x"},
        {"cpu": float("nan")},
    ):
        replace_state(newest, {**intact, "job": {**intact["job"], **changes}})
        assert next(iter(changes)) in refused("retrain", *COMMANDS["retrain"], "--out", network, "--resume", newest)
    replace_state(newest, {})
    assert "job" in refused("retrain", *COMMANDS["retrain"], "--out", network, "--resume", newest)


@pytest.mark.parametrize("value", [None, "1", 1.5, True, [1]])
def test_facts_of_wrong_types(value: object, refused: Refused, network: Path) -> None:
    newest = max((network / "checkpoints").iterdir())
    manifest = checkpoint.read_manifest(newest) | {"metrics_bytes": value}
    (newest / "manifest.json").write_bytes(checkpoint._render(manifest))
    assert "metrics_bytes: expected int" in refused(
        "retrain", *COMMANDS["retrain"], "--out", network, "--resume", newest
    )
