"""Finished tasks of ``search auto`` as plain values, for checkpoints."""

from __future__ import annotations

from typing import Any

from automl_ext.nas.auto.plan import Done, Task
from automl_ext.nas.spaces.space import Space


def pack_done(done: Done, space: Space[Any]) -> dict[str, Any]:
    """Return a finished task as tensors and plain Python."""
    task = done.task
    values = dict(vars(task))
    values["genotype"] = None if task.genotype is None else list(space.encode(task.genotype))
    return {"task": values, "seconds": done.seconds, "valid_accuracy": done.valid_accuracy, "measured": done.measured}


def unpack_done(values: dict[str, Any], space: Space[Any]) -> Done:
    """Return the inverse of :func:`pack_done`."""
    task = dict(values["task"])
    if task["genotype"] is not None:
        task["genotype"] = space.decode(task["genotype"])
    return Done(Task(**task), float(values["seconds"]), float(values["valid_accuracy"]), values["measured"])
