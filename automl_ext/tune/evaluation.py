"""One trial, in a worker process: the objective is called and its outcome written."""

from __future__ import annotations

import contextlib
import errno
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.memory import is_out_of_memory
from automl_ext.training.progress import quiet
from automl_ext.tune.reporting import Pruned, Reports, reporting
from automl_ext.tune.trials import Outcome, Proposal, file_of, folder_of, read_trial, write_trial

if TYPE_CHECKING:
    from automl_ext.tune.pruning import Rule

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
Objective = Callable[[dict[str, Any], Path], float]  # (point, folder of the trial) -> value


def name_of(objective: Objective) -> str:
    """Return the module and the name of a function, or of the class of a callable object."""
    named: Any = objective if hasattr(objective, "__qualname__") else type(objective)
    return f"{named.__module__}.{named.__qualname__}"


@dataclass(frozen=True)
class Evaluate:
    """Evaluates a proposal, and writes its outcome into its file before it returns it."""

    objective: Objective
    trials: Path

    def __call__(self, proposal: Proposal, rule: Rule | None) -> Outcome:
        found = read_trial(self.trials, proposal.index)
        if found is not None and found[1] is not None:  # ended just before its process was killed
            return found[1]
        judge = None
        if rule is not None:
            from automl_ext.tune.pruning import HyperbandJudge

            judge = HyperbandJudge(rule)
        reports, begin = Reports(judge), time.monotonic()
        state, value, error = self._call(proposal, reports)
        seconds = time.monotonic() - begin
        values = [(step, v if math.isfinite(v) else None) for step, v in reports.values]
        outcome = Outcome(state, value, values, seconds, error)  # type: ignore[arg-type]
        write_trial(self.trials, proposal, outcome)
        return outcome

    def _call(self, proposal: Proposal, reports: Reports) -> tuple[str, float | None, str | None]:
        """Call the objective. Return state, value and error."""
        try:
            with reporting(reports), quiet(), contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
                folder = folder_of(self.trials, proposal.index)
                folder.mkdir(exist_ok=True)
                value = float(self.objective(dict(proposal.point), folder))  # a copy, which the objective may change
        except Pruned:
            return "pruned", None, None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise  # no fault of the point: tuning ends, and the trial can be resumed
            memory = "not enough memory: " if is_out_of_memory(error) else ""
            kind = "" if isinstance(error, (UserError, ValueError)) or memory else f"{type(error).__name__}: "
            if not isinstance(error, (UserError, ValueError)):
                path = file_of(self.trials, proposal.index).with_suffix(".error.txt")
                path.write_text("".join(traceback.format_exception(error)))
            return "failed", None, memory + kind + short(error)
        if not math.isfinite(value):
            return "failed", None, f"the objective is {value}"
        return "finished", value, None
