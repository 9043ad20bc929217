"""Pictures of learning: bands and single seeds, bounds of returns, the best policy, titles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_ext.rl.reports.ablation import draw
from automl_ext.rl.reports.plot import BAND_SEEDS, Curve, clipped, interval, plot_runs, together
from automl_ext.training.errors import UserError
from automl_ext.training.intervals import T
from automl_ext.training.pictures.colors import color_of


def fake_run(
    folder: Path, returns: list[float], algorithm: str = "a2c", seed: int = 0, result: Any = None, **config: Any
) -> Path:
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text(json.dumps({"algorithm": algorithm}))
    (folder / "config.json").write_text(json.dumps({"env_id": "CartPole-v1", "seed": seed, **config}))
    rows = [
        {"step": 100 * i + 100, "eval_return": r, "episode_return": r - 1, "epsilon": 0.1 * i, "loss": 1.0}
        for i, r in enumerate(returns)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_curves_show_returns_first_and_mark_the_best_policy(tmp_path: Path, drawn_figures: list[Any]) -> None:
    result = {"best_step": 200, "best_eval_return": 487.5, "env_steps": 300}
    plot_runs([fake_run(tmp_path / "run", [10.0, 400.0, 400.0], result=result)], tmp_path)
    curves, learning = drawn_figures
    title = "A2C on CartPole-v1: return 487.5 (best policy, new episodes), 300 environment steps"
    for figure in (curves, learning):
        assert figure.get_suptitle().replace("\n", " ") == title
        assert figure.axes[0].get_xlabel() == "environment steps"
    (axes,) = curves.axes  # the loss is constant, ε is a schedule
    assert axes.get_ylabel() == "return of an episode"
    assert texts(curves) == ["evaluation", "training", "best policy"]
    assert axes.lines[-1].get_xydata().tolist() == [[200.0, 400.0]]
    assert texts(learning) == ["A2C, 1 seed", "best policy"]


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"best_step": 200, "eval_return_mean": 9.5}, "return 487.5 (best policy, new episodes; last policy 9.5)"),
        ({"best_step": 300, "eval_return_mean": 487.5}, "return 487.5 (best and last policy, new episodes)"),
    ],
)
def test_the_title_names_the_policy_of_each_return(facts, shown, tmp_path: Path, drawn_figures: list[Any]) -> None:
    result = {"best_eval_return": 487.5, "env_steps": 300, **facts}
    plot_runs([fake_run(tmp_path / "run", [10.0, 400.0, 400.0], result=result)], tmp_path)
    title = f"A2C on CartPole-v1: {shown}, 300 environment steps"
    assert {figure.get_suptitle().replace("\n", " ") for figure in drawn_figures} == {title}


@pytest.mark.slow
def test_few_seeds_are_drawn_singly_and_many_with_a_clipped_band(tmp_path: Path, drawn_figures: list[Any]) -> None:
    runs = [
        fake_run(tmp_path / f"{s}", [480.0 + s, 500.0, 100.0 * s], seed=s, algorithm="dqn") for s in range(BAND_SEEDS)
    ]
    plot_runs(runs[:3], tmp_path)
    axes = drawn_figures[-1].axes[0]
    assert not axes.collections
    assert axes.lines[0].get_ydata().tolist() == [481.0, 500.0, 100.0]  # the median
    assert [line.get_ydata().tolist()[0] for line in axes.lines[1:4]] == [480.0, 481.0, 482.0]
    assert {line.get_color() for line in axes.lines[:4]} == {color_of("dqn")}
    assert "median" in drawn_figures[-1].get_suptitle()
    plot_runs(runs, tmp_path)
    axes = drawn_figures[-1].axes[0]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert 0 <= band.min() < 100
    assert band.max() == 500
    assert axes.lines[0].get_ydata().tolist() == [482.0, 500.0, 200.0]  # the mean
    assert "95 %" in drawn_figures[-1].get_suptitle()


def test_bounds_of_returns() -> None:
    low, high = np.array([-10.0]), np.array([2000.0])
    assert clipped("CartPole-v1", low, high) == (0.0, 500.0)
    assert clipped("MinAtar/Breakout-v1", low, high) == (0.0, 2000.0)
    assert clipped("dmc/cartpole-swingup", low, high) == (0.0, 1000.0)
    assert clipped("Unknown-v0", low, high) == (-10.0, 2000.0)


def test_unfinished_run_marks_the_last_of_the_best_evaluations(tmp_path: Path, drawn_figures: list[Any]) -> None:
    plot_runs([fake_run(tmp_path / "run", [5.0, 9.0, 9.0, 1.0])], tmp_path)
    assert drawn_figures[0].axes[0].lines[-1].get_xydata().tolist() == [[300.0, 9.0]]
    assert drawn_figures[0].get_suptitle() == "A2C on CartPole-v1: not finished, 400 environment steps"


def test_offline_algorithms_take_gradient_steps(tmp_path: Path, drawn_figures: list[Any]) -> None:
    result = {"best_step": 200, "best_eval_return": 4.0, "env_steps": 200}
    bc, iql = (fake_run(tmp_path / name, [3.0, 4.0], name, result=result) for name in ("bc", "iql"))
    plot_runs([bc, fake_run(tmp_path / "cql", [3.0, 4.0], "cql")], tmp_path)
    plot_runs([iql, fake_run(tmp_path / "online", [3.0, 4.0])], tmp_path)
    labels = [figure.axes[0].get_xlabel() for figure in drawn_figures]
    assert labels == ["gradient steps"] * 4 + ["environment steps", "environment steps or gradient steps"]
    titles = [figure.get_suptitle().replace("\n", " ") for figure in drawn_figures]
    assert all(titles[i].endswith("new episodes), 200 gradient steps") for i in (0, 3))
    assert titles[1].endswith("not finished, 200 gradient steps")


def test_ablation_names_every_variant(tmp_path: Path, drawn_figures: list[Any]) -> None:
    names = ["rainbow", "no-double", "no-n-step", "dqn"]
    for k, name in enumerate(names):
        for seed in (0, 1):
            fake_run(tmp_path / name / f"seed-{seed}", [1.0 + k, 5.0 + k + 2 * seed])
    draw(tmp_path, names, "CartPole-v1")
    axes = drawn_figures[0].axes[0]
    labels = [f"{label}, 2 seeds" for label in ("Rainbow", "without double", "without n-step", "DQN")]
    assert texts(drawn_figures[0]) == [*labels, "best policy of all seeds"]
    lines = {line.get_label(): line for line in axes.lines}
    assert len({lines[label].get_color() for label in labels}) == 4
    assert lines["Rainbow, 2 seeds"].get_color() == color_of("rainbow")
    assert lines["DQN, 2 seeds"].get_color() == color_of("dqn")
    assert lines["without double, 2 seeds"].get_ydata().tolist() == [2.0, 7.0]  # the median
    title = drawn_figures[0].get_suptitle().replace("\n", " ")
    assert title.startswith("Rainbow without one part at a time on CartPole-v1: median")


@pytest.mark.slow
def test_several_runs_give_one_picture_per_environment(tmp_path: Path, drawn_figures: list[Any]) -> None:
    runs = [fake_run(tmp_path / f"a{s}", [10.0 + s, 20.0 + s, 40.0], seed=s) for s in range(3)]
    runs += [fake_run(tmp_path / "b", [5.0, 6.0, 7.0], double=True), fake_run(tmp_path / "c", [1.0, 2.0], "dqn")]
    written = plot_runs(runs, tmp_path / "out")
    labels = ["A2C, 3 seeds", "A2C double True, 1 seed", "DQN, 1 seed"]
    assert texts(drawn_figures[-1]) == [*labels, "best policy of all seeds"]
    assert written[-1] == tmp_path / "out/learning.png"
    other = fake_run(tmp_path / "d", [1.0, 2.0], "dqn", env_id="MinAtar/Freeway-v1")
    assert [p.name for p in plot_runs([runs[0], other], tmp_path)[-2:]] == [
        "learning-CartPole-v1.png",
        "learning-MinAtar-Freeway-v1.png",
    ]


@pytest.mark.parametrize("depth", [200, 100_000])
def test_plot_refuses_a_deeply_nested_configuration(tmp_path: Path, depth: int) -> None:
    run = fake_run(tmp_path / "run", [1.0, 2.0])
    (run / "config.json").write_text('{"env_id": "CartPole-v1", "x": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(UserError, match=r"config.json is (nested more than|not valid JSON)"):
        plot_runs([run], tmp_path)


def test_band_is_students_t_on_common_steps() -> None:
    one = Curve("a", {}, np.array([100.0, 200.0, 300.0]), np.array([1.0, 2.0, 3.0]))
    two = Curve("a", {}, np.array([150.0, 250.0]), np.array([5.0, 7.0]))
    steps, returns = together([one, two])
    assert steps.tolist() == [150, 200, 250]
    assert returns.tolist() == [[1.5, 2, 2.5], [5, 6, 7]]
    steps, returns = together([Curve("a", {}, np.array([step]), np.array([step / 10])) for step in (10.0, 20.0)])
    assert (steps.tolist(), returns.tolist()) == ([20], [[1], [2]])  # one evaluation each
    low, high = interval(np.array([[1.0], [2.0], [6.0]]))
    half = 4.303 * np.sqrt(7 / 3)
    assert (low[0], high[0]) == pytest.approx((3 - half, 3 + half))
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_allclose(T, stats.t.ppf(0.975, np.arange(1, 31)), atol=5.1e-4)
