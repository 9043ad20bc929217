"""Fill the measured tables of README and docs/ from benchmarks/results/, and the list of commands.

    PYTHONPATH=tools python -m docs_tables           # replace the text between the markers
    PYTHONPATH=tools python -m docs_tables --check   # exit code 1, and what differs from the results

A table stands between ``<!-- table: NAME -->`` and ``<!-- table end -->``; NAME is a function of TABLES below, or a
section of ``tables.md``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

from docs_tables import (
    command_line,
    crashes,
    cuda,
    install,
    ops,
    papers,
    parallel,
    rl,
    search,
    tabular,
    torchrun,
    training_free,
)
from docs_tables.figures import templates, with_numbers
from docs_tables.text import ROOT

MARKED = re.compile(r"(<!-- table: (\w+) -->\n)((?:(?!<!--).)*)(<!-- table end -->)", re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        ops.performance,
        ops.page_faults,
        ops.attention,
        ops.growth,
        search.nas_bench,
        search.differentiable_search,
        search.papers_gdas,
        search.alpha_signal,
        search.fidelity,
        search.estimates,
        search.supernet_ranking,
        search.ensemble,
        search.auto_search,
        search.auto_small,
        search.auto_versions,
        training_free.training_free,
        training_free.nas_screening,
        rl.rl_learning,
        rl.dreamer_learning,
        rl.peers,
        rl.costs_rl,
        rl.tuned_agents,
        rl.rl_defaults,
        rl.augmentation,
        tabular.tabular_ranks,
        tabular.tabular_errors,
        tabular.tabular_features,
        tabular.tabular_dates,
        tabular.tabular_small,
        tabular.experience_wins,
        tabular.samplers,
        parallel.parallel_costs,
        parallel.ray_disturbances,
        torchrun.torchrun_steps,
        papers.papers_dreamer,
        papers.papers_atari,
        papers.papers_atari_speed,
        papers.papers_inheritance,
        papers.papers_mujoco,
        papers.papers_pronunciation,
        papers.papers_language_model,
        crashes.torture,
        crashes.kills,
        crashes.endurance,
        crashes.versions,
        crashes.bad_input,
        crashes.sanitizers,
        crashes.mutants,
        cuda.cuda_predictions,
        install.install_times,
        install.install_matrix,
        command_line.commands,
    )
}
TABLES |= {
    name: functools.partial(with_numbers, template)
    for name, template in templates((ROOT / "tools/docs_tables/tables.md").read_text()).items()
}


def filled(text: str) -> str:
    """Return the page with regenerated tables."""
    return MARKED.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n{m[4]}", text)


def pages() -> list[Path]:
    """Return README and the pages of docs/ that have tables."""
    texts = {page: page.read_text() for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))}
    return [page for page, text in texts.items() if MARKED.search(text)]
