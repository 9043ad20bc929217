"""``automl-ext train``, ``eval`` and ``plot`` of RL runs, with a toy algorithm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rl_worlds import Toy, ToyConfig

from automl_ext import cli
from automl_ext.rl.loop import loop
from automl_ext.rl.registry import ALGORITHMS, Classes
from automl_ext.rl.reports.evaluate_run import evaluate_run
from automl_ext_cli import Command
from automl_ext_cli.table import COMMANDS, RUNS


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Register the algorithm "toy"."""
    command = Command("agent", "", "rl_worlds:ToyConfig", "rl_worlds:Toy")
    command.name = "toy"
    monkeypatch.setitem(COMMANDS, "train toy", command)
    monkeypatch.setitem(ALGORITHMS, "toy", Classes(command.options, command.run))
    monkeypatch.setitem(RUNS, "train toy", command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def command(*args: object) -> int:
    return cli.main([str(arg) for arg in args])


SMALL = ["--total-steps", 200, "--eval-every", 50, "--eval-episodes", 2, "--final-episodes", 2]


def test_train_eval_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--env-id", "CartPole-v1", "--seed", 3, "--n-envs", 2]
    assert command("train", "toy", *SMALL, *flags, "--stop-after", 80) == 0
    assert "--resume auto" in capsys.readouterr().out
    assert command("train", "toy", *SMALL, *flags, "--resume", "auto") == 0
    run = tmp_path / "runs/toy"  # the default of --out
    result = json.loads((run / "result.json").read_text())
    assert {"eval_return_mean", "eval_return_std", "best_eval_return", "env_steps"} <= set(result)
    assert {"seconds", "cpu_seconds", "steps_per_second"} <= set(result)
    capsys.readouterr()

    assert command("eval", "runs/toy", "--episodes", 4, "--json") == 0
    best = json.loads(capsys.readouterr().out)
    assert (best["episodes"], best["policy"]) == (4, "best")
    assert command("eval", "runs/toy", "--episodes", 4, "--policy", "last", "--seed", 1, "--json") == 0
    last = json.loads(capsys.readouterr().out)
    assert last["policy_step"] == result["env_steps"]
    assert last["eval_return_min"] <= last["eval_return_mean"] <= last["eval_return_max"]

    assert command("plot", "runs/toy") == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["curves.png", "learning.png"]
    assert (run / "learning.png").stat().st_size > 5000


def test_evaluation_depends_on_its_seed_and_does_not_change_the_run(tmp_path: Path) -> None:
    loop.train(Toy, ToyConfig(), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    one, again, other = (evaluate_run(tmp_path / "run", 10, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_environment_options_are_stored_and_used_again(tmp_path: Path) -> None:
    assert command("train", "toy", *SMALL, "--reward-clip", 0.5, "--vectorization", "sync", "--out", "r") == 0
    assert json.loads((tmp_path / "r/config.json").read_text())["env"] == {
        "vectorization": "sync",
        "frame_stack": None,
        "reward_clip": 0.5,
        "terminal_on_life_loss": False,
        "action_repeat": 1,
        "pixels": False,
        "step_timeout": 300.0,
        "wrapper": [],
        "env_kwarg": [],
        "central_critic": False,
    }
    result = evaluate_run(tmp_path / "r", 3)
    assert result["eval_return_mean"] >= 8  # not clipped: an episode has at least eight steps


@pytest.mark.parametrize(("suffix", "module"), [("gif", "PIL"), ("mp4", "imageio_ffmpeg")])
def test_videos(tmp_path: Path, suffix: str, module: str) -> None:
    pytest.importorskip("pygame")
    pytest.importorskip(module)
    loop.train(Toy, ToyConfig(total_steps=50), tmp_path / "run")
    path = tmp_path / f"shown/episode.{suffix}"
    result = evaluate_run(tmp_path / "run", 1, videos=(path,))
    assert result["video_return"] == result["video_steps"] >= 8
    if suffix == "gif":
        from PIL import Image

        with Image.open(path) as image:
            assert image.n_frames > 1
            assert image.size == (600, 400)
    else:
        import imageio_ffmpeg

        assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == result["video_steps"]


def refused(capsys: pytest.CaptureFixture, text: str, *args: object) -> None:
    assert command(*args) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert re.search(text, errors[0]), errors[0]


def test_user_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    refused(capsys, "Environment `Nope` doesn't exist", "train", "toy", "--env-id", "Nope-v1", "--out", "a")
    refused(capsys, "nowhere: expected a run directory, it does not exist", "eval", "nowhere")
    (tmp_path / "empty").mkdir()
    refused(capsys, "empty: expected a run of .*dqn.*not a run directory", "eval", tmp_path / "empty")
    loop.train(Toy, ToyConfig(), tmp_path / "run", stop_after=10)
    refused(capsys, "best.pt is missing.*--policy last", "eval", "run")
    refused(capsys, "episodes: expected at least 1", "eval", "run", "--episodes", 0, "--policy", "last")
    refused(capsys, r"expected a name that ends in \.gif or \.mp4", "eval", "run", "--gif", "a.png")
    refused(capsys, "metrics.jsonl is empty", "plot", "run")
    (tmp_path / "run/best.pt").write_bytes(b"no checkpoint")
    refused(capsys, "best.pt is damaged", "eval", "run")
    (tmp_path / "run/config.json").write_text('{"env_idd": 1}')
    refused(capsys, "options removed or renamed: env_idd", "eval", "run", "--policy", "last")


def test_damaged_last_checkpoint_is_skipped(tmp_path: Path) -> None:
    loop.train(Toy, ToyConfig(), tmp_path / "run")
    newest = max((tmp_path / "run/checkpoints").iterdir())
    (newest / "state.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipping the damaged checkpoint"):
        assert evaluate_run(tmp_path / "run", 1, policy="last")["policy_step"] < int(newest.name[5:])


def test_seeds_with_one_evaluation_each_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = ["--total-steps", 600, "--eval-every", 600, "--eval-episodes", 1, "--final-episodes", 1]
    assert command("train", "a2c", *few, "--seeds", "0:2", "--out", tmp_path / "seeds") == 0
    assert "a2c: 2 seeds" in capsys.readouterr().out
    assert (tmp_path / "seeds/learning.png").is_file()


@pytest.mark.slow
def test_ablate(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--learning-starts", 10, "--train-freq", 50, "--gradient-steps", 1, "--hidden", 8, "--atoms", 5]
    assert command("train", "dqn", "--ablate", *SMALL, *flags, "--out", "runs/ablation") == 0
    results = json.loads((tmp_path / "runs/ablation/ablation.json").read_text())
    names = {
        "rainbow",
        "dqn",
        "no-double",
        "no-dueling",
        "no-prioritized",
        "no-n-step",
        "no-distributional",
        "no-noisy",
    }
    assert set(results) == names
    for name in names:
        config = json.loads((tmp_path / f"runs/ablation/{name}/seed-0/config.json").read_text())
        assert config["noisy"] == (name not in ("dqn", "no-noisy"))
    assert (tmp_path / "runs/ablation/ablation.png").stat().st_size > 1000
    assert "ablation.png" in capsys.readouterr().out
    assert command("train", "dqn", "--ablate", *SMALL, *flags, "--gamma", 0.5, "--out", "runs/ablation") == 2
    assert "has another configuration: gamma was 0.99 and is now 0.5" in capsys.readouterr().err
    assert command("train", "dqn", "--ablate", *SMALL, *flags, "--out", "runs/ablation") == 0
    again = json.loads((tmp_path / "runs/ablation/ablation.json").read_text())
    assert again == results  # with its times: finished runs are skipped
