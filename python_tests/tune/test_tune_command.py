"""``automl-ext tune``: the objective of a command, its ranges, and the flags of what was found."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from automl_ext.nas.strategies.evolution import EvolutionConfig
from automl_ext.nas.strategies.renas import ReNASConfig
from automl_ext.rl.algorithms.a2c import A2CConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.rl.extras import Extras
from automl_ext.training.errors import UserError
from automl_ext.training.run import read_config
from automl_ext.training.search_space import Categories, Range, search_space
from automl_ext.tune.commands.command import CommandTuneConfig, known_points, tune_command
from automl_ext.tune.commands.flags import as_flags, as_toml, toml_value
from automl_ext.tune.commands.objective import CommandObjective, TunedBy, value_of
from automl_ext.tune.commands.ranges import space_of
from automl_ext.tune.commands.report import table_of
from automl_ext.tune.portfolio import Portfolio
from automl_ext.tune.reporting import Pruned, Reports, reporting
from automl_ext.tune_command import TUNABLE
from automl_ext_cli.table import LEARNERS

TINY = A2CConfig(total_steps=160, n_envs=2, eval_every=40, eval_episodes=1, final_episodes=1, hidden=(8,))
FLAGS = as_flags(TINY).split()
RETURN = TunedBy("eval_return_mean", "eval_return")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any) -> Any:
    """Return a function that runs a command in tmp_path. It returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return command


def test_options_that_the_table_does_not_read_are_not_searched() -> None:
    for config in (EvolutionConfig, ReNASConfig):
        assert list(space_of(config(evaluator="table"), None)) == ["population", "sample"]
    assert {"batch_size", "lr", "population"} <= {*space_of(EvolutionConfig(), None)}


def objective(settings: Any = TINY, by: TunedBy = RETURN) -> CommandObjective:
    return CommandObjective(TUNABLE["train a2c"].load, settings, by)


def test_several_seeds_are_refused(run: Any, tmp_path: Path) -> None:
    code, _, err = run("tune", "train", "a2c", *FLAGS, "--trials", 3, "--seeds", "0:2", "--out", "tuned")
    assert code == 2
    assert "--seeds: expected --seed" in err
    assert "--trial-seeds" in err
    assert not (tmp_path / "tuned").exists()


@pytest.mark.slow
def test_trials_of_several_seeds(run: Any, tmp_path: Path) -> None:
    several = ("--trials", 2, "--trial-seeds", 2, "--confirm", 1)
    code, out, err = run("tune", "train", "a2c", *FLAGS, *several, "--out", "tuned", "--json")
    assert code == 0, err
    best = json.loads(out)["best"]
    folders = tmp_path / f"tuned/trials/{best['trial']:04d}", tmp_path / f"tuned/confirm/{best['trial']:02d}01"
    runs = [run for folder in folders for run in sorted(folder.glob("run-*"))]
    assert [json.loads((run / "config.json").read_text())["seed"] for run in runs] == [0, 1, 2, 3]
    values = [json.loads((run / "result.json").read_text())["eval_return_mean"] for run in runs]
    assert best["value"] == pytest.approx(fmean(values))
    assert "run-" not in json.loads(out)["command_line"]


def test_naming_the_default_objective_changes_nothing(run: Any, tmp_path: Path) -> None:
    """The accuracy on validation images needs --validate, which tune sets."""
    cell = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    retrain = ["--genotype", cell, "--data", "digits", "--subset", 200, "--channels", 2, "--epochs", 1]
    options = ["--trials", 1, "--objective", "retrain_valid_accuracy", "--out", "tuned", "--json"]
    code, out, err = run("tune", "retrain", *retrain, *options)
    assert code == 0, err
    assert 0 <= json.loads(out)["best"]["value"] <= 1


@pytest.mark.slow
def test_tune_and_train_with_what_it_found(run: Any, tmp_path: Path) -> None:
    code, out, err = run("tune", "train", "a2c", *FLAGS, "--trials", 3, "--confirm", 0, "--out", "tuned", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result == json.loads((tmp_path / "tuned/result.json").read_text())
    assert result["command"] == "train a2c"
    trial = tmp_path / f"tuned/trials/{result['best']['trial']:04d}"
    assert json.loads((trial / "result.json").read_text())["eval_return_mean"] == result["best"]["value"]
    default = A2CConfig(extras=Extras())
    assert read_config(tmp_path / "tuned/trials/0000", default) == dataclasses.replace(TINY, extras=Extras())
    line = result["command_line"].split()
    assert line[:3] == ["automl-ext", "train", "a2c"]
    for out_, arguments in (("flags", line[3:]), ("toml", ["--config", "tuned/best.toml"])):
        assert run("train", "a2c", *arguments, "--out", out_)[0] == 0
        assert (tmp_path / out_ / "config.json").read_text() == (trial / "config.json").read_text()
        assert (tmp_path / out_ / "metrics.jsonl").read_text() == (trial / "metrics.jsonl").read_text()
    code, out, err = run("tune", "train", "a2c", *FLAGS, "--trials", 3, "--out", "tuned", "--resume", "auto")
    assert code == 0, err
    assert "with other seeds" in out
    assert "ent_coef" in out
    assert "3 finished" in out
    assert "0.1 to 1" in out


def test_without_a_command_it_lists_those_that_can_be_tuned(run: Any) -> None:
    code, out, _ = run("tune", "--help")
    assert code == 0
    assert "train ppo" in out
    assert "nas-bench" not in out
    assert run("tune") == (2, "", out)
    code, out, err = run("tune", "train", "pppo")
    assert (code, out) == (2, "")
    assert "did you mean 'ppo'?" in err
    code, _, err = run("tune", "compare")
    assert code == 2
    assert "tune: unknown command 'compare'" in err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["train", "a2c"], "trials, minutes: expected a budget"),
        (["train", "a2c", "--trials", 0], "trials: expected at least 1"),
        (["train", "a2c", "--trials", 1, "--lr", -1], "lr: expected above 0"),
        (["train", "a2c", "--trials", 1, "--trial-seeds", 0], "trial_seeds: expected at least 1"),
        (["train", "dreamer", "--trials", 1], "DreamerConfig declares no ranges"),
        (["train", "reinforce", "--trials", 1, "--sampler", "experience"], "no experience with train reinforce"),
        (["train", "a2c", "--trials", 1, "--portfolio", "none.json"], "none.json"),
        (
            ["train", "a2c", "--trials", 1, "--portfolio", "a.json", "--sampler", "gp"],
            "portfolio: expected the sampler",
        ),
        (["retrain", "--trials", 1, "--objective", "test_accuracy"], "of the test data"),
        (
            ["retrain", "--trials", 1, "--objective", "valid_log_loss"],
            "--objective valid_log_loss is a loss and needs --minimize",
        ),
        (["train", "a2c", "--trials", 1, "--env-id", "Nope-v0"], "the first trial failed"),
        (["train", "a2c", "--trials", 1, "--resume", "runs/x"], "resume: expected auto"),
    ],
)
def test_wrong_options_are_one_line(run: Any, arguments: list[Any], error: str) -> None:
    code, _, err = run("tune", *arguments, "--out", "tuned")
    assert code == 2
    assert error in " ".join(err.split())
    assert "Traceback" not in err


def test_no_option_of_tuning_hides_one_of_a_command() -> None:
    tuning = {f.name for f in dataclasses.fields(CommandTuneConfig)} - {"seed", "workers"}
    for name, runner in (TUNABLE | LEARNERS).items():
        assert not tuning & {f.name for f in dataclasses.fields(runner.load()[0])}, name


def test_declared_spaces_hold_the_defaults() -> None:
    for name, runner in (TUNABLE | LEARNERS).items():
        kind = runner.load()[0]
        for option, values in search_space(kind).items():
            value = getattr(kind(), option)
            if isinstance(values, Range):
                # A logarithmic range cannot hold 0.
                assert values.low <= value <= values.high or (value == 0 and values.log), (name, option)
            else:
                assert value in values.values, (name, option)


def logged(run: Path) -> list[int]:
    """Return the steps of a run's evaluations."""
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_trial_continues_from_its_checkpoint(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, checkpoint_every=40)
    whole = objective(settings)({"lr": 0.01}, tmp_path / "whole")
    _, train = TUNABLE["train a2c"].load()
    assert train(dataclasses.replace(settings, lr=0.01), tmp_path / "parts", stop_after=80) is None
    reports = Reports()
    with reporting(reports):
        assert objective(settings)({"lr": 0.01}, tmp_path / "parts") == whole
    assert [step for step, _ in reports.values] == logged(tmp_path / "whole")  # also those before the interruption
    assert len(reports.values) == 4
    before = (tmp_path / "parts/result.json").stat().st_mtime_ns
    assert objective(settings)({"lr": 0.01}, tmp_path / "parts") == whole  # finished: it is not repeated
    assert (tmp_path / "parts/result.json").stat().st_mtime_ns == before


def test_a_trial_is_pruned_by_what_the_run_logs(tmp_path: Path) -> None:
    with reporting(Reports(lambda step, value: step >= 80)), pytest.raises(Pruned):
        objective()({}, tmp_path / "run")
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "run/result.json").exists()


def test_the_objective_of_several_seeds_is_their_mean(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, final_episodes=8)  # so that two means are not equal by chance
    reports = Reports()
    with reporting(reports):
        found = dataclasses.replace(objective(settings), seeds=2)({"lr": 0.01}, tmp_path / "trial")
    runs = [tmp_path / f"trial/run-{i}" for i in range(2)]
    assert [read_config(run, A2CConfig()).seed for run in runs] == [TINY.seed, TINY.seed + 1]
    returns = [json.loads((run / "result.json").read_text())["eval_return_mean"] for run in runs]
    assert returns[0] != returns[1]
    assert found == pytest.approx(sum(returns) / 2)
    assert [step for step, _ in reports.values] == logged(runs[0])
    (tmp_path / "trial/run-1/result.json").unlink()
    assert dataclasses.replace(objective(settings), seeds=2)({"lr": 0.01}, tmp_path / "trial") == found


def test_a_refused_point_makes_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gamma: expected"):
        objective()({"gamma": 2.0}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"a": 1, "times": {"seconds": 2.5}, "ok": true}')
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "valid": 0.5}\n{"step": 2, "valid": 0.75}\n{"step": 3, "x": 1}\n'
    )
    assert [value_of(tmp_path, name) for name in ("a", "times.seconds", "valid")] == [1.0, 2.5, 0.75]
    with pytest.raises(UserError, match="objective: expected one of valid, x, a, got ok"):
        value_of(tmp_path, "ok")


@dataclass
class Inner:
    depth: int = 3


@dataclass
class Settings:
    lr: float = 0.1
    size: int = 8
    kind: str = "a"
    limit: int | None = 5
    inner: Inner = field(default_factory=Inner)


def test_ranges_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ranges.toml"

    def space(text: str) -> Any:
        path.write_text(text)
        return space_of(Settings(), path)

    assert space('[lr]\nlow = 1\nhigh = 2\n["inner.depth"]\nlow = 1\nhigh = 9\nlog = true') == {
        "lr": Range(1.0, 2.0),
        "inner.depth": Range(1, 9, log=True),
    }
    assert space('only = ["kind"]\n[kind]\nvalues = ["a", "b"]') == {"kind": Categories("a", "b")}
    assert space("[limit]\nlow = 1\nhigh = 4") == {"limit": Range(1, 4)}
    assert space("[limit]\nlow = 1\nhigh = 4")["limit"].whole  # type: ignore[union-attr]
    for text, error in {
        "": "declares no ranges",
        "[lrr]\nlow = 1\nhigh = 2": "unknown option 'lrr'; valid ones are lr, size",
        "[lr]\nlow = 2\nhigh = 1": "lr: Range: expected low < high",
        "[size]\nlow = 1.5\nhigh = 3": "size: expected whole numbers",
        "[lr]\nvalues = [[1]]": "lr: must be float",
        "[lr]\nvalues = ['inf', 1]": "lr: Categories: expected finite numbers",
        f"[lr]\nlow = 1\nhigh = {10**400}": "lr: int too large",
        f"[size]\nlow = 1\nhigh = {10**400}": "size: Range: expected low < high within",
        "[size]\nvalues = ['small', 'large']": "size: must be int, got 'small'",
        "[size]\nvalues = [true, 2]": "size: must be int, got True",
        "[kind]\nlow = 1\nhigh = 2": "kind: expected values",
        'exclude = [["lr"]]': "exclude: expected a list of options",
        "[lr]\nlo = 1": "lr: expected a table with low and high",
        'only = ["lr"]': "only: lr has no range",
        'only = ["size"]\n[lr]\nlow = 1\nhigh = 2': "lr has a table, but only leaves it out",
        'exclude = ["lr"]\n[lr]\nlow = 1\nhigh = 2': "lr has a table, but exclude leaves it out",
        'exclude = "lr"': "exclude: expected a list of options",
    }.items():
        with pytest.raises(UserError, match=error):
            space(text)


def test_flags_and_toml_of_a_configuration() -> None:
    config = A2CConfig(
        env_id="a b", hidden=(4, 5), lr_decay=False, max_grad_norm=float("inf"), env=EnvOptions(frame_stack=2)
    )
    assert as_flags(config) == ("--env-id 'a b' --frame-stack 2 --max-grad-norm inf --hidden 4 5 --no-lr-decay")
    text = as_toml(config, "note")
    assert text == (
        '# note\nenv_id = "a b"\nmax_grad_norm = inf\nhidden = [4, 5]\nlr_decay = false\n\n[env]\nframe_stack = 2\n'
    )


@pytest.mark.parametrize("value", ["plain", "🙂 ä € 𝄞", 'a "b" \\ c', "".join(map(chr, range(33))) + "\x7f\x80\u2028"])
def test_strings_in_toml_are_read_back(value: str) -> None:
    tomllib = pytest.importorskip("tomllib")
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}


@pytest.mark.parametrize(
    ("confirmed", "shown"),
    [
        ([{"trial": 3, "values": [5.0, 3.0, 4.0]}, {"trial": 0, "values": [4.5, 0.5, 1.0]}], 2.0),
        ([{"trial": 3, "values": [5.0, 3.0, 4.0]}, {"trial": 0, "values": [4.5, None, 1.0]}], 4.5),
        ([{"trial": 3, "values": [5.0, 3.0, 4.0]}], 4.5),
        ([], 4.5),
    ],
)
def test_the_table_compares_means_over_the_same_seeds(confirmed: Any, shown: float) -> None:
    result = {"first_value": 4.5, "confirmed": confirmed, "metric": "score", "trials": [{"point": {"lr": 0.1}}]}
    result["best"] = {"trial": 3, "value": 4.0, "point": {"lr": 0.2}}
    table = table_of(result, {"lr": {"values": [0.1, 0.2]}})
    assert [list(column.cells)[-1] for column in table.columns] == ["score", "", f"{shown:g}", "4"]


def test_known_points_fit_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [{"lr": 5.0, "size": 3}, {"lr": 1.0}, {"other": 1}]
    monkeypatch.setattr("automl_ext.tune.commands.command.portfolio", lambda command, file, spaces, usual: known)
    space = {"lr": Range(0.1, 1.0), "kind": Categories("a", "b")}
    usual = {"lr": 0.5, "kind": "b"}
    assert known_points("train x", space, usual, space) == [{"lr": 1.0, "kind": "b"}]  # without the usual point


@pytest.mark.slow
def test_points_of_a_portfolio_file_come_after_the_given_settings(run: Any, tmp_path: Path) -> None:
    known = Portfolio("train a2c", [{"lr": 0.004}, {"lr": 0.006, "gamma": 0.9}], "test")
    (tmp_path / "known.json").write_text(json.dumps(known.as_dict()))
    given = as_flags(dataclasses.replace(TINY, ent_coef=0.0)).split()
    flags = ["train", "a2c", *given, "--sampler", "experience", "--portfolio", "known.json", "--out", "known"]
    assert run("tune", *flags)[0] == 0
    trials = json.loads((tmp_path / "known/result.json").read_text())["trials"]
    usual = trials[0]["point"] | {"ent_coef": 1e-08}  # 0 is outside of the range
    assert [trial["point"] for trial in trials[1:]] == [usual | point for point in known.points]
    (tmp_path / "known.json").write_text(json.dumps(known.as_dict() | {"command": "train ppo"}))
    code, _, err = run("tune", *flags[:-1], "other")
    assert (code, (tmp_path / "other").exists()) == (2, False)
    assert "expected a portfolio of 'train a2c', got one of 'train ppo'" in err


def saved(config: Any, out: Path, resume: str | None = None, stop_after: int | None = None) -> None:
    """A command that needs ``validate``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps({"score": config.lr if config.validate else None}))


@dataclass
class Validating:
    lr: float = 0.1
    validate: bool = False
    seed: int = 0


def test_what_the_metric_needs_is_set(tmp_path: Path) -> None:
    (tmp_path / "ranges.toml").write_text("[lr]\nlow = 0.1\nhigh = 1.0")
    config = CommandTuneConfig(trials=2, ranges=tmp_path / "ranges.toml")
    by = TunedBy("score", needs=(("validate", True),))
    result = tune_command("x", lambda: (Validating, saved), by, Validating(), config, tmp_path / "run")
    assert result is not None
    assert result["first_value"] == 0.1
    assert result["command_line"].endswith("--validate")
