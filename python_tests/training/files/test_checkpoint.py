"""Checkpoints: damage, allowed states, number kept."""

import json

import numpy as np
import pytest
import torch
from training_helpers import flip, logged, make, train

from automl_ext.training.errors import UserError
from automl_ext.training.files.checkpoint import DamagedCheckpoint, _render, read_manifest


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "missing"])
def test_auto_steps_back_over_a_damaged_checkpoint(tmp_path, file, damage):
    path = train(tmp_path)[-1] / file
    if damage == "flipped":
        flip(path)
    elif damage == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[:-1] if damage == "shorter" else data + b" ")
    with pytest.raises(UserError, match=r"the checkpoint .*step-00000003 is damaged: .*(SHA|missing|bytes)"):
        make(tmp_path, resume=str(path.parent))
    with pytest.warns(UserWarning, match=r"damaged checkpoint .*step-00000003"):
        run = make(tmp_path, resume="auto")
    with run:
        assert run.step == 2
        assert run.state["w"].tolist() == [2.0] * 3
        assert logged(tmp_path) == [1, 2]
        run.log(3, loss=0.3)
        run.save(3, {"w": torch.ones(1)})
    with make(tmp_path, resume="auto") as run:
        assert run.step == 3


def test_bytes_all_over_the_manifest_count(tmp_path):
    path = train(tmp_path, 1)[0] / "manifest.json"
    intact = path.read_bytes()
    for at in range(0, len(intact), 5):
        flip(path, at)
        with pytest.raises(DamagedCheckpoint):
            read_manifest(path.parent)
        path.write_bytes(intact)


def test_a_deep_manifest_is_damaged(tmp_path):
    path, deep = train(tmp_path, 1)[0] / "manifest.json", {}
    for _ in range(200):
        deep = {"x": deep}
    path.write_bytes(_render({**json.loads(path.read_bytes())["manifest"], "config": deep}))
    with pytest.raises(DamagedCheckpoint, match="nested too deeply"):
        read_manifest(path.parent)


def test_what_a_crash_left_is_deleted(tmp_path):
    train(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    (folder / ".tmp-step-00000002").mkdir()
    (folder / ".tmp-step-00000002/state.pt").write_bytes(b"")
    (folder / ".tmp-x").write_bytes(b"")
    with make(tmp_path, resume="auto"):
        assert [path.name for path in folder.iterdir()] == ["step-00000001"]


def test_all_damaged_is_a_fresh_start_with_warnings(tmp_path):
    for path in train(tmp_path):
        flip(path / "state.pt")
    with pytest.warns(UserWarning, match="damaged checkpoint") as caught:
        run = make(tmp_path, resume="auto")
    with run:
        assert run.step == 0
    assert len([w for w in caught if "damaged" in str(w.message)]) == 2
    assert not list((tmp_path / "checkpoints").iterdir())


class Number(float):
    pass


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [1, {"b": Number(1)}]}, r"state\['a'\]\[1\]\['b'\]: .*got .*Number"),
        ({"a": {1, 2}}, r"state\['a'\]: .*got builtins.set"),
        ({"a": torch.float32}, r"state\['a'\]: .*torch.dtype"),
        ({"a": torch.ones(2).shape}, r"state\['a'\]: .*torch.Size"),
        ({"a": {(1, 2): 3}}, r"state\['a'\]: expected str or int keys, got \(1, 2\)"),
        ([1], "state: expected a dict, got list"),
    ],
)
def test_state_is_tensors_and_plain_python(tmp_path, state, message):
    with make(tmp_path) as run:
        with pytest.raises(TypeError, match=message):
            run.save(1, state)
        assert not list((tmp_path / "checkpoints").iterdir())


def test_state_with_numpy_is_refused(tmp_path):
    with make(tmp_path) as run:
        for value in (np.ones(2), np.float64(1), np.int64(1)):
            with pytest.raises(TypeError, match=r"state\['rng'\]\['x'\]: .*got numpy\."):
                run.save(1, {"rng": {"x": value}})


def test_state_of_modules_optimisers_and_schedulers_comes_back(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    schedulers = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4]),
    ]
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedulers": [s.state_dict() for s in schedulers],
        "alpha": torch.nn.Parameter(torch.ones(2)),
        "plain": (1, 2.5, "x", True, None, 1 << 127, {3: []}),
    }
    with make(tmp_path) as run:
        run.save(1, state)
    with make(tmp_path, resume="auto") as run:
        assert run.state["plain"] == state["plain"]
        assert run.state["schedulers"] == state["schedulers"]
        assert run.state["model"].keys() == state["model"].keys()
        assert all(torch.equal(run.state["model"][k], v) for k, v in state["model"].items())
        torch.optim.Adam(model.parameters()).load_state_dict(run.state["optimizer"])
        moments = run.state["optimizer"]["state"][0]["exp_avg"]
        assert torch.equal(moments, optimizer.state_dict()["state"][0]["exp_avg"])


def test_steps_go_up_and_two_are_kept(tmp_path):
    assert [p.name for p in train(tmp_path, 4)] == ["step-00000003", "step-00000004"]
    with make(tmp_path, resume="auto") as run:
        for step in (4, 3, True, 5.0):
            with pytest.raises(ValueError, match="step: expected an int above 4"):
                run.save(step, {})
        run.save(10**9, {})
        run.save(10**9 + 1, {})
    with make(tmp_path, resume="auto") as run:
        assert run.step == 10**9 + 1


def test_one_large_checkpoint_is_kept_and_mapped(tmp_path, monkeypatch):
    """A replay of Atari takes 7 GB on disk, and is not loaded into memory twice."""
    monkeypatch.setattr("automl_ext.training.files.checkpoint.LARGE", 10_000)
    state, mapped, load = {"replay": torch.arange(10_000)}, [], torch.load
    monkeypatch.setattr(
        torch, "load", lambda *args, **options: mapped.append(options["mmap"]) or load(*args, **options)
    )
    for value, large in ((state, True), ({}, False)):
        with make(tmp_path / str(large)) as run:
            run.save(1, value)
            run.save(2, value)
        kept = sorted(p.name for p in (tmp_path / str(large) / "checkpoints").iterdir())
        assert kept == ["step-00000001", "step-00000002"][large:]
        with make(tmp_path / str(large), resume="auto") as run:
            assert run.state.keys() == value.keys()
            assert all(torch.equal(run.state[name], x) for name, x in value.items())
            run.save(3, run.state)  # its file is read while it is replaced
    assert mapped == [True, False]
