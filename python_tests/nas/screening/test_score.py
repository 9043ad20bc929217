"""``automl-ext score``: the architectures it ranks, its files, exact resume, errors."""

from __future__ import annotations

import csv
import importlib.util
import json
from functools import partial
from itertools import combinations, pairwise, product
from pathlib import Path
from random import Random
from typing import Any

import nas_search_world as world
import numpy as np
import pytest

from automl_ext.cli import main
from automl_ext.nas.estimators.training_free.scores import RANK, SCORES
from automl_ext.nas.screening.equal_cells import has_dead_node, representative
from automl_ext.nas.screening.score import ScoreConfig, score
from automl_ext.nas.screening.score_job import complete
from automl_ext.nas.screening.score_table import ScoreTable
from automl_ext.nas.screening.screen import draw_candidates
from automl_ext.nas.spaces.nasbench201 import EDGES, Genotype, NASBench201
from automl_ext.training.errors import UserError

SMALL: dict[str, Any] = {"subset": 200, "channels": 4, "images": 8}
CELLS = (
    "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def scores_only(out: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "cpu_seconds"} for row in rows(out)]


@pytest.mark.slow
def test_the_command_ranks_given_and_drawn_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "cells.txt").write_text(f"{CELLS[0]}\n\n{Genotype(('skip_connect',) * 6)}\n")
    table = world.write(tmp_path / "table.npz")
    size = ["--subset", "200", "--channels", "4", "--images", "8"]
    chosen = ["--genotype", *CELLS, "--file", str(tmp_path / "cells.txt"), "--random", "5"]
    command = ["score", *size, *chosen, "--table", str(table), "--out"]
    assert main([*command, str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    result = json.loads((tmp_path / "a/result.json").read_text())
    assert 7 <= result["architectures"] == len(rows(tmp_path / "a")) <= 8  # a drawn cell may be one of the given
    assert [row["genotype"] for row in rows(tmp_path / "a")][:2] == [*CELLS]
    assert list(rows(tmp_path / "a")[0]) == ["genotype", *SCORES, "cpu_seconds"]
    assert result["best"][-1]["genotype"] == CELLS[1]  # no path: last
    assert result["best"][-1]["rank"] is None
    assert {"rank", "parameters", *RANK} <= result["correlations"].keys()
    assert "Spearman" in text
    assert "parameters alone" in text
    assert result["best"][0]["genotype"] in text
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "a/scatter.png").read_bytes()[:4] == b"\x89PNG"
    assert main([*command, str(tmp_path / "b"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.partition("written to")[0])
    assert printed["best"] == result["best"]
    assert scores_only(tmp_path / "b") == scores_only(tmp_path / "a")


def test_resumed_scores_equal_uninterrupted_ones(tmp_path: Path) -> None:
    config = ScoreConfig(**SMALL, random=6)
    assert score(config, tmp_path / "whole") is not None
    assert score(config, tmp_path / "parts", stop_after=2) is None
    assert score(config, tmp_path / "parts", resume="auto") is not None
    assert scores_only(tmp_path / "parts") == scores_only(tmp_path / "whole")


def test_a_file_of_scores_is_read_exactly(tmp_path: Path) -> None:
    names = [*dict.fromkeys(("parameters", *RANK))]
    scores = {name: np.array([0.1, -np.inf]) + k for k, name in enumerate(names)}
    written = ScoreTable([Genotype.parse(cell) for cell in CELLS], scores, np.array([1e-3, 1 / 3]))
    written.write(tmp_path / "scores.csv")
    read = ScoreTable.read(tmp_path / "scores.csv", NASBench201())
    assert read.genotypes == written.genotypes
    assert read.seconds.tolist() == written.seconds.tolist()
    assert {k: v.tolist() for k, v in read.scores.items()} == {k: v.tolist() for k, v in scores.items()}


HEADER = ",".join(["genotype", *RANK, "cpu_seconds"])
GOOD = ",".join([CELLS[0], *("1" for _ in RANK), "1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: no column genotype"),
        (HEADER.replace(RANK[0], "x"), f"line 1: no column {RANK[0]}"),
        (HEADER, "expected at least one row"),
        (f"{HEADER}\n{GOOD},2", "line 2: expected"),
        (f"{HEADER}\n{GOOD.replace('nor_conv_3x3', 'nothing')}", "line 2: genotype: expected a NAS-Bench-201 cell"),
        (f"{HEADER}\n{GOOD[:-1]}nan", "line 2: expected a number or -inf, got nan"),
        (f"{HEADER}\n{GOOD[:-1]}-1", "cpu_seconds: expected finite numbers of at least 0"),
        ("\x00\xff", "scores: "),
    ],
)
def test_invalid_files_of_scores(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "scores.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        ScoreTable.read(tmp_path / "scores.csv", NASBench201())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--genotype", "nothing"], "genotype: expected a NAS-Bench-201 cell"),
        (["--file", "absent.txt"], "file: cannot read absent.txt"),
        (["--space", "darts", "--all"], "all: the space darts has"),
        (["--space", "darts", "--table", "x.npz"], "table: the table holds NAS-Bench-201 cells"),
        (["--images", "3"], "images: expected at least 4"),
        (["--random", "3", "--all"], "random: expected none with all"),
        (["--file", "cells.txt"], "cells.txt, line 3: genotype: expected a NAS-Bench-201 cell"),
    ],
)
def test_errors_name_the_option(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cells.txt").write_text(f"{CELLS[0]}\n\n# a comment\n")
    assert main(["score", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_cells_of_one_function_share_scores_but_not_sizes(tmp_path: Path) -> None:
    dead = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|nor_conv_3x3~1|none~2|"  # the second convolution reads zeros
    alive = str(representative(Genotype.parse(dead)))
    assert alive != dead
    result = score(ScoreConfig(**SMALL, genotype=(dead, alive)), tmp_path / "run")
    assert result is not None
    assert result["networks"] == 1
    first, second = rows(tmp_path / "run")
    for size in ("parameters", "multiply_adds"):
        assert float(first.pop(size)) > float(second.pop(size))
    assert first.pop("genotype") != second.pop("genotype")
    assert first == second


def test_separate_convolutions_are_scored_as_they_are(tmp_path: Path) -> None:
    conv, skip, none = "nor_conv_3x3", "skip_connect", "none"
    cells = [Genotype((conv, conv, none, none, skip, skip)), Genotype((conv, none, skip, none, skip, skip))]
    score(ScoreConfig(**SMALL, genotype=tuple(map(str, cells))), tmp_path / "run")
    separate, once = rows(tmp_path / "run")
    assert float(separate["multiply_adds"]) > float(once["multiply_adds"])
    assert all(separate[name] != once[name] for name in SCORES)


def test_dead_nodes_are_those_that_no_path_visits() -> None:
    def visited(genotype: Genotype) -> set[int]:
        edges = {edge for edge, name in zip(EDGES, genotype.operations, strict=True) if name != "none"}
        inner = [subset for size in range(3) for subset in combinations((1, 2), size)]
        paths = [(0, *nodes, 3) for nodes in inner]
        return {node for path in paths for node in path if all(edge in edges for edge in pairwise(path))}

    space = NASBench201()
    for operations in product(("none", "nor_conv_3x3"), repeat=len(EDGES)):
        genotype = Genotype(operations)
        assert has_dead_node(genotype) == (visited(genotype) != {0, 1, 2, 3})
    drawn = draw_candidates(space, 50, Random(0), partial(complete, space))
    assert len(drawn) == 50
    assert not any(map(has_dead_node, drawn))
    every = draw_candidates(space, 10**6, Random(0), partial(complete, space))
    assert len(every) == sum(not has_dead_node(genotype) for genotype in draw_candidates(space, 10**6, Random(0)))
