"""Opening a run directory by all ranks: rank 0 reads and writes its files, the others write nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_ext.training import ranks
from automl_ext.training.config import differences, to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.run import Load, Run


def check_equal(config: Any, algorithm: str) -> None:
    """Raise UserError if this rank has another algorithm or other options than rank 0."""
    own = {"algorithm": algorithm, **to_dict(config)}
    for key, first, other in differences(ranks.from_first(own), own):
        raise UserError(
            f"{key}: expected equal options of all processes, got {first} and, on rank {ranks.rank()}, {other}"
        )


def open_run(out: str | Path, config: Any, *, algorithm: str, resume: str | None, load: Load) -> Run:
    """Open a run on all ranks, as :meth:`automl_ext.training.run.Run.open` does for one.

    With several ranks, ``load`` may exchange data between them: all ranks call it with the state that rank 0 has read.

    Raises:
        UserError: as Run.open. With several ranks, a checkpoint that does not fit ``load`` is an error, and no older
            one is tried.
    """
    if ranks.count() == 1:
        return Run.open(out, config, algorithm=algorithm, resume=resume, load=load)
    run = Run.open(out, config, algorithm=algorithm, resume=resume) if ranks.rank() == 0 else None
    step, state = ranks.from_first(run and (run.step, run.state))
    run = run or Follower(Path(out), step)
    run.state = None
    if state is not None:
        try:
            checkpoint.load_into(load, state)
        except checkpoint.UnfitState as error:
            run.close()
            raise UserError(f"no checkpoint in {out} fits: {error}: choose another --out") from None
    return run


class Follower(Run):
    """The run of another rank than 0. It writes nothing."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step, self.state = path, step, None

    def _nothing(self, *arguments: Any, **scalars: Any) -> None:
        pass

    log = chart = save = finish = close = __exit__ = _nothing
