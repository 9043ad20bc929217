"""Configurations from TOML files, and the device's name."""

import enum
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional

import pytest
import torch

from automl_ext.training.config import apply_toml, check_same, differences, to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.machine.device import choose_device


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Inner:
    lr: float = 0.1
    nesterov: bool = True


@dataclass(frozen=True)
class Config:
    epochs: int = 3
    name: str = "a"
    out: Path = Path("runs")
    subset: int | None = None
    seed: Optional[int] = 0  # noqa: UP045
    mode: Literal["fast", "exact"] = "fast"
    widths: tuple[int, ...] = (1, 2)
    betas: tuple[float, float] = (0.9, 0.99)
    steps: list[int] = field(default_factory=list)
    colour: Colour = Colour.RED
    scale: float | int | str = 1.0
    inner: Inner = field(default_factory=Inner)
    derived: int = field(init=False, default=7)

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"epochs: expected at least 1, got {self.epochs}")


def apply(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_text(text)
    return apply_toml(Config(), path)


def test_values_replace_the_given_ones(tmp_path):
    text = """
        epochs = 5
        out = "elsewhere"
        subset = 100
        mode = "exact"
        widths = [3, 4, 5]
        betas = [0, 0.5]
        steps = [1]
        colour = "RED"
        scale = 3
        [inner]
        lr = 1
    """
    found = apply(tmp_path, text)
    assert found == Config(
        epochs=5,
        out=Path("elsewhere"),
        subset=100,
        mode="exact",
        widths=(3, 4, 5),
        betas=(0.0, 0.5),
        steps=[1],
        scale=3,
        inner=Inner(lr=1.0),
    )
    assert [type(v) for v in (found.inner.lr, found.betas[0], found.scale)] == [float, float, int]
    assert apply(tmp_path, "") == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 5", r"unknown key 'epoch'; did you mean epochs\?; valid ones are epochs, name, out"),
        ("derived = 5", "unknown key 'derived'"),
        ("[inner]\nlearning = 1", "unknown key 'inner.learning'; valid ones are inner.lr, inner.nesterov$"),
        ("[iner]\nlr = 1", "unknown key 'iner'"),
        ("inner = 3", "inner must be a table, got 3"),
        ("epochs = 5.0", "epochs must be int, got 5.0"),
        ("epochs = true", "epochs must be int, got True"),
        ("epochs = '5'", "epochs must be int, got '5'"),
        ("epochs = 0", "epochs: expected at least 1, got 0"),
        ("subset = 'all'", r"subset must be int \| None, got 'all'"),
        ("seed = 0.5", "seed must be .*int.*, got 0.5"),
        ("mode = 'slow'", r"mode must be Literal\['fast', 'exact'\], got 'slow'"),
        ("widths = 3", r"widths must be tuple\[int, \.\.\.\], got 3"),
        ("widths = [3, 'x']", "widths must be"),
        ("betas = [0.5]", r"betas must be tuple\[float, float\], got \[0.5\]"),
        ("steps = [[1]]", r"steps must be list\[int\]"),
        ("colour = 'GREEN'", "colour must be Colour, got 'GREEN'"),
        ("colour = [1]", "colour must be Colour"),
        ("scale = true", "scale must be"),
        ("[inner]\nnesterov = 1", "inner.nesterov must be bool, got 1"),
        ("epochs = ", "is not valid TOML"),
        ("name = '\udc80'", "is not valid TOML"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message) as caught:
        apply_toml(Config(), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the configuration .*none.toml: No such file"):
        apply_toml(Config(), tmp_path / "none.toml")
    with pytest.raises(UserError, match="cannot read the configuration"):
        apply_toml(Config(), tmp_path)


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="tomllib is in the standard library")
def test_without_tomli_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(UserError, match=r"automl_ext\[toml\]"):
        apply(tmp_path, "epochs = 5")


def test_to_dict_is_strict_json():
    found = to_dict(Config(scale=math.nan, inner=Inner(lr=math.inf)))
    assert found["out"] == "runs"
    assert found["colour"] == "RED"
    assert found["widths"] == [1, 2]
    assert found["scale"] == "nan"
    assert found["inner"] == {"lr": "inf", "nesterov": True}

    @dataclass
    class Bad:
        widths: tuple = (1, torch.float32)

    with pytest.raises(TypeError, match=r"config.widths\[1\]: dtype cannot be stored"):
        to_dict(Bad())


def test_differences_name_dotted_keys():
    stored = {"a": 1, "b": {"c": [1, 2], "d": None}, "gone": 1}
    given = {"a": 1, "b": {"c": [1, 3], "d": None}, "new": "x"}
    assert differences(stored, given) == [
        ("b.c", "[1, 2]", "[1, 3]"),
        ("gone", "1", "absent"),
        ("new", "absent", "'x'"),
    ]
    assert differences(stored, stored) == []
    assert differences({"b": {"c": 1}}, {"b": 2}) == [("b", "{'c': 1}", "2")]


def test_devices(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UserError, match=rf"device '{name}': torch .*; use cpu or auto"):
            choose_device(name)
    for name in ("gpu", "cuda:", "cuda:x", "", "CPU", "mps"):
        with pytest.raises(UserError, match=f"unknown device '{name}': expected auto, cpu, cuda or cuda:N"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert choose_device() == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UserError, match="device 'cuda:1': there are 1 GPUs, counted from cuda:0"):
        choose_device("cuda:1")


def test_options_without_effect_may_differ_inside_of_dicts() -> None:
    @dataclass
    class Settings:
        device: str = field(default="auto", metadata={"without_effect": True})
        lr: float = 0.1

    @dataclass
    class Facts:
        about: dict[str, object]

    stored = to_dict(Facts({"settings": Settings()}))
    check_same("run", stored, Facts({"settings": Settings(device="cpu")}))
    with pytest.raises(UserError, match=r"about\.settings\.lr was 0\.1 and is now 0\.2"):
        check_same("run", stored, Facts({"settings": Settings("cpu", 0.2)}))
