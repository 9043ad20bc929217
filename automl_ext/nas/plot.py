"""Plots of runs: their curves, the cell that a search found, and comparisons of trained cells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from automl_ext.nas.auto.auto_report import plot_auto
from automl_ext.nas.search.search_pictures import plot_search
from automl_ext.nas.spaces.registry import parse_genotype, space, stored_space
from automl_ext.nas.spaces.space import Space
from automl_ext.nas.training.network_pictures import draw_comparison, plot_confusion, run_title
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object
from automl_ext.training.pictures.curves import Stage, draw_curves, read_metrics
from automl_ext.training.run import BEST, CONFIG, algorithm_of


def plot_run(run: Path, trust: Iterable[str] = ()) -> list[Path]:
    """Plot a run of architecture search.

    Every run except those of ``score`` gets ``curves.png`` of its logged metrics. Further files depend on the run:
    ``trajectory.png`` and ``pareto.png`` for a search with a strategy; ``comparison.png`` for a comparison or an
    ensemble; ``accuracy.png`` for ``search auto``; ``cell.png`` and ``cell.svg`` for a run with a genotype, and for the
    best cell of ``score``; ``confusion.png`` for a run with a trained network.

    Args:
        run: a run directory, perhaps written by somebody else.
        trust: Python modules that its configuration may name (``space``); they are imported.

    Returns:
        The files written.

    Raises:
        UserError: ``run`` is not a run directory, has no metrics, has a damaged file, or names a module that is not in
            ``trust``.
        ModuleNotFoundError: matplotlib (extra ``plot``) is not installed.
    """
    curves, rows = run / "curves.png", read_metrics(run)
    algorithm = algorithm_of(run)
    config = read_object(run / "config.json") if (run / "config.json").is_file() else {}
    result = read_object(run / "result.json") if (run / "result.json").is_file() else {}
    title = run_title(algorithm, config, result)
    if algorithm == "score":
        return plot_scores(run, config, result, trust, title)
    best = read_object(run / BEST) if (run / BEST).is_file() else {}
    names = (result or best).get("networks")
    draw_curves(rows, curves, title, "runs", None if algorithm == "nas-bench" else stages(config, names))
    drawn = plot_search(rows, run, title) + draw_comparison(result, run, title)
    if (genotype := _text(run / "result.json", result, "genotype")) is not None:
        of_space = _text(run / "result.json", result, "space") or _text(run / "config.json", config, "space") or "nb201"
        drawn += _draw(genotype, run, stored_space(of_space, trust, run / CONFIG), title)
        drawn += plot_confusion(result, run)
    drawn += plot_auto(result, run / "accuracy.png", title)
    return [curves, *drawn]


def plot_scores(
    run: Path, config: dict[str, Any], result: dict[str, Any], trust: Iterable[str], title: str
) -> list[Path]:
    """Draw the architecture with the best rank of a run of ``score``, whose metrics only show its progress."""
    best = result.get("best")
    if not isinstance(best, list) or not best or not isinstance(best[0], dict):
        raise UserError(f"plot: {run}: expected a finished run of score, whose result.json has the best architectures")
    genotype = _text(run / "result.json", best[0], "genotype")
    of_space = _text(run / CONFIG, config, "space") or "nb201"
    return [] if genotype is None else _draw(genotype, run, stored_space(of_space, trust, run / CONFIG), title)


def stages(config: dict[str, Any], names: Any = None) -> dict[str, Stage]:
    """Return the stages of runs of architecture search, in the order of their panels.

    Args:
        names: names of the networks of ``search auto``, a list. Anything else, which a damaged file may hold, is
            ignored.
    """
    given = config.get("genotype") is not None

    def network(i: int) -> str:
        return str(names[i]) if isinstance(names, list) and i < len(names) else f"network {i + 1}"

    return {
        "": Stage("", "evaluation"),
        "search": Stage("search"),
        "supernet": Stage("training of the supernet"),
        "derive": Stage("derivation of the cell", "decision"),
        "retrain": Stage("training of the cell"),
        "cell": Stage("training", label=lambda i: "given cell" if given and i == 0 else "random cells"),
        "member": Stage("training", label=lambda i: f"member {i + 1}"),
        "screening": Stage("screening", "part"),
        "probe": Stage("measurement of speed", "part"),
        "score": Stage("scores without training", "part"),
        "race": Stage("race", "part", label=network),
        "last": Stage("last training", "part", label=network),
        "baseline": Stage("baselines", "part", label=network),
    }


def _text(path: Path, values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"plot: {path}: {key}: expected a string, got {type(value).__name__}")
    return value


def plot_genotype(genotype: str, out: Path, space_name: str = "nb201", title: str = "") -> list[Path]:
    """Draw a cell of the space as ``out/cell.png`` and ``out/cell.svg``.

    Raises:
        UserError: the space or the genotype is unknown, or ``out`` cannot be made a folder.
    """
    return _draw(genotype, out, space(space_name), title)


def _draw(genotype: str, out: Path, of_space: Space[Any], title: str) -> list[Path]:
    parsed = parse_genotype(of_space, genotype)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"plot: --out {out}: expected a folder: {error.strerror}") from None
    paths = [out / "cell.png", out / "cell.svg"]
    for path in paths:
        of_space.draw(parsed, path, title)
    return paths
