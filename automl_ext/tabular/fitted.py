"""A fitted ensemble: predicts, and is saved to and loaded from files of which nothing is executed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from automl_ext._version import __version__
from automl_ext.tabular.extra import library
from automl_ext.tabular.features.families import FAMILIES
from automl_ext.tabular.features.preparation import Preparation
from automl_ext.tabular.learners.job import Model
from automl_ext.tabular.learners.registry import LEARNERS
from automl_ext.tabular.table.cleaning import clean
from automl_ext.tabular.table.columns import IGNORED, KINDS, Column
from automl_ext.tabular.table.table_files import check_frame
from automl_ext.tabular.table.task import Array, Kind, TableTask
from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import fsync_path, write_json
from automl_ext.training.files.reading import check_regular, read_object, short

MODEL, FOLDER = "model.json", "models"


@dataclass(frozen=True)
class Member:
    """One model of the ensemble.

    Attributes:
        weight: its share of the average.
        rounds: number of rounds that its predictions use.
        preparation: position of its preparation.
    """

    learner: str
    weight: float
    rounds: int
    preparation: int
    model: Model


@dataclass
class Fitted:
    """A fitted ensemble.

    Attributes:
        task: the prediction task.
        columns: the columns of the training table, without the target.
        preparations: the fitted preparations of the columns, one or two per fold.
        members: the models.
        report: facts about the search: leaderboard, features, splits, seconds.
        evaluation: the validation rows: "y" and "predicted".
    """

    task: TableTask
    columns: list[Column]
    preparations: list[Preparation]
    members: list[Member]
    report: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Array] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels in the order of the columns of :meth:`predict_proba`; () for a regression."""
        return self.task.classes

    @property
    def leaderboard(self) -> Any:
        """The ensemble and the trials as a ``pandas.DataFrame``, the best trial first."""
        return library("pandas").DataFrame(self.report["leaderboard"])

    def predict(self, frame: Any) -> Array:
        """Predict labels or numbers, [N], for the rows of a ``pandas.DataFrame``.

        Unknown categories count as missing. Other columns than those of the training table are ignored, the target
        too. A row's prediction does not depend on the other rows.

        Raises:
            UserError: a column is missing, or has a value of another type; the message names both.
        """
        average = self._average(frame)
        if not self.task.is_classification:
            return average
        labels = np.array(self.task.classes, dtype=_dtype(self.task.classes))
        return labels[average.argmax(1)]

    def predict_proba(self, frame: Any) -> Array:
        """Predict probabilities, [N, classes], in the order of ``task.classes``.

        Raises:
            UserError: the task is a regression; or as for :meth:`predict`.
        """
        if not self.task.is_classification:
            raise UserError("predict_proba: expected a classification, the task is a regression")
        return self._average(frame)

    def _average(self, frame: Any) -> Array:
        cleaned = clean(check_frame(frame, "frame"), self.columns)
        matrices = [preparation.apply(cleaned).x for preparation in self.preparations]
        shape = (len(cleaned), len(self.task.classes)) if self.task.is_classification else (len(cleaned),)
        total = np.zeros(shape)
        if len(cleaned):
            for member in self.members:
                total += member.weight * member.model.predict(matrices[member.preparation], member.rounds)
        return total

    def importance(self) -> dict[str, float]:
        """Return the mean importance of each feature over the members, by name. The importances sum to 1."""
        found: dict[str, float] = {}
        names = [p.feature_names() for p in self.preparations]
        for member in self.members:
            values = member.model.importance(member.rounds)
            total = float(values.sum())
            if total > 0:
                for name, value in zip(names[member.preparation], values, strict=True):
                    found[name] = found.get(name, 0.0) + member.weight * float(value) / total
        whole = sum(found.values()) or 1.0
        return {name: value / whole for name, value in sorted(found.items(), key=lambda item: -item[1])}

    def save(self, path: str | Path) -> None:
        """Write the ensemble to a folder: ``model.json`` and the libraries' own files of their models.

        Raises:
            OSError: the folder cannot be written.
        """
        path = Path(path)
        (path / FOLDER).mkdir(parents=True, exist_ok=True)
        members = []
        for i, member in enumerate(self.members):
            file = path / FOLDER / f"{i:03d}-{member.learner}{LEARNERS[member.learner].suffix}"
            member.model.save(file)
            fsync_path(file)
            members.append(
                {
                    "learner": member.learner,
                    "weight": member.weight,
                    "rounds": member.rounds,
                    "preparation": member.preparation,
                    "file": file.name,
                    "sha256": _sha256(file),
                }
            )
        content = {
            "automl_ext": __version__,
            "task": asdict(self.task),
            "columns": [vars(column) for column in self.columns],  # asdict is slow for thousands of columns
            "preparations": [{**vars(p), "columns": [vars(c) for c in p.columns]} for p in self.preparations],
            "members": members,
            "report": self.report,
        }
        data = json.dumps(content)
        fsync_path(path / FOLDER)
        write_json(path / MODEL, {"sha256": hashlib.sha256(data.encode()).hexdigest(), "content": data})


def load(path: str | Path) -> Fitted:
    """Load an ensemble that :meth:`Fitted.save` wrote. Nothing in the files is executed.

    Raises:
        UserError: a file is missing, damaged or changed.
    """
    path = Path(path)
    outer = read_object(path / MODEL)
    data = outer.get("content")
    if not isinstance(data, str) or hashlib.sha256(data.encode()).hexdigest() != outer.get("sha256"):
        raise UserError(f"{path / MODEL} is damaged: its content does not match its SHA-256")
    content = None
    try:
        content = json.loads(data)
        task = _task(content["task"])
        columns = [_column(stored) for stored in content["columns"]]
        preparations = [_preparation(stored) for stored in content["preparations"]]
        members = [_member(path, stored, task, len(preparations)) for stored in content["members"]]
        fitted = Fitted(task, columns, preparations, members, content["report"])
        names = [column.name for column in columns if column.is_used]
        # The parts may not fit together: predict missing values, in a number of rows that broadcasts with no other.
        rows = range(len(task.classes) + 2)
        fitted._average(library("pandas").DataFrame(dict.fromkeys(names), index=rows, dtype=object))
        return fitted
    except (UserError, ImportError, MemoryError):
        raise
    except Exception as error:  # the libraries have their own classes of errors
        version = content.get("automl_ext") if isinstance(content, dict) else None
        raise UserError(
            f"{path / MODEL}, written by automl_ext {short(version)}, does not fit: {short(error)}"
        ) from None


def _task(stored: dict[str, Any]) -> TableTask:
    kind, classes = stored["kind"], len(stored["classes"])
    if kind not in get_args(Kind) or (kind == "regression") != (classes == 0):
        raise ValueError(f"there is no task {kind!r} of {classes} classes")
    units = {"center": float(stored["center"]), "scale": float(stored["scale"])}
    return TableTask(**{**stored, "classes": tuple(stored["classes"]), **units})


def _column(stored: dict[str, Any]) -> Column:
    if stored["kind"] not in (*KINDS, *IGNORED):
        raise ValueError(f"there is no kind of column {stored['kind']!r}")
    return Column(stored["name"], stored["kind"], stored["why"], tuple(stored["missing"]), stored["day_first"])


def _preparation(stored: dict[str, Any]) -> Preparation:
    if unknown := set(stored["families"]) - set(FAMILIES):
        raise ValueError(f"there is no family of features {sorted(unknown)}")
    return Preparation([_column(c) for c in stored["columns"]], stored["categories"], stored["families"])


def _member(path: Path, stored: dict[str, Any], task: TableTask, preparations: int) -> Member:
    learner, preparation, file = stored["learner"], stored["preparation"], path / FOLDER / Path(stored["file"]).name
    if preparation not in range(preparations):
        raise ValueError(f"there is no preparation {preparation}")
    if _sha256(file) != stored["sha256"]:
        raise UserError(f"{file} is damaged: it does not match its SHA-256")
    model = LEARNERS[learner].load(file, task)
    return Member(learner, float(stored["weight"]), int(stored["rounds"]), preparation, model)


def _sha256(path: Path) -> str:
    check_regular(path, str(path))  # reading a pipe would wait, reading a device might not end
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _dtype(classes: tuple[Any, ...]) -> Any:
    return object if any(isinstance(label, str) for label in classes) else None
