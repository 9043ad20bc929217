"""Files of weights are read if they are intact and fit; else they are refused in one line."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import flip, make, train

from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.files.weights import COMMENT, check_fit, read_tensors, write_tensors

VALUE = {"step": 3, "policy": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(4)}}


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message, message


def test_what_was_written_is_read_by_us_and_by_torch(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.pt", VALUE)
    for value in (read_tensors(tmp_path / "w.pt"), torch.load(tmp_path / "w.pt", weights_only=True)):
        assert value["step"] == 3
        assert torch.equal(value["policy"]["weight"], VALUE["policy"]["weight"])


def test_every_flipped_byte_and_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    write_tensors(path, VALUE)
    intact = path.read_bytes()
    places = random.Random(0).sample(range(len(intact)), 50) + list(range(len(intact) - COMMENT - 24, len(intact), 2))
    for at in places:
        flip(path, at)
        with pytest.raises(UserError, match=r"damaged|format"):
            read_tensors(path)
        path.write_bytes(intact[:at])
        refused(path, "damaged")
        path.write_bytes(intact)


def test_a_file_without_checksum_is_read_and_a_later_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(VALUE, path)
    assert read_tensors(path)["step"] == 3
    write_tensors(path, VALUE)
    path.write_bytes(path.read_bytes().replace(b"automl_ext weights 1 ", b"automl_ext weights 2 "))
    refused(path, "format 2", "later version")


class Hostile:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_code_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tensors(tmp_path / "w.pt", {"policy": Hostile()})
    refused(tmp_path / "w.pt", "damaged")
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Hostile()))
    refused(tmp_path / "w.pt", "damaged")
    assert not (tmp_path / "executed").exists()


def test_missing_folders_and_devices(tmp_path: Path) -> None:
    refused(tmp_path / "w.pt", "missing")
    refused(tmp_path, "regular file")
    refused(Path("/dev/zero"), "regular file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["policy"].pop("weight"), "state.policy.weight is missing"),
        (lambda v: v["policy"].update(bias=1), "state.policy.bias is unexpected"),
        (
            lambda v: v["policy"].update(weight=torch.zeros(3, 2)),
            r"policy.weight: expected float32 \[2, 3\], got .*3, 2",
        ),
        (lambda v: v["policy"].update(weight=torch.zeros(2, 3).double()), "got float64"),
        (lambda v: v["policy"].update(weight=[1]), "got list"),
        (lambda v: v.update(policy=None), "state.policy: expected a dict, got NoneType"),
        (lambda v: v.update(step="3"), "state.step: expected int, got str"),
    ],
)
def test_only_what_fits(change: Any, message: str) -> None:
    value = copy.deepcopy(VALUE)
    check_fit(value, VALUE, "state")
    change(value)
    with pytest.raises(ValueError, match=message):
        check_fit(value, VALUE, "state")


def replace_state(path: Path, state: Any) -> None:
    """Put another state into a checkpoint, with the right SHA-256."""
    manifest = checkpoint.read_manifest(path)
    torch.save(state, path / "state.pt")
    manifest["state_bytes"] = (path / "state.pt").stat().st_size
    manifest["state_sha256"] = checkpoint._sha256(path / "state.pt")
    (path / "manifest.json").write_bytes(checkpoint._render(manifest))


@pytest.mark.parametrize("state", [{"w": Hostile()}, [1]], ids=["code", "list"])
def test_a_checkpoint_that_cannot_be_loaded_is_damaged(tmp_path: Path, state: Any) -> None:
    newest = train(tmp_path)[-1]
    replace_state(newest, state)
    with pytest.raises(UserError, match=r"step-00000003 is damaged: state.pt"):
        make(tmp_path, resume=str(newest))
    with pytest.warns(UserWarning, match=r"damaged checkpoint .*step-00000003"), make(tmp_path, resume="auto") as run:
        assert run.step == 2


@pytest.mark.parametrize("state", [{}, {"w": torch.zeros(4)}], ids=["key", "shape"])
def test_a_checkpoint_that_does_not_fit_is_passed_over(tmp_path: Path, state: dict[str, Any]) -> None:
    w = torch.zeros(3)

    def load(state: dict[str, Any]) -> None:
        w.copy_(state["w"])

    older, newest = train(tmp_path)
    replace_state(newest, state)
    with pytest.raises(UserError, match=r"step-00000003 is damaged: state.pt does not fit"):
        make(tmp_path, resume=str(newest), load=load)
    assert newest.is_dir()
    with pytest.warns(UserWarning, match="state.pt does not fit"), make(tmp_path, resume="auto", load=load) as run:
        assert (run.step, run.state, w.tolist()) == (2, None, [2.0] * 3)
    replace_state(older, state)
    with pytest.warns(UserWarning, match="does not fit"), pytest.raises(UserError, match=r"no checkpoint in .* fits"):
        make(tmp_path, resume="auto", load=load)
    assert older.is_dir()


def test_too_little_memory_is_no_damage(tmp_path: Path) -> None:
    """Otherwise ``auto`` would delete the newest checkpoint."""

    def load(state: dict[str, Any]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    newest = train(tmp_path)[-1]
    with pytest.raises(torch.OutOfMemoryError):
        make(tmp_path, resume="auto", load=load)
    assert newest.is_dir()


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", "3"), ("metrics_bytes", None), ("config", []), ("environment", {}), ("algorithm", 1), ("format", 10**20)],
)
def test_a_manifest_with_wrong_facts_and_the_right_sum(tmp_path: Path, name: str, value: Any) -> None:
    newest = train(tmp_path)[-1]
    manifest = checkpoint.read_manifest(newest) | {name: value}
    (newest / "manifest.json").write_bytes(checkpoint._render(manifest))
    with pytest.raises(UserError, match=name):
        make(tmp_path, resume=str(newest))


def test_names_that_are_no_steps(tmp_path: Path) -> None:
    train(tmp_path)
    for name in ("step-²", "step-٣", "step-", "step--1"):
        (tmp_path / "checkpoints" / name).mkdir()
    with make(tmp_path, resume="auto") as run:
        assert run.step == 3
