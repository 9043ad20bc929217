"""Opening a run directory by all ranks: rank 0 reads and writes its files, the others write nothing."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from automl_ext._version import __version__
from automl_ext.training import ranks
from automl_ext.training.config import to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.files import checkpoint
from automl_ext.training.machine.environment import cpu_name
from automl_ext.training.progress import Progress
from automl_ext.training.run import Load, Run


def open_run(out: str | Path, config: Any, *, algorithm: str, resume: str | None, load: Load) -> Run:
    """Open a run on all ranks, as :meth:`automl_ext.training.run.Run.open` does for one.

    With several ranks, ``load`` may exchange data between them: all ranks call it with the state that rank 0 has read.

    Raises:
        UserError: as Run.open; or the ranks run on unequal machines or with unequal options. With several ranks, a
            checkpoint that does not fit ``load`` is an error, and no older one is tried.
    """
    if ranks.count() == 1:
        return Run.open(out, config, algorithm=algorithm, resume=resume, load=load)
    _check_equal(algorithm, config)
    run: Run
    if ranks.rank() == 0:
        run = Run.open(out, config, algorithm=algorithm, resume=resume)
        ranks.from_first((run.step, run.state))
    else:
        run = Follower(Path(out), *ranks.from_first())
    state, run.state = run.state, None
    if state is not None:
        try:
            checkpoint.load_into(load, state)
        except checkpoint.UnfitState as error:
            run.close()
            raise UserError(f"no checkpoint in {out} fits: {error}: choose another --out") from None
    return run


class Follower(Run):
    """The run of another rank than 0. It writes and prints nothing."""

    def __init__(self, path: Path, step: int, state: dict[str, Any] | None) -> None:
        self.path, self.step, self.state = path, step, state

    def log(self, step: int, **scalars: float) -> None:
        pass

    def chart(self, step: int, **scalars: float) -> None:
        pass

    def save(self, step: int, state: dict[str, Any]) -> None:
        pass

    def finish(self, result: dict[str, Any]) -> None:
        pass

    def progress(self, total: int, description: str, start: int | None = None, percent: bool = False) -> Progress:
        return Silent(total, description, self.step if start is None else start, percent)

    def close(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Silent(Progress):
    """Progress that is not shown."""

    def __enter__(self) -> Progress:
        return self


def _check_equal(algorithm: str, config: Any) -> None:
    """Check that all ranks have the same options, versions and processor, without which their results drift apart."""
    facts = {"algorithm": algorithm, "options": to_dict(config)}
    facts |= {"automl_ext": __version__, "torch": str(torch.__version__)}
    facts |= {"threads": torch.get_num_threads(), "processor": cpu_name()}
    facts |= {"gpu": torch.cuda.get_device_name() if torch.cuda.is_initialized() else None}
    first, *others = ranks.gather_states(facts)
    for rank, other in enumerate(others, 1):
        if other != first:
            name = next(name for name in first if first[name] != other[name])
            raise UserError(f"rank {rank} has another value of {name} than rank 0: {other[name]}, not {first[name]}")
