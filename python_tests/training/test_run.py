"""The run directory: opening, resuming, logging, refusals."""

import json
import logging
import math
import shutil
import sys
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from training_helpers import Config, Optimizer, logged, make, train

from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.rl.algorithms.ppo import PPOConfig
from automl_ext.training import progress
from automl_ext.training.epochs import Steps
from automl_ext.training.errors import UserError
from automl_ext.training.files import metrics
from automl_ext.training.run import Run


def test_a_fresh_run_writes_its_files(tmp_path):
    out = tmp_path / "a" / "run"
    with make(out) as run:
        assert (run.path, run.step, run.state) == (out, 0, None)
        run.log(1, loss=0.5, images=7, accuracy=torch.tensor(0.25), broken=math.nan)
        run.finish({"accuracy": 0.5, "cells": ("a", {"b": None}), "loss": math.nan, "most": -math.inf})
    assert json.loads((out / "config.json").read_text()) == {
        "epochs": 4,
        "where": "data",
        "betas": [0.5, 0.999],
        "optimizer": {"lr": 0.025, "clip": "inf"},
    }
    environment = json.loads((out / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert environment["algorithm"] == "toy"
    assert {"python", "automl_ext", "build_info", "cpu", "platform", "command_line", "time_started"} <= set(environment)
    line = (out / "metrics.jsonl").read_text()
    assert line == '{"step": 1, "loss": 0.5, "images": 7, "accuracy": 0.25, "broken": null}\n'
    result = json.loads((out / "result.json").read_text())
    assert result == {"accuracy": 0.5, "cells": ["a", {"b": None}], "loss": None, "most": None}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_lines_are_on_disk_at_once(tmp_path):
    with make(tmp_path) as run:
        run.log(1, loss=1.0)
        assert logged(tmp_path) == [1]


def test_what_is_not_a_number_or_plain_is_refused(tmp_path):
    with make(tmp_path) as run:
        with pytest.raises(TypeError, match="expected a number for 'loss', got str"):
            run.log(1, loss="low")
        with pytest.raises(TypeError, match=r"cells\[1\]: Tensor is not plain Python"):
            run.finish({"cells": [1, torch.ones(1)]})
        with pytest.raises(TypeError, match="accuracy: float32"):
            run.finish({"accuracy": np.float32(1)})
    assert not (tmp_path / "result.json").exists()
    assert logged(tmp_path) == []
    with pytest.raises(TypeError, match="config: expected a dataclass instance, got dict"):
        Run.open(tmp_path / "b", {"epochs": 1}, algorithm="toy")


def test_a_folder_that_is_not_empty_needs_resume(tmp_path):
    train(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"is not empty.*--resume auto"):
        make(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use the run directory"):
        make(tmp_path / "file")
    with pytest.raises(UserError, match="cannot use the run directory"):
        make(tmp_path / "file" / "below")


def test_auto_never_clears_a_folder_of_other_things(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(UserError, match="not a run directory"):
        make(tmp_path, resume="auto")
    (tmp_path / "environment.json").write_text("[1]")
    with pytest.raises(UserError, match="not a run directory"):
        make(tmp_path, resume="auto")
    assert (tmp_path / "metrics.jsonl").read_text() == "mine"


def test_auto_goes_on_from_the_newest(tmp_path):
    train(tmp_path)
    with make(tmp_path, resume="auto") as run:
        assert run.step == 3
        assert run.state["w"].tolist() == [3.0] * 3
        run.log(4, loss=0.25)
        run.save(4, {"w": torch.zeros(1)})
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000003",
        "step-00000004",
    ]
    assert logged(tmp_path) == [1, 2, 3, 4]
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert [start["step"] for start in environment["resumed"]] == [3]


@pytest.mark.parametrize("before", ["nothing", "empty", "torn", "metrics", "full"])
def test_auto_without_a_checkpoint_is_a_fresh_start(tmp_path, before):
    out = tmp_path / "run"
    if before in ("empty", "torn"):
        out.mkdir()
    if before == "torn":
        (out / ".environment.json.tmp").write_text('{"automl')
    if before in ("metrics", "full"):
        with make(out) as run:
            run.log(1, loss=1.0)
            if before == "full":
                run.finish({"accuracy": 1.0})
        (out / "checkpoints" / ".tmp-step-00000001").mkdir()
    with make(out, replace(Config(), epochs=9), resume="auto") as run:
        assert (run.step, run.state) == (0, None)
        assert logged(out) == []
        assert not (out / "result.json").exists()
        assert not list((out / "checkpoints").iterdir())
    assert json.loads((out / "config.json").read_text())["epochs"] == 9


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    with make(tmp_path) as run:
        run.log(1, loss=1.0)
        run.log(1, accuracy=0.5)
        run.save(1, {})
        kept = (tmp_path / "metrics.jsonl").read_bytes()
        run.log(1, late=1.0)
        run.log(2, loss=0.5)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "lo')
    make(tmp_path, resume="auto").close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept


def test_lost_metrics_are_said_and_the_torn_line_goes(tmp_path):
    train(tmp_path)
    first = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)[0]
    (tmp_path / "metrics.jsonl").write_text(first + '{"step"')
    with pytest.warns(UserWarning, match="has lost lines"):
        make(tmp_path, resume="auto").close()
    assert (tmp_path / "metrics.jsonl").read_text() == first


@pytest.mark.parametrize("file", ["", "state.pt", "manifest.json"])
def test_a_path_of_the_same_run_drops_later_ones(tmp_path, file):
    older = train(tmp_path)[0]
    with make(tmp_path, resume=str(older / file)) as run:
        assert run.step == 2
        assert logged(tmp_path) == [1, 2]
    with make(tmp_path, resume="auto") as run:
        assert run.step == 2


def test_a_path_of_another_run_is_copied_with_its_metrics(tmp_path):
    older = train(tmp_path / "a")[0]
    with make(tmp_path / "b", resume=str(older)) as run:
        assert (run.step, run.state["w"].tolist()) == (2, [2.0] * 3)
    assert logged(tmp_path / "b") == [1, 2]
    assert logged(tmp_path / "a") == [1, 2, 3]
    with make(tmp_path / "b", resume="auto") as run:
        assert run.step == 2
    with pytest.raises(UserError, match=r"does not belong to .*b, which is not empty"):
        make(tmp_path / "b", resume=str(older))


def test_a_missing_path_and_a_wrong_folder(tmp_path):
    train(tmp_path)
    with pytest.raises(UserError, match="there is no checkpoint at"):
        make(tmp_path, resume=str(tmp_path / "checkpoints" / "step-9"))
    for out in (tmp_path, tmp_path / "new"):
        for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "config.json"):
            with pytest.raises(UserError) as caught:
                make(out, resume=str(path))
            assert str(caught.value) == f"--resume: expected a checkpoint, a folder checkpoints/step-…, got {path}"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("config", [PPOConfig, GDASConfig])
def test_a_run_on_a_gpu_goes_on_on_the_cpu(tmp_path, monkeypatch, config):
    with monkeypatch.context() as on_gpu:
        on_gpu.setattr(torch.cuda, "is_initialized", lambda: True)
        on_gpu.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
        with make(tmp_path, config(device="cuda")) as run:
            run.save(1, {"w": torch.zeros(3)})
    with (
        pytest.warns(UserWarning, match="made with GPU A GPU, now it is none: the result may differ .* last bits"),
        make(tmp_path, config(device="cpu"), resume="auto") as run,
    ):
        assert run.step == 1


@pytest.mark.parametrize("path", ["auto", "PATH"])
def test_a_changed_configuration_names_key_and_values(tmp_path, path):
    newest = train(tmp_path)[-1]
    resume = str(newest) if path == "PATH" else path
    changed = replace(Config(), epochs=5, optimizer=Optimizer(lr=0.1))
    with pytest.raises(UserError, match=r"epochs was 4 and is now 5, optimizer.lr was 0.025 and is now 0.1"):
        make(tmp_path, changed, resume=resume)
    with pytest.raises(UserError, match=r"optimizer.clip was 'inf' and is now 1.0"):
        make(tmp_path, replace(Config(), optimizer=Optimizer(clip=1.0)), resume=resume)

    @dataclass
    class Other:
        epochs: int = 4

    with pytest.raises(UserError, match=r"options removed or renamed: betas, optimizer\.clip, optimizer\.lr, where"):
        make(tmp_path, Other(), resume=resume)
    assert logged(tmp_path) == [1, 2, 3]
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 4


def test_another_algorithm_torch_or_thread_count(tmp_path, monkeypatch):
    train(tmp_path)
    with pytest.raises(UserError, match="belongs to algorithm 'toy', not 'gdas'"):
        make(tmp_path, resume="auto", algorithm="gdas")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(UserError, match=rf"set OMP_NUM_THREADS={threads} \(or"):
            make(tmp_path, resume="auto")
    finally:
        torch.set_num_threads(threads)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.9.1")
        with pytest.raises(UserError, match=r"this is torch 2.9.1: install torch 2\.\d+$"):
            make(tmp_path, resume="auto")
    monkeypatch.setattr("automl_ext.training.machine.environment.cpu_name", lambda: "another CPU")
    with pytest.warns(UserWarning, match=r"now it is another CPU: the result may differ"):
        make(tmp_path, resume="auto").close()


def test_tensorboard_scalars_when_installed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path)
    with make(tmp_path, resume=str(tmp_path / "checkpoints" / "step-00000002")) as run:
        run.log(3, loss=7.0)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(e.step, e.value) for e in events] == [(1, 1.0), (2, 0.5), (3, 7.0)]


def test_no_tensorboard_no_curves(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    assert logged(tmp_path) == [1, 2, 3]


def test_progress_starts_at_the_checkpoint_and_prints_nothing_of_its_own_without_a_terminal(tmp_path, capsys):
    train(tmp_path)
    with make(tmp_path, resume="auto") as run:
        assert list(run.progress(6, "search")) == [3, 4, 5]
        assert list(run.progress(2, "search")) == []
        with run.progress(100, "steps") as bar:
            bar.advance(10)
    assert capsys.readouterr() == ("", f"{tmp_path}: continues from step 3\n")


def test_measurements_are_lines_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0)
    with make(tmp_path) as run:
        run.log(0, loss=2)  # before the bar
        for epoch in run.progress(1_200, "search"):
            run.log(epoch + 1, loss=1 / 3, **{f"more{i}": i for i in range(9)})
            if epoch == 1:
                break
        with run.progress(3, "retrain"):
            run.log(3, loss=float("nan"))
            run.log(5, loss=0.25)
        run.log(6, loss=2)  # after it
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "search 1/1,200, 0 s: loss 0.3333, more0 0, more1 1, more2 2, more3 3, more4 4",
        "search 2/1,200, 0 s: loss 0.3333, more0 0, more1 1, more2 2, more3 3, more4 4",
        "retrain 3/3, 0 s: loss nan",
        "retrain 5/3, 0 s: loss 0.25",  # the last iteration of an agent may exceed its steps
    ]


def test_fast_measurements_share_a_line_and_the_last_one_is_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 1e9)
    with make(tmp_path) as run:
        for epoch in run.progress(100, "search"):
            run.log(epoch + 1, loss=epoch)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(",")[0] for line in lines] == ["search 1/100", "search 100/100"]
        with run.progress(100, "budget", percent=True):  # 100 percent are not 100 steps
            for epoch in range(100, 400):
                run.log(epoch + 1, loss=epoch)
    assert [line[:16] for line in capsys.readouterr().err.splitlines()] == ["budget, step 101"]


def test_lines_of_a_budget_say_what_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0)
    with make(tmp_path) as run, Steps(run, 100, "auto", None, dict, percent=lambda: 5) as steps:
        for name in ("pooled, C = 8", "plain, C = 6"):
            steps.add({"race_loss": 0.5}, description=f"race: {name}")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"race: {x}, 0 s: race_loss 0.5" for x in ("pooled, C = 8, step 1", "plain, C = 6, step 2")]


@pytest.mark.parametrize("level", ["shown", "quiet"])
def test_progress_on_a_terminal(tmp_path, monkeypatch, capsys, level):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logger = logging.getLogger("automl_ext")
    monkeypatch.setattr(logger, "level", logging.ERROR if level == "quiet" else logging.NOTSET)
    logger.manager._clear_cache()
    with make(tmp_path) as run:
        assert list(run.progress(3, "search")) == [0, 1, 2]
    logger.manager._clear_cache()
    out, err = capsys.readouterr()
    assert out == ""
    assert ("search" in err) == (level == "shown")


def test_a_deleted_run_directory_ends_the_run_in_one_line(tmp_path, capfd):
    pytest.importorskip("tensorboard")
    out, hook = tmp_path / "run", threading.excepthook
    metrics._leave_errors_to_writer.cache_clear()
    threading.excepthook = threading.__excepthook__  # that of pytest warns
    try:
        with pytest.raises(UserError, match=r"run: the run directory was deleted while the run went on$"):
            log_after_deletion(out)
    finally:
        threading.excepthook = hook
        metrics._leave_errors_to_writer.cache_clear()
    assert capfd.readouterr().err == ""


def log_after_deletion(out):
    with make(out) as run:
        run.log(1, loss=1.0)
        shutil.rmtree(out)
        for step in range(2, 10):
            run.log(step, loss=1.0)
            run.save(step, {"weights": torch.zeros(1)})
