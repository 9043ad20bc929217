"""Candidates from a supernet in ``search auto``: their job, the plan with them, and the order of the candidates."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn", reason="the digits data are scikit-learn's")
from automl_ext.data.images import load_images, split_images
from automl_ext.nas.auto import derive, plan
from automl_ext.nas.auto.auto import Auto, auto
from automl_ext.nas.auto.derive import DeriveJob, has_supernet
from automl_ext.nas.auto.plan import AutoConfig, Done, Task
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.equal_cells import has_dead_node
from automl_ext.nas.screening.score_job import distinct
from automl_ext.nas.spaces.registry import space

CONFIG = AutoConfig(subset=150, channels=2, epochs=2, candidates=6, finalists=2, batch_size=20, baselines=False)
SPLITS = split_images(load_images("digits", subset=150))
CPU = torch.device("cpu")


def job(seconds: float = 1e6) -> DeriveJob:
    return DeriveJob(CONFIG, space("nb201"), SPLITS, CPU, seconds)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of the supernet and two derivations, at any speed."""
    monkeypatch.setattr(DeriveJob, "plan", lambda self: (2, 2))


def run(deriving: DeriveJob, epochs: int | None = None) -> list[dict[str, float]]:
    rows = []
    while deriving.epoch < deriving.epochs and len(rows) != epochs:
        rows.append(deriving.run_epoch())
    return rows


def test_the_time_decides_on_epochs_and_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    deriving = job()
    deriving.run_epoch()
    monkeypatch.setattr(DeriveJob, "seconds", property(lambda self: 1.0))  # cost of the first epoch
    steps = len(deriving.search.weight_images.labels) // 20
    order = 24 / 3  # seconds: 6 edges with 4 operations each, on as many images as an epoch, a third of a training each
    monkeypatch.setattr(derive, "SUPERNET_STEPS", 20 * steps)

    def planned(seconds: float) -> tuple[int, int]:
        deriving.limit = seconds
        return deriving.plan()

    assert planned(1e6) == (-(-derive.MOST_STEPS // steps), 8)
    assert planned(8.5 * order / 0.6) == (49, 8)  # 113.3 s, 64 of them for the derivations
    assert planned(6.5 * order / 0.6) == (38, 6)  # 86.7 s, 48 of them
    assert planned(4.1 * order / 0.6) == (22, 4)
    assert planned(3.9 * order / 0.6) == (1, 0)  # three orders are too few
    monkeypatch.setattr(derive, "SUPERNET_STEPS", 23 * steps)
    assert planned(4.1 * order / 0.6) == (1, 0)  # too few steps


def test_without_time_the_job_ends_after_an_epoch() -> None:
    deriving = job(seconds=0.0)
    assert len(run(deriving)) == 1
    assert deriving.genotypes() == []


@pytest.mark.parametrize("epochs", [1, 9])  # in the training, in the second derivation
def test_an_interrupted_job_ends_alike(epochs: int, short: None) -> None:
    whole, begun, continued = job(), job(), job()
    rows = run(whole)
    assert [sorted(row)[0] for row in rows] == ["supernet_loss"] * 2 + ["derive_log_likelihood_without_best"] * 12
    first = run(begun, epochs)
    continued.load_state_dict(begun.state_dict())
    assert first + run(continued) == rows
    assert continued.genotypes() == whole.genotypes()
    assert len({g.operations for g in whole.genotypes()}) == len(whole.genotypes()) > 0
    assert all("none" not in g.operations for g in whole.genotypes())
    assert continued.seconds > begun.seconds > 0


def test_a_search_that_an_older_version_began_is_refused(tmp_path: Path) -> None:
    searching = Auto(CONFIG, space("nb201"), SPLITS, tmp_path)
    state = searching.state_dict()
    searching.load_state_dict(state)
    del state["version"]  # as in older checkpoints, whose scores are of other candidates
    with pytest.raises(ValueError, match="version: expected 2, got None"):
        searching.load_state_dict(state)


def test_spaces_without_a_supernet() -> None:
    assert [name for name in ("nb201", "darts", "darts-frc", "renas") if has_supernet(space(name))] == [
        "nb201",
        "darts",
        "darts-frc",
    ]


def test_candidates_and_random_cells_have_no_dead_nodes(tmp_path: Path) -> None:
    searching = Auto(CONFIG, space("nb201"), SPLITS, tmp_path)
    cells = [*searching.candidates, *(searching.draw(i) for i in range(30))]
    assert len(cells) == 36
    assert not any(map(has_dead_node, cells))


def test_derived_and_screened_candidates_take_turns(tmp_path: Path) -> None:
    searching = Auto(CONFIG, space("nb201"), SPLITS, tmp_path)
    scores = torch.arange(6.0, dtype=torch.float64)
    table = {name: scores for name in (*RANK, "seconds")}
    derived = [searching.space.random(Random(i)) for i in (100, 101)]
    encoded = [list(searching.space.encode(g)) for g in (*derived, searching.largest)]
    done = [
        Done(Task("screen", 1), 1.0, measured={"table": table}),
        Done(Task("derive", 2), 1.0, measured={"genotypes": encoded}),
    ]
    best = searching.candidates[::-1]
    expected: list[Any] = [searching.largest, derived[0], best[0], derived[1], *best[1:]]
    unique = {distinct(searching.space, g): g for g in reversed(expected)}
    assert searching.ranked(done) == list(dict(reversed(unique.items())).values())
    assert searching.ranked(done[:1])[1] == best[0]


def test_a_search_trains_what_it_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: None) -> None:
    """The derived architectures are trained fully, without short trainings; an interrupted search ends alike."""

    def fixed(config: AutoConfig, epoch: float, batches: int, derived: bool = False) -> plan.Plan:
        return plan.Plan(0.0, 1e9, () if derived else (1,), 0.0, finalists=1, epochs=2)

    monkeypatch.setattr(plan, "make_plan", fixed)
    whole = auto(CONFIG, tmp_path / "whole")
    assert whole is not None
    assert {name: stage["tasks"] for name, stage in whole["stages"].items()} == {
        "probe": 1,
        "screen": 1,
        "derive": 1,
        "full": 2,
    }
    assert "none" not in whole["rows"][0]["genotype"]
    for steps in (5, 7):  # in the training of the supernet, in a derivation
        part = tmp_path / str(steps)
        assert auto(CONFIG, part, stop_after=steps) is None
        assert (resumed := auto(CONFIG, part, resume="auto")) is not None
        assert [row["test_log_loss"] for row in resumed["rows"]] == [row["test_log_loss"] for row in whole["rows"]]
