"""Mistakes of users of ``tune``: functions that change their point, unknown names, studies that do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from automl_ext.cli import main
from automl_ext.rl.algorithms.a2c import A2CConfig
from automl_ext.rl.envs.making import EnvOptions
from automl_ext.training.errors import UserError
from automl_ext.tune import Range, TuneConfig, tune
from automl_ext.tune.commands.flags import as_flags
from automl_ext.tune.portfolio import portfolio

SPACE = {"lr": Range(1e-4, 1.0, log=True)}


def changing(point: dict[str, Any], folder: Path) -> float:
    (folder / "model.txt").write_text("a model")
    return -abs(point.pop("lr") - 0.1)


def test_a_function_may_change_its_point_and_write_into_its_folder(tmp_path: Path) -> None:
    config = TuneConfig(trials=4, sampler="random")
    result = tune(changing, SPACE, config, tmp_path / "run")
    assert result is not None
    assert all(trial["point"].keys() == {"lr"} for trial in result["trials"])
    again = tune(changing, SPACE, TuneConfig(trials=5, sampler="random"), tmp_path / "run", resume="auto")
    assert again is not None
    assert again["trials"][:4] == result["trials"]


@pytest.mark.parametrize(("name", "value"), [("sampler", "TPE"), ("pruner", "median")])
def test_unknown_names_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected one of .*, got '{value}'"):
        TuneConfig(**{name: value})  # type: ignore[arg-type]


@dataclass
class Settings:
    table: str = "a.csv"
    new: int = 1


def test_a_shared_study_of_other_settings_warns(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    config = TuneConfig(trials=1, storage=f"journal:{tmp_path / 'study.log'}")
    for run, settings in (("one", {"table": "a.csv", "seed": 0}), ("two", {"table": "a.csv", "seed": 1})):
        tune(changing, SPACE, config, tmp_path / run, about={"settings": settings})
    assert not [w for w in recwarn if "study tune" in str(w.message)]
    with pytest.warns(UserWarning, match="study tune: begun with settings.table 'a.csv' there, 'b.csv' here"):
        tune(changing, SPACE, config, tmp_path / "three", about={"settings": {"table": "b.csv", "seed": 0}})
    recwarn.clear()
    tune(changing, SPACE, config, tmp_path / "newer", about={"settings": Settings()})
    assert not [
        w for w in recwarn if "study tune" in str(w.message)
    ]  # the study is older than an option of its command
    with pytest.warns(UserWarning, match="study tune: begun with settings.new 1 there, 2 here"):
        tune(changing, SPACE, config, tmp_path / "other", about={"settings": Settings(new=2)})
    config = TuneConfig(trials=1, storage=f"journal:{tmp_path / 'other.log'}")
    tune(changing, SPACE, config, tmp_path / "four")
    with pytest.warns(UserWarning, match=r"begun with objective '.*changing' there, '.*failing_once' here"):
        tune(failing_once, SPACE, config, tmp_path / "five")
    with pytest.warns(UserWarning, match=r"begun with space"):
        tune(changing, {"lr": Range(0.0, 9.0)}, config, tmp_path / "six")


def test_failed_trials_are_named_with_their_reason(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="trial 1 failed: bad lr"):
        tune(failing_once, SPACE, TuneConfig(trials=2), tmp_path / "run")


def failing_once(point: dict[str, Any], folder: Path) -> float:
    if folder.name.endswith("1"):
        raise ValueError("bad lr")
    return 1.0


def test_flags_that_take_one_item_are_repeated() -> None:
    config = A2CConfig(hidden=(8, 8), env=EnvOptions(env_kwarg=("size=5", "mapping_seed=1")))
    assert as_flags(config) == "--env-kwarg size=5 --env-kwarg mapping_seed=1 --hidden 8 8"


def test_minimize_needs_a_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "train", "a2c", "--trials", "1", "--minimize", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--minimize needs --objective with a loss: of eval_return_mean" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_number_of_seeds_cannot_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--total-steps", "80", "--n-envs", "2", "--eval-every", "40", "--eval-episodes", "1", "--hidden", "8"]
    words = ["tune", "train", "a2c", *tiny, "--final-episodes", "1", "--trials", "1", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert main([*words, "--trial-seeds", "2", "--resume", "auto"]) == 2
    assert "trial_seeds" in capsys.readouterr().err


def test_the_path_of_a_portfolio_may_be_a_string(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json"):
        portfolio("train a2c", str(tmp_path / "none.json"))
