"""Files of recorded episodes: NumPy's ``.npz`` with the fields of a Minari data set; and data sets of Minari.

The arrays of all episodes are concatenated: ``observations`` [steps + episodes, ...], ``actions``, ``rewards``,
``terminations`` and ``truncations`` [steps, ...]; ``lengths`` [episodes] holds the steps of each episode. ``env_id`` is
the environment's name. Nothing in a file is executed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from automl_ext.rl.replay.episodes import RecordedEpisode, as_recorded
from automl_ext.training.errors import UserError, needs_extra
from automl_ext.training.files.atomic import write_atomic
from automl_ext.training.files.npz import read_npz
from automl_ext.training.files.reading import short

MINARI = "minari:"  # starts the name of a Minari data set
FIELDS = RecordedEpisode._fields
KINDS = {"actions": "biuf", "observations": "biuf", "rewards": "biuf", "terminations": "b", "truncations": "b"}


def write_episodes(path: Path, episodes: Sequence[RecordedEpisode], env_id: str) -> None:
    """Write episodes to a compressed ``.npz`` file, atomically."""
    arrays: dict[str, Any] = {name: np.concatenate([getattr(e, name) for e in episodes]) for name in FIELDS}
    arrays |= {"lengths": np.array([len(e.actions) for e in episodes], np.int64), "env_id": np.array(env_id)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def read_episodes(name: str) -> list[RecordedEpisode]:
    """Read the episodes of a file, or of a data set of Minari, ``minari:NAME``.

    Raises:
        UserError: the file is missing, damaged or holds something else.
        ModuleNotFoundError: Minari is not installed; the message names the extra.
    """
    return read_minari(name) if name.startswith(MINARI) else read_file(Path(name))


def read_file(path: Path) -> list[RecordedEpisode]:
    """Read a file that :func:`write_episodes` wrote.

    Raises:
        UserError: the file is missing, damaged or holds other arrays.
    """
    arrays, present = read_npz(path, {*FIELDS, "lengths"})
    missing = [name for name in (*FIELDS, "lengths") if name not in arrays]
    if missing:
        raise UserError(f"{path} holds {short(present)}, expected episodes: {', '.join(missing)} is missing")
    lengths = arrays["lengths"]
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths) or lengths.min() < 1:
        raise UserError(f"{path}: lengths: expected positive integers [episodes], got {short(lengths)}")
    if lengths.max() > len(arrays["actions"]):  # a sum of larger numbers might overflow
        raise UserError(f"{path}: lengths: expected a sum of {len(arrays['actions'])}, got an episode of more steps")
    steps = int(lengths.sum())
    for name, kinds in KINDS.items():
        x, expected = arrays[name], steps + len(lengths) * (name == "observations")
        if x.dtype.kind not in kinds or x.ndim < 1 or len(x) != expected:
            raise UserError(f"{path}: {name}: expected numbers [{expected}, ...], got {x.dtype} {list(x.shape)}")
        if name in ("rewards", "terminations", "truncations") and x.ndim != 1:
            raise UserError(f"{path}: {name}: expected shape [{steps}], got {list(x.shape)}")
        if not np.isfinite(x).all():
            raise UserError(f"{path}: {name}: expected finite numbers")
    ends = np.cumsum(lengths)
    parts = {name: np.split(arrays[name], ends[:-1]) for name in FIELDS if name != "observations"}
    parts["observations"] = np.split(arrays["observations"], (ends + np.arange(1, len(ends) + 1))[:-1])
    return as_recorded([{name: parts[name][i] for name in FIELDS} for i in range(len(lengths))])


def recorded_in(name: str) -> str | None:
    """Return the environment that a file names; None for a data set of Minari, or if the file names none."""
    if name.startswith(MINARI):
        return None
    found = read_npz(Path(name), {"env_id"})[0].get("env_id")
    return str(found)[:200] if found is not None and found.dtype.kind == "U" and found.ndim == 0 else None


def read_minari(name: str) -> list[RecordedEpisode]:
    """Read the episodes of a Minari data set on this machine, ``minari:NAME``; nothing is downloaded.

    Raises:
        UserError: there is no such data set, or its observations or actions are not arrays.
        ModuleNotFoundError: Minari is not installed.
    """
    with needs_extra(f"--episodes {name}", "minari"):
        import minari
    try:
        return as_recorded(minari.load_dataset(name.removeprefix(MINARI)).iterate_episodes())
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(f"--episodes {name}: {short(error)}") from None
