"""``automl-ext train``, ``eval`` and ``plot`` of RL runs, with a toy algorithm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("rich", reason="the command line needs rich")
from rl_worlds import Toy, ToyConfig

from automl_ext import cli
from automl_ext.rl.loop import loop
from automl_ext.rl.registry import ALGORITHMS, algorithm
from automl_ext.rl.reports.evaluate_run import evaluate_run
from automl_ext.rl.reports.plot import interval, plot_runs, together
from automl_ext.runners import RUNNERS
from automl_ext.training.intervals import T
from automl_ext_cli.table import COMMANDS, Command


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Register the algorithm "toy"."""
    command = Command("agent", "", "rl_worlds:ToyConfig", "rl_worlds:Toy")
    monkeypatch.setitem(COMMANDS, "train toy", command)
    monkeypatch.setitem(ALGORITHMS, "toy", command)
    monkeypatch.setitem(
        RUNNERS, "train toy", RUNNERS["train a2c"]._replace(load=lambda: (ToyConfig, algorithm("toy").train))
    )
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

    pytest.importorskip("matplotlib")
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


def fake_run(folder: Path, algorithm: str, seed: int, returns: list[float], **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text(json.dumps({"algorithm": algorithm}))
    (folder / "config.json").write_text(json.dumps({"env_id": "CartPole-v1", "seed": seed, **config}))
    lines = [json.dumps({"step": 100 * i + 100, "eval_return": r, "loss": 1.0}) for i, r in enumerate(returns)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder


def test_several_runs_give_one_picture_per_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    runs = [fake_run(tmp_path / f"a{s}", "toy", s, [10.0 + s, 20.0 + s, 40.0]) for s in range(3)]
    runs += [fake_run(tmp_path / "b", "toy", 0, [5.0, 6.0, 7.0], double=True)]
    runs += [fake_run(tmp_path / "c", "dqn", 0, [1.0, 2.0])]
    labels: list[str] = []
    from matplotlib.axes import Axes

    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, *a, **k: labels.append(k.get("label", "")) or plot(self, *a, **k))
    written = plot_runs(runs, tmp_path / "out")
    groups = [label for label in labels if re.search(r", \d seed", label)]
    assert groups == ["toy, 3 seeds", "toy double True, 1 seed", "DQN, 1 seed"]
    assert written[-1] == tmp_path / "out/learning.png"
    other = fake_run(tmp_path / "d", "dqn", 0, [1.0, 2.0], env_id="MinAtar/Freeway-v1")
    assert [p.name for p in plot_runs([runs[0], other], tmp_path)[-2:]] == [
        "learning-CartPole-v1.png",
        "learning-MinAtar-Freeway-v1.png",
    ]


@pytest.mark.parametrize("depth", [200, 100_000])
def test_plot_refuses_a_deeply_nested_configuration(tmp_path: Path, capsys: pytest.CaptureFixture, depth: int) -> None:
    pytest.importorskip("matplotlib")
    run = fake_run(tmp_path / "run", "toy", 0, [1.0, 2.0])
    (run / "config.json").write_text('{"env_id": "CartPole-v1", "x": ' + "[" * depth + "]" * depth + "}")
    refused(capsys, "config.json is (nested more than|not valid JSON)", "plot", str(run))


def test_band_is_students_t_on_common_steps(tmp_path: Path) -> None:
    from automl_ext.rl.reports.plot import Curve

    one = Curve("a", {}, np.array([100.0, 200.0, 300.0]), np.array([1.0, 2.0, 3.0]))
    two = Curve("a", {}, np.array([150.0, 250.0]), np.array([5.0, 7.0]))
    steps, returns = together([one, two])
    assert steps.tolist() == [150, 200, 250]
    assert returns.tolist() == [[1.5, 2, 2.5], [5, 6, 7]]
    low, high = interval(np.array([[1.0], [2.0], [6.0]]))
    half = 4.303 * np.sqrt(7 / 3)
    assert (low[0], high[0]) == pytest.approx((3 - half, 3 + half))
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_allclose(T, stats.t.ppf(0.975, np.arange(1, 31)), atol=5.1e-4)


def test_seeds_with_one_evaluation_each_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from automl_ext.rl.reports.plot import Curve

    steps, returns = together([Curve("a", {}, np.array([step]), np.array([step / 10])) for step in (10.0, 20.0)])
    assert steps.tolist() == [20]
    assert returns.tolist() == [[1], [2]]
    pytest.importorskip("matplotlib")
    few = ["--total-steps", 600, "--eval-every", 600, "--eval-episodes", 1, "--final-episodes", 1]
    assert command("train", "a2c", *few, "--seeds", "0:2", "--out", tmp_path / "seeds") == 0
    assert "a2c: 2 seeds" in capsys.readouterr().out
    assert (tmp_path / "seeds/learning.png").is_file()


def test_ablate(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("matplotlib")
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
