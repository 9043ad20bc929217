"""The console script ``automl-ext``, and the class of the entries in its table of commands.

It is outside of the package ``automl_ext``, whose import loads torch and takes seconds: help must not wait for it.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module

TYPE_CHECKING = False  # importing typing would slow down `automl-ext --help`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_RUN = {"flags": "automl_ext.run_options:RunOptions", "report": "automl_ext.summary:report_networks", "next": ("plot",)}
KINDS: dict[str, dict[str, Any]] = {
    "supernet": _RUN
    | {
        "flags": "automl_ext.run_options:SupernetOptions",
        "run": "automl_ext.nas.supernets.search_supernet:search_supernet",
        "metric": ("supernet_accuracy", "search_supernet_accuracy"),  # of the derived architecture, validation images
        "columns": ("test_accuracy",),
        "next": ("plot", "export", "retrain"),
        "ranked": True,
    },
    "strategy": _RUN
    | {
        "through": "automl_ext.nas.search.search:search",
        "metric": ("score", "best_score"),  # of the best architecture, validation images
        "report": "automl_ext.summary:report_search",
        "columns": ("test_accuracy", "score"),
        "next": ("plot", "retrain"),
        "divides": True,
    },
    "agent": _RUN
    | {
        "flags": "automl_ext.run_options:TrainOptions",
        "through": "automl_ext.rl.loop.loop:train",
        # Of the last policy, in new episodes; trials are pruned by the evaluations on the way.
        "metric": ("eval_return_mean", "eval_return"),
        "report": "automl_ext.summary:report_training",
        "columns": ("eval_return_mean", "best_eval_return"),
        "draw_seeds": "automl_ext.rl.reports.plot:draw_seeds",
        "next": ("plot", "eval"),
    },
    "run": _RUN,
    "alias": {},
    "other": {},
}


class Command:
    """One command of the table.

    | kind | options | run |
    |---|---|---|
    | supernet | configuration, which makes the algorithm of the search over a supernet | – |
    | strategy | configuration of a search strategy, which makes the strategy | – |
    | alias | – | name of the command that this one stands for |
    | agent | configuration | class of the agent |
    | run | configuration | another function that makes a run directory |
    | other | options | function from the options to the exit code |

    A command of kind other without options parses them itself: its function gets the program's name and the arguments.

    Args:
        kind: one of :data:`KINDS`, which has values of the attributes below for all commands of the kind.
        help: one line for the list of commands.
        options: dataclass of the command's options, as ``module:object``; "" for tune, whose options depend on the
            tuned command.
        run: what runs it, as ``module:object``.
        more: values of the attributes below.

    Raises:
        ValueError: there is no such kind.
        TypeError: there is no such attribute.
    """

    name = ""  # the last word, under which runs are stored; the table sets it
    run = ""
    flags = ""  # dataclass of the options beside the configuration; "": the command makes no run directory
    through = ""  # function whose first argument is the object `run`, or `name` if there is none; "": `run` is called
    # The result and the metric that `tune` reads, and settings without which there are none, as of
    # automl_ext.tune.commands.objective.TunedBy; (): the command cannot be tuned.
    metric: tuple[Any, ...] = ()
    report = ""  # function that prints the result: (prog, out, configuration, result, next command lines)
    columns: tuple[str, ...] = ()  # results in the table of --seeds
    draw_seeds = ""  # function that draws the runs of several seeds: (runs, out)
    next: tuple[str, ...] = ()  # commands that may follow
    ranked = False  # whether torchrun may start it in several processes
    divides = False  # whether one run has parts that a cluster runs

    def __init__(self, kind: str, help: str, options: str = "", run: str = "", **more: Any) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        self.kind, self.help, self.options = kind, help, options
        for name, value in (KINDS[kind] | ({"run": run} if run else {}) | more).items():
            if not hasattr(Command, name):
                raise TypeError(f"Command has no attribute {name!r}")
            setattr(self, name, value)

    def load(self) -> tuple[type, Callable[..., Any]]:
        """Import the configuration, and the function ``(configuration, out, resume, stop_after)`` that makes a run."""
        function: Any = load(self.run) if self.run else self.name
        return load(self.options), partial(load(self.through), function) if self.through else function


def load(name: str) -> Any:
    """Import the object that ``module:object`` names."""
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)
