"""``--screen``: what a search evaluates first, what it is charged, and exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import nas_search_world as world
import numpy as np
import pytest

from automl_ext.nas.benchmarks.nats_bench import NASBenchConfig, nas_bench
from automl_ext.nas.estimators.training_free.scores import RANK
from automl_ext.nas.screening.equal_cells import representative
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.screening.screen import draw_candidates, screened, screening_seconds
from automl_ext.nas.search.search import search
from automl_ext.nas.spaces.registry import SPACES
from automl_ext.nas.strategies.evolution import Evolution, EvolutionConfig
from automl_ext.nas.strategies.random_search import RandomConfig, RandomSearch
from automl_ext.nas.strategies.renas import ReNAS, ReNASConfig
from automl_ext.nas.strategies.renas_controller import HistoryController
from automl_ext.nas.strategies.search_options import ScreenedSearchConfig
from automl_ext.nas.strategies.strategy import Screened, Strategy
from automl_ext.nas.strategies.successive_halving import SuccessiveHalving, SuccessiveHalvingConfig
from automl_ext.training.errors import UserError

SPACE = world.SPACE
SECONDS = 0.5  # cost of the scores of one cell in the file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write a table of accuracies, and scores that rank the cells as their accuracies do."""
    folder = tmp_path_factory.mktemp("files")
    genotypes = [SPACE.decode(indices) for indices in product(range(5), repeat=6)]
    quality = np.array([world.quality(SPACE.encode(genotype)) for genotype in genotypes])
    seconds = np.full(len(genotypes), SECONDS)
    ScoreTable(genotypes, dict.fromkeys(RANK, quality), seconds).write(folder / "scores.csv")
    return {
        "table": str(world.write(folder / "table.npz")),
        "scores": str(folder / "scores.csv"),
    }


def best_cells(count: int) -> list[Screened]:
    drawn = draw_candidates(SPACE, count, Random(7))
    drawn.sort(key=lambda genotype: -world.quality(SPACE.encode(genotype)))
    return [Screened(genotype, -float(i)) for i, genotype in enumerate(drawn)]


MAKE: dict[str, Callable[[Sequence[Screened]], Strategy]] = {
    "random": lambda first: RandomSearch(SPACE, 3, first),
    "rea": lambda first: Evolution(SPACE, 3, 5, 2, screened=first),
    "renas": lambda first: ReNAS(SPACE, 3, HistoryController(SPACE, 3), 5, 2, screened=first),
    "successive-halving": lambda first: SuccessiveHalving(SPACE, 3, 5, (1, 2), 2, first),
}


@pytest.mark.parametrize("name", MAKE)
def test_the_best_screened_candidates_come_first(name: str) -> None:
    first = best_cells(8)
    assert world.drive(MAKE[name](first), 5) == [candidate.genotype for candidate in first[:5]]
    assert world.drive(MAKE[name](()), 5) != [candidate.genotype for candidate in first[:5]]


@pytest.mark.parametrize("name", MAKE)
def test_a_screened_strategy_continues_from_a_checkpoint(name: str) -> None:
    first = best_cells(12)
    whole = world.drive(MAKE[name](first), 30)
    begun, second = MAKE[name](first), MAKE[name](first)
    start = world.drive(begun, 7)
    second.load_state_dict(begun.state_dict())
    assert start + world.drive(second, 23) == whole


def test_random_search_continues_uniformly_after_the_screened_candidates() -> None:
    first = best_cells(3)
    asked = world.drive(RandomSearch(SPACE, 3, first), 6)
    assert asked == [candidate.genotype for candidate in first] + world.drive(RandomSearch(SPACE, 3), 3)


def test_candidates_are_different_and_small_spaces_are_listed() -> None:
    cells = draw_candidates(SPACE, 500, Random(0))
    assert len({*cells}) == len(cells) == 500
    assert draw_candidates(SPACE, 500, Random(0)) == cells
    assert {*draw_candidates(SPACE, 10**6, Random(0))} == {
        SPACE.decode(indices) for indices in product(range(5), repeat=6)
    }
    assert len(draw_candidates(SPACES["darts"](), 3, Random(0))) == 3


def test_screening_charges_each_function_once() -> None:
    cells = draw_candidates(SPACE, 300, Random(0))
    table = ScoreTable(cells, {name: np.arange(300.0) for name in RANK}, np.full(300, 2.0))
    assert screening_seconds(SPACE, table) == 2.0 * len({representative(cell) for cell in cells}) < 600
    assert [candidate.genotype for candidate in screened(table)] == cells[::-1]


CONFIGS: dict[str, ScreenedSearchConfig] = {
    "random": RandomConfig(),
    "rea": EvolutionConfig(population=4, sample=2),
    "renas": ReNASConfig(population=4, sample=2),
    "successive-halving": SuccessiveHalvingConfig(candidates=4),
}


def with_table(name: str, files: dict[str, str], **options: Any) -> ScreenedSearchConfig:
    return type(CONFIGS[name])(**{**vars(CONFIGS[name]), "evaluator": "table", **files, **options})


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_search_with_a_file_of_scores(name: str, files: dict[str, str], tmp_path: Path) -> None:
    result = search(name, with_table(name, files, screen=200, budget=4000.0), tmp_path / "run")
    assert result is not None
    seconds = result["times"]["screening_seconds"]
    assert 50 < seconds <= 200 * SECONDS
    rows = logged(tmp_path / "run")
    assert rows[0]["seconds"] == pytest.approx(seconds + rows[0]["cost"])
    assert rows[-1]["seconds"] == pytest.approx(seconds + result["times"]["evaluation_seconds"])
    assert rows[-1]["seconds"] <= 4000
    first = [row["score"] for row in rows[:4]]
    assert first == sorted(first, reverse=True)
    assert first[0] > 64  # the best of 200; a random cell has 60 in the mean


def test_a_screening_that_costs_more_than_the_budget_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"screen: the scores cost \d+ s, more than the budget of 250 s"):
        search("random", with_table("random", files, screen=1000, budget=250.0), tmp_path / "run")
    result = search("random", with_table("random", files, screen=1000, budget=2000.0), tmp_path / "enough")
    assert result is not None
    seconds = result["times"]["screening_seconds"]
    assert seconds > 250
    with pytest.raises(UserError, match=r"budget: one evaluation takes .* more than 50 s after screening"):
        search("random", with_table("random", files, screen=1000, budget=seconds + 50), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="scores: needs --screen N"):
        with_table("random", files)


TINY: dict[str, Any] = {"subset": 200, "channels": 4, "epochs": 1, "evaluations": 5, "screen": 6}


@pytest.mark.parametrize("evaluator", ["train", "supernet"])
@pytest.mark.slow
def test_a_search_that_computes_its_scores_resumes_exactly(evaluator: str, tmp_path: Path) -> None:
    config = EvolutionConfig(**TINY, evaluator=evaluator, population=3, sample=2)
    whole = search("rea", config, tmp_path / "whole")
    assert whole is not None
    for _ in range(2):
        assert search("rea", config, tmp_path / "parts", resume="auto", stop_after=4) is None
    parts = search("rea", config, tmp_path / "parts", resume="auto")
    assert parts is not None
    assert parts["times"]["screening_seconds"] > 0
    assert [parts[key] for key in ("genotype", "score", "evaluations")] == [
        whole[key] for key in ("genotype", "score", "evaluations")
    ]
    scores = [[row["score"] for row in logged(tmp_path / run) if "score" in row] for run in ("parts", "whole")]
    assert scores[0] == scores[1]


def test_a_screening_stops_at_the_budget(tmp_path: Path) -> None:
    config = RandomConfig(**{**TINY, "evaluations": None, "budget": 1e-6})
    with pytest.raises(UserError, match=r"screen: scores of 1 of \d architectures took .* more than the budget"):
        search("random", config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_nas_bench_with_screening(files: dict[str, str], tmp_path: Path) -> None:
    names = ("random", "rea", "random+screen", "rea+screen", "renas+screen")
    config = NASBenchConfig(**files, runs=12, algorithms=names, budget=1500.0, screen=100, workers=1)
    whole = nas_bench(config, tmp_path / "whole")
    assert whole is not None
    assert whole["random+screen"]["mean"] > whole["random"]["mean"]
    assert whole["random+screen"]["evaluations"] < whole["random"]["evaluations"]  # the scores cost about 45 s
    assert all(row["seconds"] <= 1500 for row in whole.values())
    assert "over_rea" not in whole["rea+screen"]
    difference = whole["renas+screen"]["mean"] - whole["rea+screen"]["mean"]
    assert whole["renas+screen"]["over_rea"]["mean"] == pytest.approx(difference)
    assert nas_bench(config, tmp_path / "parts", stop_after=25) is None
    parts = nas_bench(config, tmp_path / "parts", resume="auto")
    assert parts is not None
    assert {n: row["mean"] for n, row in parts.items()} == {n: row["mean"] for n, row in whole.items()}


def test_nas_bench_refuses_scores_that_do_not_suffice(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scores: expected a file that"):
        NASBenchConfig(table=files["table"], algorithms=("rea+screen",))
    with pytest.raises(ValueError, match=r"algorithms: expected some of .*, got 'reinforce\+screen'"):
        NASBenchConfig(algorithms=("reinforce+screen",))
    few = tmp_path / "few.csv"
    few.write_text("".join(Path(files["scores"]).read_text().splitlines(keepends=True)[:100]))
    config = NASBenchConfig(table=files["table"], scores=str(few), algorithms=("rea+screen",))
    with pytest.raises(UserError, match="expected each of the 15625 cells once"):
        nas_bench(config, tmp_path / "run")
