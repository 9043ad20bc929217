"""Invalid values and files for the commands of architecture search: a one-line error, exit code 2, no run directory."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from automl_ext.cli import main
from automl_ext.nas.auto.plan import AutoConfig
from automl_ext.nas.benchmarks.nats_bench import NASBenchConfig
from automl_ext.nas.ensembles.ensemble import EnsembleConfig
from automl_ext.nas.screening.score import ScoreConfig
from automl_ext.nas.supernets.darts import DARTSConfig
from automl_ext.nas.supernets.entmax_gdas import EntmaxGDASConfig
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.perturbation import PerturbationConfig
from automl_ext.nas.training.compare import CompareConfig
from automl_ext.nas.training.retrain import RetrainConfig
from automl_ext.training.files import reading
from automl_ext_cli import load
from automl_ext_cli.table import COMMANDS

CONFIGS: dict[str, type] = {
    "search gdas": GDASConfig,
    "search entmax-gdas": EntmaxGDASConfig,
    "search darts": DARTSConfig,
    "search perturbation": PerturbationConfig,
    "search auto": AutoConfig,
    **{name: load(command.options) for name, command in COMMANDS.items() if command.kind == "strategy"},
    "retrain": RetrainConfig,
    "compare": CompareConfig,
    "ensemble": EnsembleConfig,
    "nas-bench": NASBenchConfig,
    "score": ScoreConfig,
}
MAY_BE_ZERO = {
    *("seed", "shift", "cutout", "cutmix", "momentum", "weight_decay", "auxiliary", "drop_path", "warmup", "lr_min"),
    *("alpha_beta1", "alpha_beta2", "alpha_weight_decay", "baseline_decay", "tune_epochs", "finalists"),
}


def bad_values(command: str) -> list[tuple[str, Any]]:
    """Return every numeric field with every value that it must reject."""
    found = []
    for field in fields(CONFIGS[command]):
        hint = str(get_type_hints(CONFIGS[command])[field.name])
        if "int" not in hint and "float" not in hint:
            continue
        values: list[Any] = [-1]
        values += [float("nan"), float("inf"), -float("inf")] if "float" in hint else [2**63]
        values += [] if field.name in MAY_BE_ZERO or (command, field.name) == ("ensemble", "random_cells") else [0]
        found += [(field.name, value) for value in values]
    return found


@pytest.mark.parametrize("command", CONFIGS)
def test_every_number_is_checked(command: str) -> None:
    """The configuration rejects the value, before a run directory exists; the message starts with the option's name."""
    cases = bad_values(command)
    assert len(cases) > 10
    wrong = []
    for name, value in cases:
        try:
            CONFIGS[command](**{name: value})
            text = "accepted"
        except (ValueError, OverflowError) as error:
            text = str(error)
        if not text.startswith(f"{name}: expected") or "\n" in text:
            wrong.append((name, value, text))
    assert wrong == []


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that fails with exit code 2, and return the one line that it prints."""
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_error_for_a_huge_number_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["retrain", "--epochs", "1" + "0" * 400, "--out", str(tmp_path / "run")], capsys)
    error = refused(["search", "reinforce", "--weight-decay", "1e308", "--out", str(tmp_path / "run")], capsys)
    assert "weight_decay: expected a number within ±1e+30, got 1e+308" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected --genotype"),
        ("nonsense", "expected normal=… and reduction=…, once each"),
        ("a=b=c", "expected normal=… and reduction=…"),
        ("normal=x normal=x", "expected normal=… and reduction=…"),
        ("normal=x reduction=fixed", "expected nodes"),
    ],
)
def test_bad_genotypes_are_rejected(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genotype = ["--genotype", text] if text else []
    error = refused(["retrain", "--space", "darts", *genotype, "--out", str(tmp_path / "run")], capsys)
    assert message in error
    assert "sequence" not in error
    assert not (tmp_path / "run").exists()


def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"images": rng.integers(0, 256, (60, 4, 4)).astype(np.uint8), "labels": np.arange(60) % 2}


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"not an array")
        archive.writestr("labels.npy", b"not an array")


def encrypted(path: Path) -> None:
    np.savez(path, **images())
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + offset] |= 1  # the flag "encrypted" of the zip format
    path.write_bytes(data)


def huge_header(path: Path) -> None:
    """Write array headers that declare 2⁵⁵ values, without any data."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("images", "labels"):
            with archive.open(f"{name}.npy", "w") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 55,)}
                np.lib.format.write_array_header_1_0(file, header)


def bomb(path: Path) -> None:
    np.savez_compressed(path, images=np.zeros((60, 1000, 400), np.uint8), labels=np.arange(60) % 2)


def understated(path: Path) -> None:
    """Write a zip bomb that declares a small size; zipfile stops reading at the declared size."""
    bomb(path)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + offset : start + offset + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (no_array, "images is not a NumPy array"),
        (encrypted, "encrypted"),
        (huge_header, "declares arrays larger than the memory"),
        (bomb, "unpacks to 0.0 GiB, expected at most 0.0, half of the memory"),
        (understated, "not a readable npz file"),
        (os.mkfifo, "expected a regular file, .* is a pipe"),
    ],
)
def test_bad_npz_files_are_rejected(
    write: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / "data.npz")
    monkeypatch.setattr(reading, "largest_data", lambda: 10_000_000)
    run = ["compare", "--data", f"npz:{tmp_path}/data.npz", "--out", str(tmp_path / "run")]
    error = refused(run, capsys)
    assert re.search(message, error), error
    assert not (tmp_path / "run").exists()


def test_pipes_and_devices_do_not_hang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = tmp_path / "folder"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            os.mkfifo(folder / name / f"{i}.png")
    out = ["--out", str(tmp_path / "run")]
    for path in (str(pipe), "/dev/zero"):
        for args in (
            ["compare", "--data", f"npz:{path}", *out],
            ["compare", "--data", f"folder:{path}", *out],
            ["nas-bench", "--table", path, *out],
            ["nas-table", path],
        ):
            assert "expected a regular file" in refused(args, capsys)
    assert "is a pipe" in refused(["compare", "--data", f"folder:{folder}", *out], capsys)
    assert not (tmp_path / "run").exists()


def test_data_without_a_kind_gets_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mydata").mkdir()
    np.savez("mydata.npz", **images())
    assert "did you mean folder:mydata?" in refused(["compare", "--data", "mydata", "--out", "run"], capsys)
    assert "did you mean npz:mydata.npz?" in refused(["compare", "--data", "mydata.npz", "--out", "run"], capsys)
    assert "did you mean" not in refused(["compare", "--data", "absent", "--out", "run"], capsys)
    # The failed commands left nothing behind, so the same --out works.
    args = ["compare", "--data", "npz:mydata.npz", "--out", "run", "--random-cells", "1", "--epochs", "1"]
    assert main([*args, "--channels", "1"]) == 0
