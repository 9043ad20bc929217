"""Configuration files of any content and kind: one line, exit code 2, no run directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from run_commands import Refused

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
    (tmp_path / "c.toml").write_bytes(TOML[name])
    assert "c.toml" in refused("retrain", "--config", "c.toml", "--out", "run")
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_is_no_file(tmp_path: Path, refused: Refused) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 33)
    for path in ("pipe", "huge", ".", "/dev/zero", "none", "pipe/below"):
        assert path in refused("retrain", "--config", path)


def test_a_line_break_in_a_file_name_stays_one_line(refused: Refused) -> None:
    assert "cannot read the configuration a b" in refused("retrain", "--config", "a\nb")
